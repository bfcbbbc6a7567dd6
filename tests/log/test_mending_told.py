"""What a repair says that it does, and the files that stand after it: no more of them, and no other, than the damage asks for."""

import json
import os

import pytest
from memory_disk import MemoryDisk
from test_mending import D, damage_of, mend, readable

from edge.storage.cipher import Cipher
from edge.storage.log import Log
from edge.storage.mending import Mending
from edge.storage.opening import RECORDS_MAX
from edge.storage.reading import LogReader
from edge.storage.segment import CONTINUES, MENDED, SEALED_RECORDS, SKIPS, UNSURE, parse_header, parse_name

ROT = "the bytes are not those that were written"


def payload(position):
    return b"<%07d>" % position * 5


def log_of(*steps, group=False, ends=True, cipher=None):
    """Files of a log: of each step a segment with so many records, or so many positions skipped (1000 and more). group: the last segment is written at once;
    ends: it was closed."""
    disk = MemoryDisk()
    log = Log(disk, D, segment_bytes_max=1 << 16, quota_bytes_max=1 << 20, cipher=cipher)
    for i, step in enumerate(steps):
        if step >= 1000:
            log.truncate(log.head + step)
            continue
        log.roll() if i and steps[i - 1] < 1000 else None
        for n in range(step):
            log.append(2, 1, n, 1, payload(log.head))
            if not group or i < len(steps) - 1:
                log.sync()
        log.sync()
    log.close() if ends else disk.kill()
    return {path: bytes(node.data) for path, node in disk.files.items() if path.endswith((".seg", ".idx"))}


def spoilt(files, *positions):
    for position in positions:
        files = {path: data.replace(payload(position), b"rotten!!!" * 5) for path, data in files.items()}
    return files


def segments(files):
    return sorted(path for path in files if path.endswith(".seg") and "/quarantine/" not in path)


def places(disk):
    """(serial, first position) of each segment file."""
    return [(s.serial, s.first) for s in (parse_name(path[len(D) + 1:]) for path in segments(disk.files))]


def noise(serial, first):
    return {f"{D}/{serial:08x}-{first:016x}-11223344.seg": b"noise" * 50}


def header(disk, first):
    """(version, flags) of the segment file that begins at a position."""
    path, = [path for path in segments(disk.files) if parse_name(path[len(D) + 1:]).first == first]
    version, _, _, flags = parse_header(bytes(disk.files[path].data))
    return version, flags


NOTE = {"do": "note in its header that the positions before it are lost", "why": "no file has these positions"}


@pytest.mark.parametrize("lost, do, ranges", [
    ((5,), "put aside; 3 readable records into 2 clean files", [[5, 6]]),
    ((4,), "put aside; 3 readable records into 1 clean file", [[4, 5]]),
    ((5, 7), "put aside; 2 readable records into 2 clean files", [[5, 6], [7, 8]]),
    ((4, 5, 6, 7), "put aside; nothing in it is readable", [[4, 8]]),
])
def test_what_is_put_aside_and_what_it_costs_is_said_and_noted_beside_the_file(lost, do, ranges):
    files = spoilt(log_of(4, 4, 4), *lost)
    disk = MemoryDisk(files)
    action, *more = mend(disk, now="today").actions
    file, later = (path[len(D) + 1:] for path in segments(files)[1:])
    assert more == [{"file": later} | NOTE] * (7 in lost)
    assert (action["file"], action["do"], action["positions_lost"]) == (file, do, len(lost))
    assert action["why"].count("offset ") == len(ranges) and (ROT in action["why"] or "the end is damaged or missing" in action["why"])
    note = json.loads(disk.files[f"{D}/quarantine/{file}.why"].data)
    assert note == {"file": file, "what": action["why"], "positions_lost": ranges, "was_found": "today"}


