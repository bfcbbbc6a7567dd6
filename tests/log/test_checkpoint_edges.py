"""Checkpoints whose disk refuses, and whose records say what no save of ours would."""

import errno
import random
import struct

import msgpack
import pytest
import zstandard
from memory_disk import MemoryDisk
from test_log_edges import Odd, refused

from edge.checkpoint import COMMIT, DELTAS_MAX, PAGES, PAGES_PER_RECORD, CheckpointStore
from edge.errors import DiskError
from edge.storage._pages import PAGE_BYTES, changed, fingerprints

WHERE = "data/checkpoint"


def store_of(disk):
    return CheckpointStore(disk, WHERE)


def commits_of(store):
    """[number, previous, PAGES records, their pages] of all saves in the log, and that the log has nothing else."""
    found, pages, position = [], {}, store.log.tail
    while records := store.log.read(position, 1 << 20):
        for r in records:
            if r.kind == PAGES:
                assert r.count <= PAGES_PER_RECORD
                pages.setdefault(r.first, []).append((r.stream, r.count))
            else:
                assert (r.kind, r.stream) == (COMMIT, 0)
                found.append((r.first, msgpack.unpackb(r.payload)[0], r.count, sum(count for _, count in pages.get(r.first, []))))
                assert r.count == len(pages.get(r.first, []))
        position = records[-1].position + 1
    return found


def test_a_full_save_has_every_page_and_a_delta_what_changed():
    store, image = store_of(MemoryDisk()), bytearray(random.Random(1).randbytes(300 * PAGE_BYTES + 5))
    store.save(b"0", {"a": image, "b": b"x"})
    image[5000] ^= 1
    store.save(b"1", {"a": image, "b": b"x"})
    store.save(b"2", {"a": image, "b": b"y"})
    store.save(b"3", {"a": image, "b": b"y"})
    store.begin_anew()
    store.save(b"4", {"a": image, "b": b"y"})
    assert commits_of(store) == [(1, 0, 3, 302), (2, 1, 1, 1), (3, 2, 1, 1), (4, 3, 0, 0), (5, 0, 3, 302)]
    assert store.load() == (b"4", {"a": image, "b": bytearray(b"y")})


def test_after_so_many_deltas_or_as_many_bytes_of_them_a_save_is_full():
    store, image = store_of(MemoryDisk()), bytearray(20_000)
    for i in range(DELTAS_MAX + 2):
        image[0] = i
        store.save(b"%d" % i, {"a": image, "noise": random.Random(1).randbytes(50_000)})
    assert [previous for _, previous, *_ in commits_of(store)] == [0, *range(1, DELTAS_MAX + 1), 0]
    store, dice = store_of(MemoryDisk()), random.Random(1)
    for i in range(7):
        store.save(b"%d" % i, {"a": dice.randbytes(5 * PAGE_BYTES)})
    assert [previous for _, previous, *_ in commits_of(store)][-4:] == [0, 4, 5, 0], "deltas as large as a full save are followed by one"


def test_a_save_is_full_once_the_deltas_have_more_bytes_than_the_full_one_and_not_before():
    store = store_of(MemoryDisk())
    store._pack = lambda view, pages: bytes(view[0])
    for size in (10, 4, 6, 1, 10):       # bytes that the page of this save takes
        store.save(b"", {"a": bytes([size])})
    assert [previous for _, previous, *_ in commits_of(store)] == [0, 1, 2, 3, 0]


def test_a_save_reads_nothing_once_it_is_known_what_is_there():
    disk = MemoryDisk()
    store = store_of(disk)
    for _ in range(3):
        store.save(b"", {"a": b"x"})
    assert "pread" not in {name for name, _ in disk.trace}


def test_after_a_start_the_oldest_state_is_the_full_one_that_the_restored_builds_on():
    disk, noise = MemoryDisk(), random.Random(1).randbytes(10_000)
    store = store_of(disk)
    for i in range(4):
        store.save(b"%d" % i, {"a": b"%d" % i, "noise": noise})
    store.close()
    store = store_of(disk)
    assert store.load()[0] == b"3" and store.oldest_meta == b"0"


