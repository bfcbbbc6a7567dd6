import pytest
from log_oracle import Oracle, open_log, scenario
from memory_disk import MemoryDisk, PowerCut

from edge.checkpoint import CheckpointStore


def operations_of(run):
    disk = MemoryDisk()
    run(disk)
    return disk.operations


def go_on(disk, oracle):
    """The next start, and the one after it."""
    log = open_log(disk)
    oracle.restart(log)
    assert not log.recovery.warnings
    for i in range(8):
        oracle.append(log, b"go on%d" % i * 9)
    oracle.sync(log)
    oracle.check(log, 100)


@pytest.mark.parametrize("survival", [0, 0.5, 0.9, 1])
def test_a_power_cut_at_any_operation_loses_nothing_acknowledged(survival):
    steps = operations_of(lambda disk: scenario(disk, Oracle()))
    for cut in range(steps):
        for seed in range(3 if 0 < survival < 1 else 1):
            disk, oracle = MemoryDisk(seed=seed, cut_at=cut), Oracle()
            with pytest.raises(PowerCut):
                scenario(disk, oracle)
            try:
                go_on(disk.after_cut(survival), oracle)
            except BaseException:
                print(f"cut {cut} of {steps}, seed {seed}, survival {survival}, at {disk.trace[-3:]}")
                raise


def test_a_second_cut_during_recovery_loses_nothing_acknowledged():
    steps = operations_of(lambda disk: scenario(disk, Oracle()))
    for cut in range(5, steps, 7):
        first, oracle = MemoryDisk(seed=cut, cut_at=cut), Oracle()
        with pytest.raises(PowerCut):
            scenario(first, oracle)
        for again in range(60):
            first.random.seed(cut)
            second = first.after_cut(0.5)
            second.cut_at = again
            try:
                open_log(second)
            except PowerCut:
                third = second.after_cut(0.5)
                log = open_log(third)
                oracle.check(log)
            else:
                break


def test_what_recovery_showed_survives_a_cut_after_it():
    """A process that died between writing and syncing: the next one reads it, so the next one makes it durable."""
    steps = operations_of(lambda disk: scenario(disk, Oracle()))
    for cut in range(steps):
        disk, oracle = MemoryDisk(seed=cut, cut_at=cut), Oracle()
        with pytest.raises(PowerCut):
            scenario(disk, oracle)
        disk.cut_at = None
        disk.kill()
        oracle.restart(open_log(disk))
        oracle.check(open_log(disk.after_cut(0)))


def test_what_was_forgotten_stays_forgotten_though_its_files_come_back():
    disk, oracle = MemoryDisk(), Oracle()
    log = open_log(disk)
    for i in range(20):
        oracle.append(log, b"record %d" % i * 9)
        oracle.sync(log)
    oracle.truncate(log, 7)
    log = open_log(disk.after_cut(0))
    assert log.head == 7
    oracle.check(log)
    oracle.append(log, b"instead")
    oracle.sync(log)
    oracle.check(log)


def test_the_torn_first_group_of_a_segment_is_no_damage():
    """Its preamble is of the same write: part of it may be there, and nothing was promised of it."""
    disk = MemoryDisk()
    log = open_log(disk, segment_bytes_max=4096, preamble=lambda: [(1, i, bytes(100)) for i in range(12)])
    log.append(2, 3, 0, 1, b"acknowledged")
    log.sync()
    log.roll()
    log.append(2, 3, 1, 1, b"never acknowledged")
    log.sync()
    segment = max(path for path in disk.files if path.endswith(".seg"))
    disk.files[segment].data[512:1024] = bytes(512)                      # four of its records
    log = open_log(MemoryDisk({path: node.data for path, node in disk.files.items()}))
    assert log.recovery.lost and not log.damaged_since(0)


STATES = [(b"meta%d" % i, {"a": bytes([i]) * 9000 + bytes(5000), "b": b"x" * (100 * i)}) for i in range(5)]


def save_all(disk, saved):
    store = CheckpointStore(disk, "data/checkpoint")
    for i, (meta, images) in enumerate(STATES):
        if i == 3:
            store.close()
            store = CheckpointStore(disk, "data/checkpoint")
            store.load()
        store.save(meta, images)
        saved.append(i)


@pytest.mark.parametrize("survival", [0, 0.5, 1])
def test_a_checkpoint_is_whole_or_the_one_before_after_a_cut_at_any_operation(survival):
    steps = operations_of(lambda disk: save_all(disk, []))
    for cut in range(steps):
        disk, saved = MemoryDisk(seed=cut, cut_at=cut), []
        with pytest.raises(PowerCut):
            save_all(disk, saved)
        store = CheckpointStore(disk.after_cut(survival), "data/checkpoint")
        state = store.load()
        allowed = [STATES[i] for i in range(len(STATES)) if i >= max(saved, default=0) and i <= len(saved)]
        if not saved:
            allowed.append(None)
        assert state in allowed, f"cut {cut}, saved {saved}, got {state and state[0]}"
        store.save(b"next", {"a": b"y" * 10000})
        assert store.load() == (b"next", {"a": bytearray(b"y" * 10000)})
