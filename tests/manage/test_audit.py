"""The audit log: what was written is there, and what was done to it shows."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from memory_disk import FaultyDisk, MemoryDisk

from edge.errors import DiskError
from gateway.deploy.audit import FILES_MAX, Audit

PLACE = "data/audit"


def log_on(disk, **options):
    return Audit(disk, PLACE, wall=lambda: 1_700_000_000, **options)


def written(disk):
    return {path: bytes(node.data) for path, node in disk.files.items()}


def fill(log, count, start=0):
    for i in range(start, start + count):
        log.append("local:0", "admitted", rule="hot", number=i)


def test_lines_follow_each_other_over_restarts_and_files():
    disk = MemoryDisk()
    for start in range(0, 60, 10):
        log = log_on(disk, file_bytes_max=5000)
        fill(log, 10, start)
        log.close()
    log = log_on(disk, file_bytes_max=5000)
    assert [line["number"] for line in log.lines(limit=1000)] == list(range(60))
    assert log.lines(57) == log.newest(3) and [line["n"] for line in log.newest(3)] == [58, 59, 60]
    assert log.verify() == {"lines": 60, "head": list(log.head), "broken": None} and len(disk.listdir(PLACE)) > 1
    assert not disk.open_files


def test_bytes_are_bounded_and_the_log_says_what_was_dropped():
    disk = MemoryDisk()
    log = log_on(disk, file_bytes_max=1000)
    fill(log, 100)
    assert len(disk.listdir(PLACE)) <= FILES_MAX and sum(map(len, written(disk).values())) < 1400 * FILES_MAX
    first = log.lines(limit=1000)[0]["n"]
    dropped = [line["through"] for line in log.lines(limit=1000) if line["what"] == "audit.dropped"]
    assert first == dropped[-1] + 1 and log.verify()["broken"] is None
    assert log_on(MemoryDisk(written(disk)), file_bytes_max=1000).verify()["broken"] is None


def test_long_and_strange_details_are_cut_not_refused():
    log = log_on(MemoryDisk())
    log.append("token:ü\n", "set", params={"a": "x" * 10_000, "b": ["y" * 10_000] * 50}, odd=object(), surrogate="\ud800")
    log.append("who", "what", rule="x" * 10_000)
    assert log.verify()["broken"] is None and len(log.lines()) == 2
    assert log.lines()[1]["rule"] == "x" * 500 + "…"


def test_a_disk_that_refuses_leaves_the_chain_whole():
    whole_run = MemoryDisk()
    log = log_on(whole_run, file_bytes_max=700)
    opened = whole_run.operations
    fill(log, 12)
    for fault in (28, FaultyDisk.LIE, "short"):
        for at in range(opened, whole_run.operations):
            disk, done = FaultyDisk(lambda number, name: fault if number == at and (fault != FaultyDisk.LIE or name == "fdatasync") else None), []
            log = log_on(disk, file_bytes_max=700)
            for i in range(12):
                try:
                    log.append("local:0", "admitted", number=i)
                    done.append(i)
                except DiskError as error:
                    assert "check the disk" in str(error)
            assert log.verify()["broken"] is None, (fault, at)
            again = log_on(disk.after_cut(0), file_bytes_max=700)
            assert again.verify()["broken"] is None
            numbers = [line["number"] for line in again.lines(limit=1000) if "number" in line]
            assert [n for n in done if n >= numbers[0]] == [n for n in numbers if n in done]


# --- tampering


def lines_of(disk):
    """(path, index) of each line, in order."""
    return [(path, i) for path in sorted(disk.files) for i in range(disk.files[path].data.count(b"\n"))]


def edited(data, index, change):
    pieces = bytes(data).split(b"\n")[:-1]
    pieces[index:index + 1] = change(pieces[index])
    return b"".join(piece + b"\n" for piece in pieces)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_change_before_the_last_line_goes_unseen(data):
    disk = MemoryDisk()
    log = log_on(disk, file_bytes_max=1000)
    fill(log, data.draw(st.integers(3, 30)))
    log.close()
    places = lines_of(disk)
    what = data.draw(st.sampled_from(["edit", "byte", "delete", "swap", "insert", "truncate", "file"]))
    at = data.draw(st.integers(0, len(places) - 2))
    path, index = places[at]
    content = disk.files[path].data
    if what == "edit":                       # its own hash right, as JSON; only what it says is changed
        new = edited(content, index, lambda raw: [json.dumps(json.loads(raw) | {"who": "somebody else"}).encode()])
    elif what == "byte":
        where = data.draw(st.integers(0, 20))
        new = edited(content, index, lambda raw: [raw[:where] + bytes([raw[where] ^ data.draw(st.integers(1, 255))]) + raw[where + 1:]])
    elif what == "delete":
        new = edited(content, index, lambda raw: [])
    elif what == "insert":
        new = edited(content, index, lambda raw: [raw, raw])
    elif what == "truncate":                 # a file that is not the last, or a line that others follow, cut in the middle
        new = edited(content, index, lambda raw: [raw[:len(raw) // 2]])
    elif what == "swap":
        pieces = bytes(content).split(b"\n")[:-1]
        other = data.draw(st.integers(0, len(pieces) - 1))
        pieces[index], pieces[other] = pieces[other], pieces[index]
        new = b"".join(piece + b"\n" for piece in pieces)
    else:
        new = b""
    last = path == places[-1][0]
    if new == bytes(content) or (what == "file" and last):
        return
    disk.files[path].data[:] = new
    running = log.verify()["broken"]
    assert running, "the running gateway sees any change"
    again = log_on(MemoryDisk(written(disk)), file_bytes_max=10**6)
    broken = again.verify()["broken"]
    assert broken, (what, at, len(places))
    fill(again, 3)
    assert again.verify()["broken"] == broken, "it stays seen"
    if what in ("edit", "truncate") and broken["file"]:
        named = places.index((broken["file"] and f"{PLACE}/{broken['file']}", broken["line"] - 1))
        assert named in (at, at + 1), "the first broken line is named"


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=300) | st.lists(st.sampled_from([b'{"n":1,"who":"a","what":"b","before":"c"}', b"[[[[", b"null", b'{"n":"x"}', b""])).map(b"\n".join))
def test_any_file_can_be_read_and_gone_on_with(content):
    log = log_on(MemoryDisk({f"{PLACE}/00000001.jsonl": content}))
    log.verify()
    log.append("local:0", "later")
    assert log.lines()[-1]["what"] == "later"