def test_the_oldest_state_that_a_load_may_fall_back_to_is_told():
    disk = MemoryDisk()
    store = store_of(disk)
    assert store.oldest_meta is None
    store.save(b"0", {"a": b"x"})
    store.save(b"1", {"a": b"y"})
    assert store.oldest_meta == b"0"
    told = []
    for i in range(2, 6):
        store.begin_anew()
        store.save(b"%d" % i, {"a": b"x"})
        told.append(store.oldest_meta)
    assert told == [b"0", b"2", b"3", b"4"] and [number for number, *_ in commits_of(store)] == [5, 6]
    store.close()
    store = store_of(disk)
    assert store.oldest_meta is None and store.load()[0] == b"5" and store.oldest_meta == b"5"
    assert (store.recovery.number, store.recovery.skipped) == (6, 0)
    store.save(b"6", {"a": b"x"})
    assert commits_of(store)[-1][:2] == (7, 0) and store.oldest_meta == b"5"


def test_numbers_go_on_also_when_nothing_was_loaded():
    disk = MemoryDisk()
    store = store_of(disk)
    store.save(b"0", {})
    store.save(b"1", {})
    store.close()
    store = store_of(disk)
    store.save(b"2", {})
    assert commits_of(store)[-1][:2] == (3, 0) and store.load()[0] == b"2"


@pytest.mark.parametrize("loads", [True, False])
def test_a_file_that_cannot_be_opened_for_once_takes_no_number_from_a_later_save(loads):
    """Else the next start would take the states in it for what was saved after them."""
    disk = MemoryDisk()
    store = store_of(disk)
    for i in range(4):
        store.begin_anew()
        store.save(b"%d" % i, {"a": b"%d" % i * 5000})
    store.save(b"4", {"a": b"4" * 5000})
    store.close()
    newest = max(path for path in disk.files if path.endswith(".seg"))
    faulty = Odd({path: bytes(node.data) for path, node in disk.files.items()})
    faulty.odd["open"] = lambda own, path: refused(errno.EIO)(own) if path == newest else own(path)
    store = store_of(faulty)
    assert not loads or store.load()[0] == b"2"
    store.save(b"5", {"a": b"5" * 5000})
    store.save(b"6", {"a": b"6" * 5000})
    store.close()
    found = store_of(MemoryDisk({path: bytes(node.data) for path, node in faulty.files.items()}))
    assert found.load() == (b"6", {"a": bytearray(b"6" * 5000)}) and found.recovery.skipped == 0


def test_old_states_that_cannot_be_removed_do_not_undo_the_save_and_go_with_the_next():
    disk = Odd()
    store = store_of(disk)
    store.save(b"0", {"a": b"0" * 5000})
    for i in (1, 2):
        disk.odd["unlink"] = refused(errno.EIO)
        store.begin_anew()
        store.save(b"%d" % i, {"a": b"%d" % i * 5000})
        assert store.load()[0] == b"%d" % i
    assert len(commits_of(store)) == 3
    disk.odd.clear()
    store.begin_anew()
    store.save(b"3", {"a": b"3" * 5000})
    assert [number for number, *_ in commits_of(store)] == [3, 4]


def test_a_save_that_failed_is_withdrawn_wholly_and_numbers_go_on():
    disk = Odd()
    store = store_of(disk)
    store.save(b"0", {"a": b"0" * 5000})
    store.withdraw()                     # nothing failed: nothing to do
    disk.odd["fsync_directory"] = disk.odd["fdatasync"] = refused(errno.ENOSPC)
    with pytest.raises(DiskError):
        store.save(b"1", {"a": b"1" * 5000})
    with pytest.raises(DiskError):
        store.withdraw()
    disk.odd.clear()
    store.withdraw()
    store.withdraw()
    assert store.load()[0] == b"0" and store_of(MemoryDisk({p: bytes(n.data) for p, n in disk.files.items()})).load()[0] == b"0"
    store.save(b"2", {"a": b"2" * 5000})
    store.save(b"3", {"a": b"3" * 5000})
    assert store.load() == (b"3", {"a": bytearray(b"3" * 5000)}) and store_of(disk.after_cut(0)).load()[0] == b"3"


