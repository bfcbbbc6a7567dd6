"""`tidegate buffer` tells what is on disk, finds what is damaged, and touches nothing."""

import json
import random
import threading
from pathlib import Path

import pytest

from edge.errors import DiskError
from edge.storage._crc32c import crc32c
from edge.storage.disk import Disk
from edge.storage.log import Log
from edge.storage.notices import Notices
from edge.storage.reading import LogReader
from edge.times import nanoseconds, timestamp
from written_world import START_NS, STEP_NS, World, answer, fingerprint, tidegate


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path / "data")
    made.fill(60)
    yield made
    made.close()


def expected(rows):
    """Rows as the export writes them; the door's own field `sequence` stands before its identity."""
    out = []
    for row in rows:
        row = dict(row)
        row["received"] = timestamp(row.pop("received_ns"))
        out.append(row)
    return out


def exported(text):
    return [json.loads(line) for line in text.splitlines()]


# --- ls


@pytest.mark.parametrize("stopped", [False, True], ids=["live", "stopped"])
def test_ls_tells_the_truth(world, capfdbinary, stopped):
    logs = {name: (log.tail, log.head, log.size_bytes, len(log._segments)) for name, log in world.logs.items()}
    if stopped:
        world.close()
    found = answer(capfdbinary, "buffer", "ls", data=world.data)["logs"]
    for name, (tail, head, size, segments) in logs.items():
        log = found[name]
        assert (log["first_position"], log["next_position"], log["bytes"], log["segments"]) == (tail, head, size, segments), name
    assert found["journal"]["segments"] > 2
    assert found["journal"]["events"] == found["outbox/all"]["events"] == {"env": 480, "door": 60}
    assert found["journal"]["oldest"] == timestamp(START_NS + STEP_NS) and found["journal"]["newest"] == timestamp(START_NS + 60 * STEP_NS)
    assert found["dead"]["events"] == {} and found["dead"]["oldest"] is None
    text = tidegate(capfdbinary, "buffer", "ls", data=world.data)[1]
    assert f"{logs['journal'][2]:,}" in text and "outbox/all" in text
    if stopped:
        for name, log in world.logs.items():
            world.logs[name] = Log(world.disk, f"{world.data}/{name}", quota_bytes_max=1 << 20)


def test_ls_does_not_count_what_a_later_segment_made_void(world, capfdbinary):
    log = world.logs["outbox/all"]
    position = next(r.position for r in log.read(40, 1 << 16) if r.kind == 2)
    log.truncate(position)
    held = [r for r in LogReader(Disk(), log.directory).all() if r.kind == 2]
    found = answer(capfdbinary, "buffer", "ls", data=world.data)["logs"]["outbox/all"]
    assert held and held[-1].position < position == found["next_position"]
    assert sum(found["events"].values()) == sum(r.count for r in held)


def test_evicted_events_show_as_gaps(tmp_path, capfdbinary):
    world = World(tmp_path / "data", quota=24 << 10)
    outbox = world.pipeline.outboxes[0]
    outbox.log._on_evict, outbox.log.notices = outbox.on_evict, Notices(outbox.log.disk, outbox.log.directory, [])
    world.fill(200)
    found = answer(capfdbinary, "buffer", "ls", data=world.data)["logs"]["outbox/all"]
    assert sum(outbox.evicted.values()) == found["gaps"] > 0
    world.close()


# --- nothing is changed


COMMANDS = [("buffer", "ls"), ("buffer", "verify"), ("buffer", "export", "journal"), ("buffer", "export", "dead"), ("dead-letters", "ls")]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_nothing_is_changed_and_no_lock_is_wanted(world, capfdbinary, command):
    world.turn((b"nowhere", b"x"))
    torn = f"{world.data}/journal/{world.logs['journal']._segments[-1].name}.seg"
    with open(torn, "r+b") as file:
        file.seek(world.logs["journal"]._segments[-1].size)
        file.write(b"half a record")
    before = fingerprint(world.data)
    assert tidegate(capfdbinary, *command, data=world.data)[0] == 0
    assert fingerprint(world.data) == before
    world.fill(1)


class LookingDisk(Disk):
    """Refuses whatever changes something."""

    def _refuse(self, *arguments):
        raise AssertionError("a reader must not write")

    create = pwrite = truncate = fdatasync = fsync_directory = rename = unlink = mkdir = lock = _refuse


