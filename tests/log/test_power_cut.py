import pytest
from log_oracle import Oracle, open_log, read_all, scenario
from memory_disk import MemoryDisk, PowerCut



def operations_of(run):
    disk = MemoryDisk()
    run(disk)
    return disk.operations


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


def test_what_was_torn_once_is_no_damage_to_a_later_start():
    """Much is durable behind it then; what was durable before it counts as before."""
    def opened(disk):
        return open_log(MemoryDisk({path: bytes(node.data) for path, node in disk.files.items() if path.endswith(".seg")}))

    log = open_log(MemoryDisk(), segment_bytes_max=1 << 16)
    for first in range(3):
        log.append(2, 3, first, 1, bytes([first]) * 200)
        log.sync()
    for first in range(3, 6):
        log.append(2, 3, first, 1, bytes([first]) * 200)                 # one group, of which the power cut takes the middle
    log.sync()
    data = next(node.data for path, node in log.disk.files.items() if path.endswith(".seg"))
    at = data.index(bytes([4]) * 200)
    data[at:at + 200] = bytes(200)
    for _ in range(3):
        log = opened(log.disk)
        assert log.recovery.lost == [(5, 6)] and log.damaged_since(0) == 0
        log.append(2, 3, log.head, 1, b"durable behind it")
        log.sync()
    assert [r.first for r in read_all(log) if r.kind == 2][:5] == [0, 1, 2, 3, 5]
    data = min((path, node.data) for path, node in log.disk.files.items() if path.endswith(".seg"))[1]
    at = data.index(bytes([1]) * 200)
    data[at:at + 200] = bytes(200)
    assert opened(log.disk).damaged_since(0) == 1
    unreadable = MemoryDisk({path: bytes(node.data) for path, node in log.disk.files.items() if path.endswith(".seg")})
    reads = iter(range(1000))
    pread = unreadable.pread
    for fails in range(40):                                              # whichever read fails, it opens
        reads = iter(range(1000))

        def fail(fd, size, offset, fails=fails, reads=reads):
            if next(reads) == fails:
                raise OSError(5, "unreadable")
            return pread(fd, size, offset)

        unreadable.pread = fail
        open_log(unreadable).close()