# --- records that are whole and say nonsense

GOOD = bytes(range(256)) * 32            # two pages


def frame(numbers, data, compressor=None):
    return (compressor or zstandard.ZstdCompressor()).compress(struct.pack(f"<{len(numbers)}I", *numbers) + data)


NONSENSE = {                             # PAGES of a delta on GOOD: (count, payload)
    "no zstandard": (1, b"nonsense"),
    "a frame cut off": (1, frame([0], bytes(PAGE_BYTES))[:-3]),
    "more than its pages": (1, frame([0], bytes(1 << 20))),
    "a size that is not told": (1, frame([0], bytes(PAGE_BYTES), zstandard.ZstdCompressor(write_content_size=False))),
    "fewer numbers than pages": (4, zstandard.ZstdCompressor().compress(b"\0\0\0\0")),
}


def written_by_hand(*saves):
    """A store whose log has these saves: (number, previous, images' sizes, [(kind, stream, count, payload), ...] before the COMMIT)."""
    store = store_of(MemoryDisk())
    for number, previous, table, records in saves:
        for kind, stream, count, payload in records:
            store.log.append(kind, stream, number, count, payload)
        store.log.append(COMMIT, 0, number, len(records), msgpack.packb([previous, table, b"%d" % number]))
    store.log.sync()
    return store


BASE = (1, 0, [["a", len(GOOD)]], [(PAGES, 0, 2, frame([0, 1], GOOD))])


@pytest.mark.parametrize("name", NONSENSE)
def test_pages_that_are_none_cost_their_save(name):
    store = written_by_hand(BASE, (2, 1, [["a", len(GOOD)]], [(PAGES, 0, *NONSENSE[name])]))
    assert store.load() == (b"1", {"a": bytearray(GOOD)}) and (store.recovery.number, store.recovery.skipped) == (1, 1)
    store = written_by_hand((1, 0, [["a", len(GOOD)]], [(PAGES, 0, *NONSENSE[name])]))
    assert store.load() is None and (store.recovery.number, store.recovery.skipped) == (0, 1)


def test_a_frame_may_be_as_large_as_its_pages_and_no_larger():
    more = GOOD + b"x"
    for payload, number in ((frame([0, 1], GOOD), 2), (frame([0, 1], more), 1)):
        store = written_by_hand(BASE, (2, 1, [["a", len(GOOD)]], [(PAGES, 0, 2, payload)]))
        assert store.load() and store.recovery.number == number


@pytest.mark.parametrize("save", [(2, 0, [["a", 1]], []), (3, 2, [["a", 1]], []), (2, 1, [["a", 1]], [(9, 0, 1, b"")])], ids=["another base", "a gap", "fewer pages than it tells of"])
def test_a_save_that_does_not_follow_ends_what_is_restored(save):
    store = written_by_hand(BASE, save)
    state = store.load()
    assert state == ((b"2", {"a": bytearray(1)}) if save[:2] == (2, 0) else (b"1", {"a": bytearray(GOOD)}))


@pytest.mark.parametrize("records", [[(9, 0, 1, b"")], [(PAGES, 0, 1, b"nonsense")]], ids=["fewer pages than it tells of", "pages that are none"])
def test_nothing_behind_a_save_that_does_not_count_is_restored_whatever_it_says_that_it_builds_on(records):
    store = written_by_hand(BASE, (2, 1, [["a", 1]], records), (3, 1, [["a", 1]], []))
    assert store.load() == (b"1", {"a": bytearray(GOOD)}) and (store.recovery.number, store.recovery.skipped) == (1, 2)


def damaged(store, *positions):
    """The store as the next start finds it, with these records unreadable."""
    segment = next(path for path in store.log.disk.files if path.endswith(".seg"))
    data = bytearray(store.log.disk.files[segment].data)
    for r in store.log.read(0, 1 << 30):
        if r.position in positions:
            data[r.offset + 20] ^= 1
    return store_of(MemoryDisk({segment: bytes(data)}))


def odd_record(store, number):
    store.log.append(9, 0, number, 0, b"of a later version")
    store.log.sync()


