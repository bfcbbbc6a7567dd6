"""Encryption of logs: nothing lost that would not be lost without it, nothing readable without the key, no nonce used twice."""

import json
import os
import struct

import log_oracle
import pytest
from log_oracle import DIRECTORY, Oracle, open_log, read_all
from memory_disk import FaultyDisk, MemoryDisk, PowerCut

from edge.errors import ConfigError, DiskError
from edge.storage._crc32c import crc32c
from edge.storage._record import HEADER_BYTES
from edge.storage.cipher import MARK, Cipher, cipher_of
from edge.storage.log import Log
from edge.storage.mending import Mending
from edge.storage.reading import LogReader
from gateway.commands import buffer
from gateway.config import reader as config
from gateway.daemon import Daemon

pytest.importorskip("cryptography")
KEY = bytes(range(32))


class Watched:
    """ChaCha20-Poly1305 that has seen all of a test's (key, nonce)."""

    seen = {}

    def __init__(self, key):
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        self.key, self.real = key, ChaCha20Poly1305(key)

    def encrypt(self, nonce, data, bound):
        assert (self.key, nonce) not in self.seen, "a nonce was used twice"
        self.seen[self.key, nonce] = bound
        return self.real.encrypt(nonce, data, bound)

    def decrypt(self, nonce, data, bound):
        return self.real.decrypt(nonce, data, bound)


@pytest.fixture
def sealed(monkeypatch):
    """Each log that the oracle's scenarios open has a Cipher of its own, as each process has."""
    Watched.seen = {}

    def opened(disk, *arguments, **options):
        made = Cipher(KEY, os.urandom)
        made._aead = Watched
        made._runs.clear()
        made._own = made._of(made._run)
        return Log(disk, *arguments, cipher=made, **options)

    monkeypatch.setattr(log_oracle, "Log", opened)


@pytest.mark.parametrize("survival", [0, 0.5, 1])
def test_power_cuts_lose_nothing_acknowledged_and_use_no_nonce_twice(sealed, survival):
    whole = MemoryDisk()
    log_oracle.scenario(whole, Oracle())
    for cut in range(0, whole.operations, 2):
        disk, oracle = MemoryDisk(seed=cut, cut_at=cut), Oracle()
        with pytest.raises(PowerCut):
            log_oracle.scenario(disk, oracle)
        log = open_log(disk.after_cut(survival))
        oracle.restart(log)
        for i in range(8):
            oracle.append(log, b"go on%d" % i * 9)
        log.truncate(max(log.head - 4, log.tail))        # and the same positions again
        for i in range(4):
            log.append(2, 3, 0, 1, b"again%d" % i)
        log.sync()
        assert [r.payload for r in read_all(log)][-1] == b"again3"
    positions = [(key, bound[:8]) for (key, _), bound in Watched.seen.items()]
    assert len(set(positions)) < len(positions), "positions were written twice in one run: the test tests something"


def insist(call, *arguments):
    """As a caller does: again, when the disk refused."""
    for _ in range(3):
        try:
            return call(*arguments)
        except DiskError as error:
            last = error
    raise last


def faulty_scenario(disk, oracle):
    log = insist(open_log, disk)
    for i in range(14):
        insist(oracle.append, log, b"record %d " % i * 6)
        if i % 3:
            insist(oracle.sync, log)
    insist(oracle.truncate, log, log.head - 3)
    for i in range(3):
        insist(oracle.append, log, b"more %d " % i * 6)
    insist(oracle.sync, log)
    insist(oracle.check, log)


@pytest.mark.parametrize("fault", [5, 28, "short", FaultyDisk.LIE], ids=str)
def test_a_disk_that_fails_uses_no_nonce_twice(sealed, fault):
    n = 0
    while True:
        disk, oracle = FaultyDisk(lambda i, name: fault if n <= i < n + 2 and (fault != 5 or name not in ("open", "pread")) else None, seed=n), Oracle()
        faulty_scenario(disk, oracle)
        disk.fault = lambda i, name: None
        oracle.check(open_log(disk.after_cut(0)))
        if not disk.hit:
            break
        n += 3
    assert n > 30


def test_a_payload_that_was_exchanged_or_changed_counts_as_damage():
    disk = MemoryDisk()
    made = Cipher(KEY, os.urandom)
    log = Log(disk, DIRECTORY, quota_bytes_max=1 << 20, cipher=made)
    for i in range(6):
        log.append(2, 3, i, 1, b"payload %d" % i)
    log.sync()
    path = next(p for p in disk.files if p.endswith(".seg"))
    data, size = disk.files[path].data, HEADER_BYTES + len(b"payload 0") + 40
    salt = struct.unpack_from("<I", data, 12)[0]

    def put(i, payload):
        """As who may write the disk does: with a checksum that holds."""
        at = 32 + i * size
        data[at + HEADER_BYTES:at + size] = payload
        struct.pack_into("<I", data, at + 4, crc32c(bytes(data[at + 8:at + size]), salt))

    first = bytes(data[32 + HEADER_BYTES:32 + size])
    put(1, first)                                        # another record's
    put(4, first[:-1] + bytes([first[-1] ^ 1]))          # another bit
    log = Log(disk, DIRECTORY, quota_bytes_max=1 << 20, cipher=made) if log.close() is None else None
    assert [r.position for r in read_all(log, 1)] == [0, 2, 3, 5] and log.recovery.lost == [(1, 2), (4, 5)]
    log.close()
    with pytest.raises(DiskError, match="encryption_key_file"):
        read_all(Log(disk, DIRECTORY, quota_bytes_max=1 << 20))