def test_a_reader_asks_the_disk_for_reading_only(world):
    reader = LogReader(LookingDisk(), f"{world.data}/journal")
    assert [r.position for r in reader.all()] == list(range(world.logs["journal"].head)) and not reader.damage


# --- verify


def starts(path):
    """Offsets of a segment file's records, and of their end."""
    data, at, out = path.read_bytes(), 32, []
    while at + 36 <= len(data) and data[at:at + 4] != b"\0\0\0\0":
        out.append(at)
        at += 36 + int.from_bytes(data[at + 8:at + 12], "little")
    return [*out, at]


def write(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def damages(capfdbinary, world, name="journal"):
    status, out, _ = tidegate(capfdbinary, "buffer", "verify", "--json", data=world.data)
    found = json.loads(out)
    assert status == (0 if found["ok"] else 1)
    assert not [log for log in found["logs"] if log != name and found["logs"][log]["damage"]]
    return found["logs"][name]["damage"]


@pytest.fixture
def segments(world):
    """The journal's sealed segments: (path, offsets of records, first position)."""
    log = world.logs["journal"]
    assert len(log._segments) > 3
    paths = [Path(log.directory, f"{s.name}.seg") for s in log._segments[:-1]]
    return [(path, starts(path), s.first) for path, s in zip(paths, log._segments)]


def test_an_undamaged_log_is_good(world, capfdbinary):
    assert damages(capfdbinary, world) == []
    status, out, _ = tidegate(capfdbinary, "buffer", "verify", "journal", data=world.data)
    assert status == 0 and out.startswith("journal: ") and ": good" in out


@pytest.mark.parametrize("indexed", [True, False], ids=["indexed", "not indexed"])
def test_a_rotten_record_is_found_where_it_is(world, segments, capfdbinary, indexed):
    path, offsets, first = segments[1]
    write(path, offsets[7] + 40, b"\xff\x00\xff\x00")
    if not indexed:
        path.with_suffix(".idx").unlink()
    damage, = damages(capfdbinary, world)
    assert (damage["file"], damage["offset"], damage["end"]) == (f"journal/{path.name}", offsets[7], offsets[8])
    assert (damage["first"], damage["after"]) == (first + 7, first + 8)
    text = tidegate(capfdbinary, "buffer", "verify", data=world.data)[1]
    assert f"journal/{path.name} offset {offsets[7]} to {offsets[8]}: position {first + 7} lost" in text


def test_several_damages_are_all_found(world, segments, capfdbinary):
    (a, in_a, first_a), (b, in_b, first_b), (c, in_c, first_c) = segments[:3]
    write(a, in_a[5], bytes(4))                                      # marker
    write(a, in_a[9] + 40, b"\xff" * 8)                              # and another in the same file
    write(b, in_b[-2] + 50, b"\xff" * 8)                             # the last of a sealed segment
    write(c, in_c[4], b"\xff" * (in_c[7] - in_c[4]))                 # three in a row
    found = [(d["file"], d["offset"], d["first"], d["after"]) for d in damages(capfdbinary, world)]
    assert found == [(f"journal/{a.name}", in_a[5], first_a + 5, first_a + 6), (f"journal/{a.name}", in_a[9], first_a + 9, first_a + 10),
                     (f"journal/{b.name}", in_b[-2], first_b + len(in_b) - 2, first_b + len(in_b) - 1), (f"journal/{c.name}", in_c[4], first_c + 4, first_c + 7)]


def test_a_header_a_noisy_file_and_a_missing_file_are_found(world, segments, capfdbinary):
    (a, *_), (b, in_b, first_b), (c, in_c, first_c) = segments[:3]
    write(a, 4, b"\xff\xff")
    b.write_bytes(bytes(7 * i % 251 for i in range(in_b[-1])))
    c.unlink()
    found = damages(capfdbinary, world)
    assert [(d["file"], d["first"], d["after"]) for d in found if d["first"] < d["after"]] == [(f"journal/{a.name}", first_b, first_c + len(in_c) - 1)]
    assert any(d["file"].endswith(a.name) and "header" in d["what"] for d in found)
    assert any(d["file"].endswith(b.name) and "recognised" in d["what"] for d in found)


def test_columns_that_do_not_decode_are_damage_although_the_crc_holds(world, capfdbinary):
    log = world.logs["journal"]
    position = log.append(2, 1, 480, 1, b"\x01 not columns")
    log.sync()
    damage, = damages(capfdbinary, world)
    assert (damage["first"], damage["after"]) == (position, position + 1) and "damaged" in damage["what"]


def test_an_index_that_is_damaged_is_no_damage(world, segments, capfdbinary):
    write(segments[1][0].with_suffix(".idx"), 20, b"\xff\xff")
    assert damages(capfdbinary, world) == []


@pytest.mark.parametrize("tail", [b"half a record", b"\xff" * 300], ids=["short", "long"])
def test_a_torn_tail_of_the_last_segment_is_told_but_no_damage(world, capfdbinary, tail):
    segment = world.logs["journal"]._segments[-1]
    write(f"{world.data}/journal/{segment.name}.seg", segment.size, tail)
    found = answer(capfdbinary, "buffer", "verify", "journal", data=world.data)
    assert found["ok"] and found["logs"]["journal"]["tail_bytes"] == len(tail)


@pytest.mark.parametrize("restarted", [False, True], ids=["at once", "after the next start"])
def test_a_hole_in_the_group_that_a_power_cut_tore_is_no_damage_but_one_before_it_is(tmp_path, capfdbinary, restarted):
    log = Log(Disk(), str(tmp_path / "data" / "journal"), quota_bytes_max=1 << 20, preamble=lambda: [])
    for group in range(3):
        for i in range(4):
            log.append(3, 0, START_NS, 0, b"tick %d" % i)
        log.sync()
    path = Path(log.directory, f"{log._segments[-1].name}.seg")
    offsets, index = starts(path), path.with_suffix(".idx")
    log.close()
    index.unlink()                           # a power cut leaves none
    write(path, offsets[9], b"\xff" * 40)    # the second of the last four
    if restarted:
        log = Log(Disk(), log.directory, quota_bytes_max=1 << 20)
        log.append(3, 0, START_NS, 0, b"")
        log.close()
    found = answer(capfdbinary, "buffer", "verify", data=tmp_path / "data")
    assert found["ok"] and found["logs"]["journal"]["torn"] == 1
    write(path, offsets[5], b"\xff" * 40)
    damage, = answer(capfdbinary, "buffer", "verify", data=tmp_path / "data")["logs"]["journal"]["damage"]
    assert (damage["first"], damage["after"], damage["offset"]) == (5, 6, offsets[5])


# --- beside a writer


def test_a_log_that_is_written_meanwhile_has_no_damage(tmp_path):
    """Small segments, eviction and truncation go on in another thread."""
    log = Log(Disk(), str(tmp_path / "log"), segment_bytes_max=8192, quota_bytes_max=64 << 10)
    log.append(2, 1, 0, 1, b"first")
    log.sync()
    stop, failed, count = threading.Event(), [], 0

    def write_on():
        i = 1
        try:
            while not stop.is_set():
                for _ in range(1 + i % 7):
                    log.append(2, 1, i, 1, bytes([1 + i % 255]) * (i * 37 % 900))
                    i += 1
                log.sync()
                if i > 100 and i % 301 < 7:
                    log.truncate(log.head - 3)
        except Exception as error:
            failed.append(error)

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        while log.head < 1500 and not failed:
            reader = LogReader(LookingDisk(), log.directory)
            positions = [r.position for r in reader.all()]
            assert reader.damage == []
            assert positions and (reader.removed or positions == list(range(positions[0], positions[-1] + 1)))
            count += len(positions)
    finally:
        stop.set()
        writer.join()
        log.close()
    assert not failed and count > 1500


class AppendingDisk(Disk):
    """Before a read of the file that is written, more is appended, now and then more than a read takes: the worst interleaving of a look and
    a write."""

    def __init__(self, seed):
        self.log, self.head_max, self.random = None, 1200, random.Random(seed)

    def pread(self, fd, size, offset):
        if self.log and self.log.head < self.head_max:
            for _ in range(self.random.choice((0, 0, 30, 200))):
                self.log.append(2, 1, 0, 1, b"x" * 3000)
            self.log.sync()
        return super().pread(fd, size, offset)


@pytest.mark.parametrize("seed", range(12))
def test_what_is_appended_between_two_reads_of_a_file_is_no_hole(tmp_path, seed):
    log = Log(Disk(), str(tmp_path / "log"), segment_bytes_max=8 << 20, quota_bytes_max=64 << 20)
    for i in range(20):
        log.append(2, 1, i, 1, b"y" * 3000)
    log.sync()
    disk = AppendingDisk(seed)
    disk.log = log
    reader = LogReader(disk, log.directory)
    assert not reader.segments[0].holes
    disk.head_max = 2500
    positions = [r.position for r in reader.all()]
    assert reader.damage == [] and positions == list(range(len(positions))) and len(positions) >= 20
    log.close()


def test_a_segment_that_goes_while_it_is_to_be_read_is_passed_over(world):
    reader = LogReader(Disk(), f"{world.data}/journal")
    world.logs["journal"].drop_before(world.logs["journal"].head)
    left = [r.position for r in reader.all()]
    assert left and left[-1] == world.logs["journal"].head - 1 and reader.removed and reader.damage == []


def test_a_newer_format_and_a_missing_directory_are_refused(world, capfdbinary, tmp_path):
    segment = world.logs["journal"]._segments[0]
    head = segment.header()[:8] + b"\x09\x00" + segment.header()[10:28]
    write(f"{world.data}/journal/{segment.name}.seg", 0, head + crc32c(head).to_bytes(4, "little"))
    with pytest.raises(DiskError, match="version 9"):
        LogReader(Disk(), f"{world.data}/journal")
    status, _, err = tidegate(capfdbinary, "buffer", "ls", data=tmp_path / "nothing")
    assert status == 2 and "no data directory" in err


# --- export


def test_export_equals_what_was_written(world, capfdbinary):
    status, out, err = tidegate(capfdbinary, "buffer", "export", "journal", data=world.data)
    assert status == 0 and err == ""
    assert exported(out) == expected(world.journal)
    assert exported(tidegate(capfdbinary, "buffer", "export", "outbox/all", data=world.data)[1]) == expected(world.journal)


def test_export_takes_a_stream_a_time_and_positions(world, capfdbinary, tmp_path):
    def rows(*options):
        return exported(tidegate(capfdbinary, "buffer", "export", "journal", *options, data=world.data)[1])

    assert rows("--stream", "door") == expected(r for r in world.journal if r["stream"] == "door")
    a, b = START_NS + 10 * STEP_NS, START_NS + 20 * STEP_NS
    assert rows("--from", timestamp(a), "--to", timestamp(b)) == expected(r for r in world.journal if a <= r["received_ns"] < b)
    head = world.logs["journal"].head
    middle = head // 2
    assert rows("--to", str(middle)) + rows("--from", str(middle)) == expected(world.journal)
    assert rows("--from", str(head)) == []
    everything = expected(world.journal)
    tidegate(capfdbinary, "buffer", "export", "journal", "--format", "json", "--out", str(tmp_path / "rows.json"), data=world.data)
    assert json.loads((tmp_path / "rows.json").read_text()) == everything
    status, _, err = tidegate(capfdbinary, "buffer", "export", "journal", "--from", "yesterday", data=world.data)
    assert status == 2 and "neither a position nor a time" in err


def test_export_passes_over_damage_and_says_so(world, segments, capfdbinary):
    path, offsets, first = segments[1]
    position = next(r.position for r in LogReader(Disk(), f"{world.data}/journal").all() if r.position > first + 6 and r.kind == 2)
    lost = next(r for r in LogReader(Disk(), f"{world.data}/journal").all() if r.position == position)
    write(path, lost.offset + 40, b"\xff" * 8)
    status, out, err = tidegate(capfdbinary, "buffer", "export", "journal", data=world.data)
    assert status == 1 and f"position {position} lost" in err
    assert len(exported(out)) == len(world.journal) - lost.count


def test_schemas_come_from_the_log_when_identity_is_gone(world, capfdbinary):
    Path(world.data, "identity.json").unlink()
    assert exported(tidegate(capfdbinary, "buffer", "export", "journal", data=world.data)[1]) == expected(world.journal)


@pytest.mark.parametrize("ns", [0, 1, 1_790_000_000_123_456_789, -1, 999_999_999, -(1 << 62)])
def test_times_are_read_back_as_written(ns):
    assert nanoseconds(timestamp(ns)) == ns


def test_a_time_without_zone_is_utc():
    assert nanoseconds("1970-01-02") == 86400 * 10**9 == nanoseconds("1970-01-02T01:00+01:00")
    assert nanoseconds("1970-01-01T00:00:00.25Z") == 250_000_000
