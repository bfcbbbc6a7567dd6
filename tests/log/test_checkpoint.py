import random

import pytest
from memory_disk import MemoryDisk

from edge.checkpoint import DELTAS_MAX, CheckpointStore
from edge.storage._pages import changed, fingerprints

WHERE = "data/checkpoint"


def store_of(disk):
    return CheckpointStore(disk, WHERE)


def test_there_is_none_at_first():
    assert store_of(MemoryDisk()).load() is None


def test_states_come_back_through_growing_shrinking_and_vanishing_images():
    disk, rnd = MemoryDisk(), random.Random(7)
    store, images = store_of(disk), {}
    for i in range(3 * DELTAS_MAX):
        for name in "abc":
            image = images.setdefault(name, bytearray())
            if rnd.random() < 0.1:
                size = rnd.randrange(60_000)
                del image[size:]
                image.extend(rnd.randbytes(size - len(image)))
            for _ in range(3):
                if image:
                    image[rnd.randrange(len(image))] ^= 1
        if rnd.random() < 0.1:
            del images[rnd.choice("abc")]
        store.save(b"state %d" % i, images)
        if i % 10 == 0:
            store.close()
            store = store_of(disk)
            assert store.load() == (b"state %d" % i, images)
    assert store.size_bytes < 2_000_000, "old states are dropped"


def test_a_delta_costs_its_pages():
    store, image = store_of(MemoryDisk()), bytearray(random.Random(1).randbytes(1 << 20))
    store.save(b"", {"memory": image})
    before = store.size_bytes
    for page in range(0, 250, 25):
        image[page * 4096 + 100] ^= 1
    store.save(b"", {"memory": image})
    assert store.size_bytes - before < 10 * 4096 + 1000


def test_every_change_of_a_page_is_seen():
    rnd = random.Random(2)
    for size in (1, 63, 64, 65, 4095, 4096, 4097, 10_000):
        image = bytearray(rnd.randbytes(size))
        before = fingerprints(image, 5)
        assert len(before) == 8 * -(-size // 4096)
        for at in {0, size - 1, *(rnd.randrange(size) for _ in range(50))}:
            image[at] ^= 1 << rnd.randrange(8)
            now = fingerprints(image, 5)
            assert changed(before, now) == [at // 4096]
            before = now
    assert fingerprints(bytes(64), 5) != fingerprints(bytes(65), 5)[:8]


def saved(n=4):
    disk, states = MemoryDisk(), []
    store, image = store_of(disk), bytearray(random.Random(3).randbytes(9000))
    for i in range(n):
        image[i % 3 * 4096 + i] ^= 1
        store.save(b"%d" % i, {"a": image})
        states.append((b"%d" % i, {"a": bytearray(image)}))
    return {p: bytes(n.data) for p, n in disk.files.items() if p.endswith(".seg")}, states


def test_any_damaged_byte_gives_a_whole_older_state_and_says_so():
    files, states = saved()
    path, data = max(files.items())
    data = data.rstrip(b"\0")
    seen = set()
    for at in [*range(0, 150, 3), *range(150, len(data) - 400, 501), *range(len(data) - 400, len(data), 3)]:
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        store = store_of(MemoryDisk({path: bytes(damaged)}))
        state = store.load()
        assert state is None or state in states
        seen.add(None if state is None else state[0])
        assert store.recovery.number == (0 if state is None else int(state[0]) + 1)
        store.save(b"next", {"a": b"next"})
        assert store.load() == (b"next", {"a": bytearray(b"next")})
    assert seen == {None, *(meta for meta, _ in states)}


def test_a_delta_does_not_count_without_the_save_that_it_builds_on():
    files, states = saved()
    log = CheckpointStore(MemoryDisk(files), WHERE).log
    commits = [r for r in log.read(0) if r.kind == 2]
    assert len(commits) == len(states)
    path, = files
    for i, commit in enumerate(commits):
        damaged = bytearray(files[path])
        damaged[commit.offset + 20] ^= 1
        store = store_of(MemoryDisk({path: bytes(damaged)}))
        assert store.load() == (states[i - 1] if i else None)


def test_a_damaged_full_save_falls_back_to_the_one_before():
    disk = MemoryDisk()
    for i in range(3):
        store = store_of(disk)
        store.load()
        store.save(b"%d" % i, {"a": bytes([i]) * 5000})
        if i:
            assert store.oldest_meta == b"%d" % (i - 1)
        store.close()
    last = sorted(p for p in disk.files if p.endswith(".seg"))[-1]
    disk.files[last].data[80] ^= 1
    store = store_of(disk)
    assert store.load() == (b"1", {"a": bytearray([1]) * 5000})
    assert store.recovery.skipped and store.oldest_meta == b"1"


@pytest.mark.parametrize("images", [{}, {"empty": b""}, {"a": b"", "b": b"x"}])
def test_small_states(images):
    disk = MemoryDisk()
    store = store_of(disk)
    store.save(b"", images)
    store.save(b"m", images)
    store.close()
    assert store_of(disk).load() == (b"m", images)