def test_mending_keeps_what_is_sealed_sealed_and_readable():
    disk, made = MemoryDisk(), Cipher(KEY, os.urandom)
    log = Log(disk, DIRECTORY, quota_bytes_max=1 << 20, cipher=made)
    for i in range(9):
        log.append(2, 3, i, 1, b"payload %d" % i)
    log.sync()
    log.close()
    path = next(p for p in disk.files if p.endswith(".seg"))
    disk.files[path].data[400] ^= 1
    with pytest.raises(DiskError, match="encrypted"):
        Mending(disk, DIRECTORY)
    mending = Mending(disk, DIRECTORY, cipher=made)
    assert mending.actions
    mending.apply()
    assert not Mending(disk, DIRECTORY, cipher=made).actions
    assert [r.payload for r in LogReader(disk, DIRECTORY, made).all()] == [b"payload %d" % i for i in range(9) if i != 4]
    assert all(node.data[8:10] == b"\2\0" for name, node in disk.files.items() if name.endswith(".seg") and "quarantine" not in name)


TEXT = """
[gateway]
data = "data"
KEY
[listener]
port = 0
[streams.env]
topics = ["d/+"]
[streams.env.fields]
who = "str"
[upstream]
host = "127.0.0.1"
port = 1
[lanes.all]
streams = ["env"]
"""


def configured(folder, key):
    (folder / "key").write_text((key or KEY).hex() + "\n")
    text = TEXT.replace("KEY", 'encryption_key_file = "key"' if key else "")
    (folder / "t.toml").write_text(text)
    return config.load(folder / "t.toml")


def run(folder, key, word):
    daemon = Daemon(configured(folder, key))
    daemon.start()
    for i in range(20):
        daemon.intake.add(b"d/x", json.dumps({"who": f"{word}-{i}"} if i % 4 else {"no": word}).encode())
    daemon.turn(0)
    daemon.close()


def exported(folder, capsys, log="journal"):
    import argparse

    parser = argparse.ArgumentParser()
    buffer.add_arguments(parser)
    status = buffer.run(parser.parse_args(["export", log, "-c", str(folder / "t.toml")]))
    return status, capsys.readouterr().out


def bytes_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in (folder / "data").rglob("*") if path.is_file()}


def test_a_gateway_with_a_key_keeps_nothing_readable_and_its_tools_read_it(tmp_path, capsys):
    run(tmp_path, KEY, "MARKER")
    run(tmp_path, KEY, "MARKER")
    capsys.readouterr()
    assert not [path for path, data in bytes_of(tmp_path).items() if b"MARKER" in data]
    for log in ("journal", "outbox/all", "dead"):
        status, said = exported(tmp_path, capsys, log)
        assert status in (0, None) and "MARKER" in said


@pytest.mark.parametrize("key", [None, bytes(32)], ids=["missing", "wrong"])
def test_a_missing_or_wrong_key_is_refused_and_nothing_is_touched(tmp_path, key):
    run(tmp_path, KEY, "MARKER")
    before = bytes_of(tmp_path)
    with pytest.raises(ConfigError, match="is encrypted"):
        Daemon(configured(tmp_path, key))
    assert bytes_of(tmp_path) == before
    run(tmp_path, KEY, "MARKER")                         # and with the right one it goes on


def test_encryption_begins_on_a_directory_that_was_plain(tmp_path, capsys):
    run(tmp_path, None, "PLAIN")
    run(tmp_path, KEY, "HIDDEN")
    capsys.readouterr()
    _, said = exported(tmp_path, capsys)
    assert "PLAIN-1" in said and "HIDDEN-1" in said and not [path for path, data in bytes_of(tmp_path).items() if b"HIDDEN" in data]


def test_the_mark_is_whole_or_not_there_and_damage_of_it_is_told():
    for cut in range(20):
        disk = MemoryDisk(seed=cut, cut_at=cut)
        try:
            disk.mkdir("data")
            cipher_of(disk, "data", KEY, begin=True)
        except PowerCut:
            assert cipher_of(disk.after_cut(0.5), "data", KEY, begin=True) is not None
    disk.files[f"data/{MARK}"].data[5] ^= 1
    with pytest.raises(ConfigError, match="damaged"):
        cipher_of(disk, "data", KEY)


def test_the_daemon_without_a_key_loads_no_cryptography():
    import subprocess
    import sys

    code = "import sys; from gateway.core import Core; print([m for m in sys.modules if m.startswith('cryptography')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