def test_what_was_put_aside_before_stays_and_what_comes_later_is_numbered():
    files = spoilt(log_of(4, 4), 1)
    path = segments(files)[0]
    aside = f"{D}/quarantine/{path[len(D) + 1:]}"
    for before, name in ((), aside), ((aside,), f"{aside}.2"), ((aside, f"{aside}.2"), f"{aside}.3"):
        disk = MemoryDisk(files | {old: b"earlier" for old in before})
        mend(disk)
        put = {old: bytes(node.data) for old, node in disk.files.items() if "quarantine" in old}
        assert json.loads(put.pop(f"{name}.why"))["file"] == path[len(D) + 1:] and put == {old: b"earlier" for old in before} | {name: files[path]}


def test_what_is_made_anew_has_a_salt_of_four_bytes_by_chance_and_none_is_zero():
    """Blank space may not look like a record of it."""
    salts = set()
    for seed in range(5):
        disk = MemoryDisk(log_of(4) | noise(2, 4), seed=seed)
        disk.entropy = lambda size, own=disk.entropy, seed=seed: bytes(size) if seed == 4 else own(size)
        mend(disk)
        salts.add(parse_name(segments(disk.files)[-1][len(D) + 1:]).salt)
    assert len(salts) == 5 and all(0 not in salt.to_bytes(4) for salt in salts)


def test_where_a_file_is_gone_the_next_one_gets_a_note_and_keeps_its_records():
    files = log_of(4, 4, 4, 4)
    gone = segments(files)[1]
    files = {path: data for path, data in files.items() if path[:-4] != gone[:-4]}
    disk = MemoryDisk(files)
    later = segments(files)[1]
    assert mend(disk).actions == [{"file": later[len(D) + 1:]} | NOTE]
    assert segments(disk.files) == segments(files) and not any("quarantine" in path for path in disk.files)
    assert LogReader(disk, D).mended == [(4, 8)] and bytes(disk.files[later].data)[32:] == files[later][32:].rstrip(b"\0")


def test_a_log_without_a_segment_is_left_without_one():
    disk = MemoryDisk()
    assert mend(disk).actions == [] and not disk.files


def test_what_a_power_cut_tore_in_the_last_group_is_no_damage():
    """No sync had returned for it; a start sees that itself."""
    files = spoilt(log_of(4, 4, group=True, ends=False), 5)
    disk = MemoryDisk(files)
    assert mend(disk).actions == []
    assert {path: bytes(node.data) for path, node in disk.files.items()} == files


def test_what_was_torn_is_put_aside_where_it_would_be_taken_for_damage_afterwards():
    """As another file comes behind it, or as its header is written again."""
    files = spoilt(log_of(4, 4, 4, group=True, ends=False), 9)
    last = segments(files)[-1]
    gone = {path: data for path, data in files.items() if path[:-4] != segments(files)[1][:-4]}
    for files, why, places_after in (
        (files | noise(0, 12), "records were torn by a power cut, and it is not the last file any more", [(1, 0), (2, 4), (3, 8), (3, 10), (4, 12 + RECORDS_MAX)]),
        (gone, "records were torn by a power cut, and no file has the positions before it", [(1, 0), (3, 8), (3, 10)]),
    ):
        before, disk = readable(MemoryDisk(files)), MemoryDisk(files)
        action = mend(disk).actions[-1]
        assert action == {"file": last[len(D) + 1:], "do": "put aside; 3 readable records into 2 clean files", "why": why, "positions_lost": 1}
        assert places(disk) == places_after and readable(disk) == before and damage_of(disk) == [] and Mending(disk, D).actions == []


@pytest.mark.parametrize("steps, lost, after", [
    ((4, 4, 4), (9,), [(1, 0), (2, 4), (3, 8), (3, 10)]),
    ((4, 4, 2000, 4), (5,), [(1, 0), (2, 4), (2, 6), (3, 2008)]),
    ((4, 4, 2000, 4), (7,), [(1, 0), (2, 4), (2, 8), (3, 2008)]),                # the next file says that positions were skipped, not lost: 7 was
    ((4, 4, 4), (4, 8), [(1, 0), (2, 4), (2, 5), (3, 8), (3, 9)]),
])
def test_there_is_a_file_for_each_run_and_one_where_a_loss_would_be_forgotten(steps, lost, after):
    files = spoilt(log_of(*steps), *lost)
    before, disk = readable(MemoryDisk(files)), MemoryDisk(files)
    mend(disk)
    assert places(disk) == after and readable(disk) == before and damage_of(disk) == []
    reader = LogReader(disk, D)
    assert reader.mended == [(n, n + 1) for n in lost] and reader.head == LogReader(MemoryDisk(files), D).head


