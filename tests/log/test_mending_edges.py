"""A repair on a disk that fails in the midst of it, and files that nothing of ours would write."""

import errno

import pytest
from memory_disk import FaultyDisk, MemoryDisk
from test_log_edges import Odd, refused
from test_mending import FILES, D, damage_of, held, mend, opened, readable, rot

from edge.errors import DiskError
from edge.storage.disk import Disk
from edge.storage.mending import Mending
from edge.storage.reading import LogReader


def files_of(disk):
    return {path: bytes(node.data) for path, node in disk.files.items()}


@pytest.mark.parametrize("seed", [5, 21])
@pytest.mark.parametrize("sealed", [True, False])
def test_an_error_at_any_operation_loses_nothing_and_gives_no_position_twice(seed, sealed):
    """Too many open files: the disk itself is well, and what it refused once it does when it is asked again."""
    files = rot(FILES[sealed], seed)
    before, head = readable(MemoryDisk(files)), opened(MemoryDisk(files)).head
    whole = MemoryDisk(files)
    mend(whole)
    refusals = 0
    for n in range(whole.operations):
        disk = FaultyDisk(lambda number, name, n=n: errno.EMFILE if number == n else None, files)
        try:
            mend(disk)
        except DiskError as error:
            refusals += "check the" in str(error)
        disk.fault = lambda number, name: None
        assert not disk.open_files, f"operation {n} leaves files open"
        mend(disk)
        left = readable(disk)
        kept = b"".join(bytes(node.data) for path, node in disk.files.items() if "/quarantine/" in path)
        assert all(record in left or record[1] in kept for record in before), f"operation {n}"
        assert damage_of(disk) == [] and opened(disk).head >= head
    assert refusals > whole.operations // 2


def test_a_tail_that_cannot_be_looked_at_refuses_the_repair():
    """It may hold positions that were given out."""
    path = sorted(p for p in FILES[False] if p.endswith(".seg"))[-1]
    files = FILES[False] | {path: FILES[False][path].rstrip(b"\0")[:-5] + b"?" * 60}
    disk, opens = Odd(files), []

    def opening(own, name):
        opens.append(name)
        if name == path and opens.count(path) == 3:          # looked at, read, and its tail
            raise OSError(errno.EMFILE, "too many files")
        return own(name)

    disk.odd["open"] = opening
    with pytest.raises(DiskError, match=f"cannot read {D}: too many files"):
        Mending(disk, D)
    disk.odd.clear()
    mend(disk)
    assert opened(disk).head >= opened(MemoryDisk(files)).head


def rotten():
    """A log with one rotten record in a segment in the midst: (files, its path)."""
    path = sorted(p for p in FILES[True] if p.endswith(".seg"))[2]
    data = bytearray(FILES[True][path])
    data[700:704] = b"rot!"
    files = FILES[True] | {path: bytes(data)}
    files.pop(path[:-4] + ".idx")
    return files, path


def test_a_disk_that_writes_nothing_and_says_so_refuses_the_repair():
    files, _ = rotten()
    disk = Odd(files)
    disk.odd["pwrite"] = lambda own, *arguments: 0
    with pytest.raises(DiskError, match="nothing was written.*nothing is lost, call it again"):
        mend(disk)
    assert readable(disk) == readable(MemoryDisk(files)) and not disk.open_files
    disk.odd["pwrite"] = lambda own, fd, data, offset: own(fd, bytes(data)[:1], offset)          # one byte at a time is as good as all
    mend(disk)
    whole = MemoryDisk(files)
    mend(whole)
    assert files_of(disk) == files_of(whole) | {path: data for path, data in files_of(disk).items() if ".why" in path}


def test_a_record_that_cannot_be_read_again_is_not_left_out():
    files, path = rotten()
    disk = Odd(files)
    mending = Mending(disk, D)
    created = []

    def create(own, name):
        created.append(name)
        return own(name)

    disk.odd["create"] = create
    disk.odd["pread"] = lambda own, *arguments: b"" if created and "/quarantine/" not in created[-1] else own(*arguments)
    with pytest.raises(DiskError, match="cannot be read again"):
        mending.apply()
    disk.odd.clear()
    assert readable(disk) == readable(MemoryDisk(files)) and not disk.open_files
    mend(disk)
    assert readable(disk) == readable(MemoryDisk(files)) and damage_of(disk) == []


