"""A campaign that cannot fail proves nothing: each finds a mistake that is planted in the product."""

import json
from struct import pack

import bit_rot_run
import crash_states_run
import io_errors_run
import power_cut_run
import pytest
import rot_files
from crash_states import Found, Recorder
from memory_disk import FaultyDisk

from edge.pipeline import Pipeline
from edge.storage import whole
from edge.storage._crc32c import crc32c
from edge.storage._record import Scan
from edge.storage.log import Log
from edge.storage.segment import Segment


class Careless(Recorder):
    """Passes over one kind of sync of one kind of file while it records."""

    def __init__(self, name, part):
        super().__init__(seed=1)
        self.passed = name, part

    def fdatasync(self, fd):
        if self.promise is None or self.passed[0] != "fdatasync" or self.passed[1] not in self.open_files[fd][0]:
            super().fdatasync(fd)

    def fsync_directory(self, path):
        if self.promise is None or self.passed[0] != "fsync_directory" or self.passed[1] not in path:
            super().fsync_directory(path)


@pytest.mark.parametrize("operation, sync, part", [
    ("log: append and sync", "fdatasync", ".seg"), ("log: roll", "fsync_directory", "log"), ("log: truncate", "fdatasync", ".seg"), ("log: truncate", "fsync_directory", "log"),
    ("log: evict", "fdatasync", ".seg"), ("log: opening", "fdatasync", ".seg"), ("checkpoint: full", "fdatasync", ".seg"), ("checkpoint: delta", "fdatasync", ".seg"),
    ("rule store: upload", "fdatasync", ".wasm"), ("rule store: upload", "fdatasync", "catalogue"), ("rule store: upload", "fsync_directory", "rules"),
    ("deployments: save", "fdatasync", "deployments"), ("deployments: save", "fsync_directory", "rules"), ("identity: save", "fdatasync", "identity"),
    ("identity: save", "fsync_directory", "data"), ("audit: append", "fdatasync", "audit"), ("core: turn", "fdatasync", "journal"), ("core: swap, add", "fdatasync", "checkpoints"),
])
def test_a_sync_that_is_left_out_is_found_by_the_crash_states(operation, sync, part):
    _, broken = crash_states_run.visit(operation, crash_states_run.OPERATIONS[operation], "1", broken_max=1, disk=Careless(sync, part))
    assert broken, f"{operation} holds without {sync} of {part}"


def test_an_acknowledgement_before_the_journal_is_durable_is_found_by_power_cuts(monkeypatch):
    monkeypatch.setattr(Pipeline, "sync", lambda pipeline: pipeline.journal.flush())         # of a step of the clock alone it is a sync
    assert power_cut_run.run(1, 0, 25)[1]


def test_an_outbox_that_is_let_go_before_upstream_has_it_is_found_by_power_cuts(monkeypatch):
    original = Log.drop_before
    monkeypatch.setattr(Log, "drop_before", lambda log, position: original(log, log.head))
    assert power_cut_run.run(1, 0, 50)[1]


def rotten(files, path, check):
    """Whether a flip of some bit of a file breaks the promise."""
    for bit in range(0, 8 * len(files[path]), 5):
        data = bytearray(files[path])
        data[bit >> 3] ^= 1 << (bit & 7)
        try:
            check(Found(files | {path: bytes(data)}))
        except Exception:
            return True
    return False


def test_an_index_that_is_believed_unchecked_is_found_by_bit_rot(monkeypatch):
    original = Segment.load_index
    kind = rot_files.index(1)["index"]
    monkeypatch.setattr(Segment, "load_index", lambda segment, data, size: original(segment, data[:-4] + pack("<I", crc32c(data[:-4])), size))
    assert rotten(*kind)


def test_a_seal_that_is_not_looked_at_is_found_by_bit_rot(monkeypatch):
    monkeypatch.setattr(whole, "unseal", lambda data: json.loads(data.partition(b"\n")[0]))
    assert rotten(*rot_files.identity(1)["identity"])


def test_a_neighbour_that_is_lost_with_a_damaged_record_is_found_by_bit_rot(monkeypatch):
    class Blind(Scan):
        def feed(self, window, left):
            super().feed(window, left)
            if self.holes and self.records:
                self.records.pop(0)

    monkeypatch.setattr(bit_rot_run, "SEGMENT", 1 << 16)
    monkeypatch.setattr(bit_rot_run, "COARSE", 8192)
    assert not bit_rot_run.run(1, 0, 300)[1]
    monkeypatch.setattr(bit_rot_run, "Scan", Blind)
    assert bit_rot_run.run(1, 0, 300)[1]


def test_an_fsync_that_is_tried_again_is_found_by_io_errors(monkeypatch):
    """As if what a second fsync says could be believed."""
    def sync_twice(disk, fd):
        try:
            original(disk, fd)
        except OSError:
            original(disk, fd)

    original = FaultyDisk.fdatasync
    monkeypatch.setattr(FaultyDisk, "fdatasync", sync_twice)
    units = [i for i in range(io_errors_run.SHORT) if io_errors_run.unit(i)[:3] == (0, io_errors_run.LIE, 1)]
    assert any(io_errors_run.run(1, i, 1)[1] for i in units)


def test_a_record_that_is_forgotten_after_an_error_is_found_by_io_errors(monkeypatch):
    def abandon(log):
        original(log)
        log._unsynced = log._unsynced[:-1]

    original = Log._abandon
    monkeypatch.setattr(Log, "_abandon", abandon)
    assert io_errors_run.run(1, 0, 200)[1]