@pytest.mark.parametrize("version, flags", [(1, 0), (2, SEALED_RECORDS)])
def test_a_part_goes_with_the_first_one_and_vouches_for_nothing_before_it(version, flags):
    """And only where records were encrypted it asks for a program that can read these."""
    key = pytest.importorskip("cryptography") and Cipher(bytes(32), os.urandom) if flags else None
    files = log_of(4, 4, 2000, 4, cipher=key)
    reader = LogReader(MemoryDisk(files), D, key)
    third = list(reader.records(reader.segments[1]))[2]
    data = bytearray(files[segments(files)[1]])
    data[third.end - 4:third.end] = b"rot!"
    disk = MemoryDisk(files | {segments(files)[1]: bytes(data)})
    mend(disk, cipher=key)
    assert [header(disk, first) for first in (0, 4, 7, 2008)] == [(version, flags), (version, flags), (version, flags | MENDED | CONTINUES | UNSURE), (version, flags | SKIPS)]


def test_what_holds_the_place_of_lost_positions_says_that_they_are_lost():
    files = log_of(4, 4, ends=False)
    last = segments(files)[-1]
    whole = files[last].rstrip(b"\0")
    torn = spoilt(files | {last: whole + b"?" * 60}, 5)
    for files, places_after in (torn, [(1, 0), (2, 4), (2, 6), (3, 10)]), (log_of(4, 4) | noise(1, 7), [(1, 0), (2, 4), (3, 7 + RECORDS_MAX)]):
        disk, head = MemoryDisk(files), places_after[-1][1]
        mend(disk)
        assert places(disk) == places_after and header(disk, head) == (1, MENDED | UNSURE) and damage_of(disk) == []
        log = Log(disk, D, segment_bytes_max=1 << 16, quota_bytes_max=1 << 20)
        assert log.head == head


def test_bytes_between_the_last_records_are_no_torn_tail():
    """It would be taken to have held positions."""
    files = spoilt(log_of(4, 6, ends=False), 5)
    last = segments(files)[-1]
    at = files[last].index(payload(7)) + len(payload(7))
    disk = MemoryDisk(files | {last: files[last][:at] + b"between" * 9 + files[last][at:]})
    mend(disk)
    assert places(disk) == [(1, 0), (2, 4), (2, 6)] and readable(disk) == readable(MemoryDisk(files))


def test_a_file_of_noise_whose_positions_all_came_before_the_logs_end_adds_none():
    """An empty file at the end of what it may have held would make records void."""
    files = log_of(4, 4, 3 * RECORDS_MAX, 4)
    for serial in (0, 9):
        disk = MemoryDisk(files | noise(serial, 6))
        action, = mend(disk).actions
        assert action["do"] == "put aside" and places(disk) == places(MemoryDisk(files)) and readable(disk) == readable(MemoryDisk(files))


def test_a_file_of_noise_that_may_have_held_all_up_to_the_logs_end_adds_none_either():
    skip = 2 * RECORDS_MAX
    files = spoilt(log_of(4, skip, 4, group=True, ends=False), 4 + skip + 1)
    disk = MemoryDisk(files | noise(0, skip + 8 - RECORDS_MAX))
    action, = mend(disk).actions
    assert action["do"] == "put aside" and places(disk) == [(1, 0), (2, skip + 4)]
    files = spoilt(log_of(4, skip, 4), 4 + skip + 3)     # here there is one, as the log's end is lost
    plain = MemoryDisk(files)
    mend(plain)
    disk = MemoryDisk(files | noise(0, places(plain)[-1][1] - RECORDS_MAX))
    mend(disk)
    assert places(disk) == places(plain) and len(places(disk)) == 3, "as without it"
