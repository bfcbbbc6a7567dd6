"""Uploads: whatever comes in whatever order, what is complete is what its digest says."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_disk import FaultyDisk, MemoryDisk

from edge.errors import DiskError, RuleError
from edge.host.module import MODULE_BYTES_MAX
from edge.uploads import COUNT_MAX, IDLE_S, Uploads

PLACE = "data/rules/uploads"


class Time:
    def __init__(self):
        self.s = 1000.0

    def __call__(self):
        return self.s


def digest(data):
    return hashlib.sha256(data).hexdigest()


def send(uploads, data, size=7):
    offset = uploads.begin(digest(data), len(data))
    while offset < len(data):
        offset = uploads.chunk(digest(data), offset, data[offset:offset + size])
    return offset


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_parts_in_any_order_doubled_or_over_restarts_make_the_whole(data):
    disk, time = MemoryDisk(), Time()
    content = data.draw(st.binary(min_size=1, max_size=60))
    name = digest(content)
    uploads = Uploads(disk, PLACE, time)
    have = uploads.begin(name, len(content))
    while have < len(content):
        what = data.draw(st.sampled_from(["next", "next", "any", "restart", "begin"]))
        if what == "restart":
            uploads.close()
            uploads = Uploads(disk, PLACE, time)
            assert uploads.begin(name, len(content)) == have, "it goes on where it was"
        elif what == "begin":
            assert uploads.begin(name, len(content)) == have
        else:
            start = have if what == "next" else data.draw(st.integers(0, len(content)))
            size = data.draw(st.integers(1, 20))
            before, have = have, uploads.chunk(name, start, content[start:start + size])
            assert have == (before if start > before else max(before, min(start + size, len(content))))
    assert uploads.complete(name) and uploads.content(name) == content
    assert uploads.begin(name, len(content)) == len(content) == uploads.chunk(name, 0, content[:3])
    assert Uploads(disk, PLACE, time).complete(name)
    uploads.drop(name)
    assert not uploads.complete(name) and not disk.listdir(PLACE) and not disk.open_files


def test_other_bytes_than_the_digest_says_begin_anew():
    uploads = Uploads(MemoryDisk(), PLACE, Time())
    name = digest(b"right")
    uploads.begin(name, 5)
    with pytest.raises(RuleError, match="begin the upload anew"):
        uploads.chunk(name, 0, b"wrong")
    with pytest.raises(RuleError, match="not begun"):
        uploads.chunk(name, 0, b"right")
    assert send(uploads, b"right") == 5


@pytest.mark.parametrize(("name", "size"), [("x", 5), (None, 5), ("A" * 64, 5), ("../" + "0" * 61, 5), ("0" * 64, 0), ("0" * 64, -1), ("0" * 64, True),
                                            ("0" * 64, MODULE_BYTES_MAX + 1), ("0" * 64, "5"), ({}, None)])
def test_what_can_be_no_upload_is_refused(name, size):
    disk = MemoryDisk()
    with pytest.raises(RuleError):
        Uploads(disk, PLACE, Time()).begin(name, size)
    assert not disk.files


@pytest.mark.parametrize("offset", [-1, 4, "0", None, True, 2.0, 1 << 70])
def test_bytes_outside_the_file_are_refused(offset):
    uploads = Uploads(MemoryDisk(), PLACE, Time())
    uploads.begin("0" * 64, 5)
    with pytest.raises(RuleError):
        uploads.chunk("0" * 64, offset, b"abcd")


def test_uploads_are_bounded_in_number_and_age():
    disk, time = MemoryDisk(), Time()
    uploads = Uploads(disk, PLACE, time)
    for i in range(COUNT_MAX + 3):
        time.s += 1
        send(uploads, b"whole %d" % i) if i % 2 else uploads.begin(digest(b"%d" % i), 5)
    assert len(disk.listdir(PLACE)) == COUNT_MAX and uploads.complete(digest(b"whole 5")) and not uploads.complete(digest(b"whole 1"))
    time.s += IDLE_S + 1
    uploads.begin(digest(b"new"), 5)
    assert disk.listdir(PLACE) == [f"{digest(b'new')}.part"]
    assert len(disk.open_files) == 1


def test_a_disk_that_refuses_is_said_and_the_next_try_succeeds():
    data = b"x" * 1000
    whole_run = MemoryDisk()
    uploads = Uploads(whole_run, PLACE, Time())
    opened = whole_run.operations
    send(uploads, data, 300)
    for at in range(opened, whole_run.operations):
        for fault in (28, "short"):
            disk = FaultyDisk(lambda number, name: fault if number == at else None)
            uploads = Uploads(disk, PLACE, Time())
            for _ in range(4):
                try:
                    send(uploads, data, 300)
                    break
                except (DiskError, RuleError):
                    pass
            assert uploads.content(digest(data)) == data
