"""Random operations on a log, checked against a model; and on the real file system."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from log_oracle import Oracle, open_log, read_all
from memory_disk import MemoryDisk

from edge.storage.disk import Disk
from edge.storage.log import Log

STEP = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 250)),
    st.tuples(st.just("append"), st.integers(0, 20)),
    st.tuples(st.just("sync"), st.just(0)),
    st.tuples(st.just("read"), st.integers(1, 700)),
    st.tuples(st.just("drop"), st.floats(0, 1)),
    st.tuples(st.just("truncate"), st.floats(0.5, 1.1)),
    st.tuples(st.just("reopen"), st.booleans()),
    st.tuples(st.just("kill"), st.just(0)),
    st.tuples(st.just("cut"), st.sampled_from([0, 0.5, 1])),
)


@settings(max_examples=120, deadline=None)
@given(st.lists(STEP, max_size=40), st.integers(0, 1000))
def test_a_log_behaves_like_its_model(steps, seed):
    disk, oracle = MemoryDisk(seed=seed), Oracle()
    log = open_log(disk)
    for i, (step, argument) in enumerate(steps):
        if step == "append":
            oracle.append(log, b"%d:" % i + bytes([i]) * argument)
        elif step == "sync":
            oracle.sync(log)
        elif step == "read":
            oracle.check(log, argument)
            assert all(r.position in oracle.records or r.kind == 1 for r in read_all(log))
            assert set(oracle.records) - {r.position for r in read_all(log)} <= set(range(oracle.gone_before))
        elif step == "drop":
            oracle.drop_before(log, int(log.head * argument))
        elif step == "truncate":
            before = log.head
            oracle.truncate(log, int(log.head * argument))
            assert log.head == int(before * argument)
        else:
            if step == "reopen":
                log.close()
                oracle.acknowledged = log.head
                if argument:
                    for path in [p for p in disk.files if p.endswith(".idx")]:
                        del disk.files[path]
                disk = disk if not argument else MemoryDisk({p: n.data for p, n in disk.files.items()}, seed)
            elif step == "kill":
                disk.kill()
            else:
                disk = disk.after_cut(argument)
            log = open_log(disk)
            oracle.restart(log)
    oracle.check(log)


def test_a_log_on_the_real_file_system(tmp_path):
    oracle = Oracle()
    for start in range(3):
        log = Log(Disk(), str(tmp_path / "log"), segment_bytes_max=5000, quota_bytes_max=1 << 20)
        oracle.check(log)
        for i in range(100):
            oracle.append(log, b"%d of %d" % (i, start) * 9)
            if i % 7 == 0:
                oracle.sync(log)
        oracle.sync(log)
        oracle.check(log)
        oracle.truncate(log, log.head - 5)
        log.close()
    assert log.recovery.damaged == log.recovery.trimmed_bytes == 0
    log = Log(Disk(), str(tmp_path / "log"), quota_bytes_max=1 << 20)
    oracle.check(log)
    log.close()


WRITER = """
import sys
from edge.storage.disk import Disk
from edge.storage.log import Log
log = Log(Disk(), sys.argv[1], segment_bytes_max=20000, quota_bytes_max=1 << 24)
while True:
    for _ in range(3):
        position = log.append(2, 1, log.head, 1, b"%d" % log.head * 20)
    log.sync()
    print(position, flush=True)
"""


def test_a_killed_process_loses_nothing_that_it_acknowledged(tmp_path):
    last = -1
    for kills in range(6):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "log")], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
        for _ in range(20 + 30 * kills):
            last = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        last = int((writer.stdout.read().split() or [last])[-1])
        writer.wait()
        log = Log(Disk(), str(tmp_path / "log"), quota_bytes_max=1 << 24)
        found = read_all(log)
        assert [r.position for r in found] == list(range(log.head)) and log.head > last
        assert all(r.payload == b"%d" % r.position * 20 for r in found)
        assert log.recovery.damaged == 0
        log.close()