def test_what_is_lost_behind_the_restored_state_counts_as_a_save_and_what_is_lost_in_front_of_its_commit_does_not():
    store = written_by_hand(BASE, (2, 1, [["a", len(GOOD)]], []))
    odd_record(store, 1)
    store = damaged(store, 2)            # a COMMIT without pages
    assert store.load()[0] == b"1" and store.recovery.skipped == 1
    store = written_by_hand(BASE)
    odd_record(store, 2)
    store.log.append(COMMIT, 0, 3, 0, msgpack.packb([1, [["a", len(GOOD)]], b"3"]))
    store.log.sync()
    store = damaged(store, 2)
    assert store.load()[0] == b"3" and store.recovery.skipped == 0


def test_a_save_of_which_nothing_can_be_read_keeps_its_number():
    store = written_by_hand(BASE, (2, 1, [["a", len(GOOD)]], []))
    odd_record(store, 1)
    store = damaged(store, 2)
    store.save(b"next", {})
    assert commits_of(store)[-1][0] > 2


def test_records_of_a_kind_that_is_not_known_are_passed_over():
    store = written_by_hand(BASE)
    store.log.append(9, 0, 1, 0, b"of a later version")
    store.log.append(PAGES, 0, 2, 1, frame([0], bytes(PAGE_BYTES)))
    store.log.append(9, 0, 2, 0, b"of a later version")
    store.log.append(COMMIT, 0, 2, 1, msgpack.packb([1, [["a", len(GOOD)]], b"2"]))
    store.log.sync()
    assert store.load() == (b"2", {"a": bytearray(bytes(PAGE_BYTES) + GOOD[PAGE_BYTES:])})


def test_pages_of_a_save_that_did_not_end_belong_to_no_other():
    store = written_by_hand(BASE)
    store.log.append(PAGES, 0, 2, 1, frame([0], b"\xff" * PAGE_BYTES))         # and no COMMIT
    store.log.append(COMMIT, 0, 3, 0, msgpack.packb([1, [["a", len(GOOD)]], b"3"]))
    store.log.sync()
    assert store.load() == (b"3", {"a": bytearray(GOOD)})


@pytest.mark.parametrize("size", [0, 1, PAGE_BYTES - 1, PAGE_BYTES, PAGE_BYTES + 1, 2 * PAGE_BYTES, 3 * PAGE_BYTES + 7])
def test_an_image_that_grows_has_zeros_where_no_page_says_otherwise_and_one_that_shrinks_is_cut(size):
    store = written_by_hand(BASE, (2, 1, [["a", size]], []))
    assert store.load() == (b"2", {"a": bytearray((GOOD + bytes(size))[:size])})


def test_an_image_has_the_size_that_its_commit_says_whatever_its_pages_have():
    store = written_by_hand(BASE, (2, 1, [["a", PAGE_BYTES + 5]], [(PAGES, 0, 1, frame([1], b"\1" * PAGE_BYTES))]))
    assert store.load() == (b"2", {"a": bytearray(GOOD[:PAGE_BYTES] + b"\1" * 5)})


def test_images_are_told_apart_by_their_place_in_the_table():
    store = written_by_hand(BASE, (2, 1, [["b", 3], ["a", len(GOOD)]], [(PAGES, 0, 1, frame([0], b"new")), (PAGES, 1, 1, frame([1], b"\1" * PAGE_BYTES))]))
    assert store.load() == (b"2", {"b": bytearray(b"new"), "a": bytearray(GOOD[:PAGE_BYTES] + b"\1" * PAGE_BYTES)})


def test_pages_are_told_by_number_and_an_image_that_was_not_there_has_changed_wholly():
    image = bytearray(3 * PAGE_BYTES + 1)
    before = fingerprints(image, 1)
    assert changed(b"", before) == [0, 1, 2, 3] and changed(before, before) == [] and changed(before, before[:8]) == []
    image[PAGE_BYTES] = image[-1] = 1
    assert changed(before, fingerprints(image, 1)) == [1, 3] and changed(before[:16], before) == [2, 3]
    assert fingerprints(image, 2) != fingerprints(image, 1)