def test_bytes_that_somebody_put_between_two_records_are_taken_out_and_no_record_with_them():
    files, path = rotten()
    reader = LogReader(MemoryDisk(files), D)
    places = [r.offset for r in reader.records(reader.segments[2])]
    for at in places[1], places[-1]:
        between = files | {path: files[path][:at] + b"between" + files[path][at:]}
        before = readable(MemoryDisk(files))
        assert readable(MemoryDisk(between)) == before
        disk, plain = MemoryDisk(between), MemoryDisk(files)
        mend(disk)
        mend(plain)
        assert {p: d for p, d in files_of(disk).items() if "quarantine" not in p} == {p: d for p, d in files_of(plain).items() if "quarantine" not in p}
        assert readable(disk) == held(opened(disk)) == before and damage_of(disk) == []
        assert bytes(disk.files[f"{D}/quarantine/{path[len(D) + 1:]}"].data) == between[path]


def test_what_a_repair_that_was_cut_off_left_is_swept_away_on_the_real_disk_too(tmp_path):
    files, path = rotten()
    directory = tmp_path / D
    directory.mkdir()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (directory / "half.seg.mend").write_bytes(b"half")
    Mending(Disk(), str(directory)).apply()          # there is no quarantine yet
    assert not list(directory.rglob("*.mend")) and (directory / "quarantine" / path[len(D) + 1:]).read_bytes() == files[path]
    (directory / "quarantine" / "half.mend").write_bytes(b"half")
    Mending(Disk(), str(directory)).apply()
    assert not list(directory.rglob("*.mend"))
    assert [(r.position, r.payload) for r in LogReader(Disk(), str(directory)).all()] == readable(MemoryDisk(files))


def test_positions_that_a_torn_tail_may_have_held_are_not_given_again():
    path = sorted(p for p in FILES[False] if p.endswith(".seg"))[-1]
    whole = FILES[False][path].rstrip(b"\0")
    for tail in (b"?", b"?" * 35, b"?" * 36, b"?" * 180, bytes(50) + b"?" * 60 + bytes(500)):
        data = bytearray(whole + tail)
        data[80] ^= 1                        # and a record before it is rotten, so that the file is written again
        files = FILES[False] | {path: bytes(data)}
        disk, plain = MemoryDisk(files), opened(MemoryDisk(files))
        mend(disk)
        log = opened(disk)
        assert log.head == plain.head > plain.recovery.records + 1 and held(log) == held(plain)
        assert log.append(2, 1, 0, 1, b"goes on") >= plain.head


def test_positions_that_a_file_of_noise_may_have_held_are_not_given_again():
    name = f"{D}/{'%08x-%016x-%08x' % (99, 5000, 0x11223344)}.seg"
    disk = MemoryDisk(FILES[True] | {name: b"noise" * 50})
    mend(disk)
    assert opened(disk).head == 5000 + (1 << 20) and bytes(disk.files[f"{D}/quarantine/{name[len(D) + 1:]}"].data) == b"noise" * 50


def test_one_lost_record_makes_two_files_of_one():
    files, path = rotten()
    disk = MemoryDisk(files)
    mend(disk)
    serial = path[len(D) + 1:].partition("-")[0]
    mine = sorted(p for p in disk.files if p.startswith(f"{D}/{serial}-"))
    assert len(mine) == 2 and mine[0] == path
    assert {p for p in disk.files if "quarantine" not in p} - set(mine) == set(files) - {path}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_what_to_do_is_said(number):
    files, _ = rotten()
    disk = Odd(files)
    disk.odd["create"] = refused(number, "refused")
    with pytest.raises(DiskError, match=f"cannot repair {D}: refused: {'check the disk' if number == errno.EIO else 'make room'}.*call it again"):
        mend(disk)
