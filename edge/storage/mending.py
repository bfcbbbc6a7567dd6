"""Mending a log: what is damaged is put aside, what is readable around it stands in clean files afterwards. No byte is lost by it.

A damaged segment S with readable records at positions a..b, c..d becomes one file for each run of them, all of S's serial and salt, their records byte by
byte as they were. The run that S begins with takes S's name (if that one is lost, the file of that name holds none); each later one CONTINUES it (so that they
are dropped together) and is MENDED: the positions before it are lost for good, and that is known. So a start counts the same records as lost as it would have
counted without mending (and announces them); `verify` does not call them damage again. S's own file says as before whether all before it was durable; what is
made anew does not (UNSURE). Where the end of S is lost the next segment is written again as MENDED, or an empty one made, so that no position is given twice.

The order, each step synced before the next, so that a power cut anywhere leaves what a start or another mending can use:
1. a copy of S and the reason go to quarantine/      nothing has changed
2. the next segment is replaced by itself, MENDED    same records
3. the later runs, the last one first                each takes over its positions from S, and holds them
4. S's index goes, then its first run replaces S
"""

import errno
import json

from edge.errors import DiskError
from edge.storage._record import HEADER_BYTES
from edge.storage.opening import RECORDS_MAX
from edge.storage.reading import LogReader
from edge.storage.segment import CONTINUES, MENDED, SEALED_RECORDS, SEGMENT_HEADER, SKIPS, UNSURE, Segment, parse_name, read_at

FRESH = ".mend"
WHY = ".why"                         # quarantine/NAME.seg.why: JSON of what and why
COPY_BYTES = 1 << 20


class Mending:
    """What is to be done to a log that nobody writes: `segments` of Patients, and `unreadable` files. Raises DiskError when it cannot be read.

    check(record) raises DiskError for a record whose bytes are whole and whose content is not. now: text for the notes. Call under the directory's lock.
    """

    def __init__(self, disk, directory, *, check=lambda record: None, now="", cipher=None):
        self._disk, self.directory, self._now = disk, directory, now
        reader = LogReader(disk, directory, cipher)
        try:
            self.patients = [_Patient(reader, segment, check) for segment in reader.segments]
            named = [segment for name in disk.listdir(directory) if (segment := parse_name(name))]
        except OSError as error:
            raise DiskError(f"cannot read {directory}: {error.strerror}: check the disk (dmesg)") from error
        held = {reader.path(segment) for segment in reader.segments}
        self.unreadable = [d for d in reader.damage if d.file not in held]
        self._serial = max((segment.serial for segment in named), default=0)
        self._head = self.patients[-1].head if self.patients else 0
        self._lost_between()

    def _lost_between(self):
        """Where positions between two segments are gone: the later one is to say that it is known."""
        previous = None
        for patient in self.patients:
            reach = patient.runs[0][0] if patient.runs else patient.segment.end
            if previous is not None and reach > previous.reach and not patient.segment.flags & (SKIPS | MENDED):
                patient.gap_before = True
                if patient.lost:                     # torn in the last group: its parts go to files of their own, as the rest is written again
                    patient.why.append("records were torn by a power cut, and no file has the positions before it")
            if previous is not None:
                previous.end_lost = previous.reach < previous.segment.end < patient.segment.first
            previous = patient
        if previous is not None and previous.lost and not previous.why and self._beyond() > self._head:
            previous.why.append("records were torn by a power cut, and it is not the last file any more")

    @property
    def actions(self) -> list[dict]:
        """What apply() does: {"file", "do", "why"}."""
        found = [{"file": _name(d.file), "do": "put aside", "why": d.what} for d in self.unreadable]
        for patient in self.patients:
            if patient.sick:
                lost = sum(after - first for first, after in patient.lost)
                into = f"{patient.records} readable records into {len(patient.runs)} clean file{'s' * (len(patient.runs) != 1)}" if patient.runs else "nothing in it is readable"
                found.append({"file": f"{patient.segment.name}.seg", "do": f"put aside; {into}", "why": "; ".join(patient.why), "positions_lost": lost})
            elif patient.gap_before:
                found.append({"file": f"{patient.segment.name}.seg", "do": "note in its header that the positions before it are lost", "why": "no file has these positions"})
        return found

    def apply(self):
        """Do it. Raises DiskError; then it can be done again."""
        try:
            self._sweep()
            if self._beyond() > self._head:          # so that no position is given twice
                self._write(Segment(self._serial + 1, self._beyond(), self._salt(), MENDED | UNSURE), [])
            for damage in self.unreadable:
                self._put_aside_unreadable(damage)
            for i in reversed(range(len(self.patients))):
                self._treat(self.patients[i], last=i == len(self.patients) - 1)
        except OSError as error:
            advice = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check the disk (dmesg) and the permissions"
            raise DiskError(f"cannot repair {self.directory}: {error.strerror or error}: {advice}; nothing is lost, call it again") from error

    # --- one segment

    def _treat(self, patient, last):
        segment, runs = patient.segment, patient.runs
        if patient.sick:
            self._put_aside(segment.name + ".seg", patient)
        elif not patient.gap_before:
            return
        if last and patient.head > patient.reach and self._beyond() <= self._head:
            self._write(Segment(self._serial + 1, patient.head, self._salt(), MENDED | UNSURE), [])
        whole = bool(runs) and runs[0][0] == segment.first
        if patient.sick:
            flags = MENDED | CONTINUES | UNSURE | segment.flags & SEALED_RECORDS
            if patient.end_lost:                     # and the next segment skips what is behind it, so that it cannot tell
                self._write(Segment(segment.serial, segment.end, segment.salt, flags), [])
            for run in reversed(runs[whole:]):
                self._write(Segment(segment.serial, run[0], segment.salt, flags), [run], segment)
            runs = runs[:whole]
        self._rewrite(segment, runs, segment.flags | MENDED * patient.gap_before)

    def _rewrite(self, segment, runs, flags):
        self._forget_index(segment)
        self._write(Segment(segment.serial, segment.first, segment.salt, flags), runs, segment)

    def _forget_index(self, segment):
        try:
            self._disk.unlink(f"{self.directory}/{segment.name}.idx")
        except FileNotFoundError:
            return
        self._disk.fsync_directory(self.directory)

    def _write(self, new, runs, source=None):
        """A segment file of runs of `source`, whole or not at all."""
        path = f"{self.directory}/{new.name}.seg"
        pieces = [(SEGMENT_HEADER.size, None)] + [piece for _, _, pieces in runs for piece in pieces]
        fd = self._disk.create(path + FRESH)
        read = None
        try:
            read = self._disk.open(f"{self.directory}/{source.name}.seg") if runs else None
            self._put(fd, new.header(), 0)
            offset = SEGMENT_HEADER.size
            for start, end in pieces[1:]:
                while start < end:
                    data = read_at(self._disk, read, min(COPY_BYTES, end - start), start)
                    if not data:
                        raise OSError(errno.EIO, "a record that was read cannot be read again")
                    self._put(fd, data, offset)
                    start, offset = start + len(data), offset + len(data)
            self._disk.fdatasync(fd)
        finally:
            self._disk.close(fd)
            if read is not None:
                self._disk.close(read)
        self._disk.rename(path + FRESH, path)
        self._disk.fsync_directory(self.directory)

    def _put(self, fd, data, offset):
        while len(data):
            written = self._disk.pwrite(fd, data, offset)
            if written <= 0:
                raise OSError(errno.EIO, "nothing was written")
            data, offset = memoryview(data)[written:], offset + written

    # --- quarantine

    def _put_aside(self, name, patient):
        self._note(name, {"what": "; ".join(patient.why), "positions_lost": patient.lost, "was_found": self._now})
        source = self._disk.open(f"{self.directory}/{name}")
        try:
            size = self._disk.size(source)
            target = self._free_name(name)
            fd = self._disk.create(target + FRESH)
            try:
                for offset in range(0, size, COPY_BYTES):
                    self._put(fd, read_at(self._disk, source, min(COPY_BYTES, size - offset), offset), offset)
                self._disk.fdatasync(fd)
            finally:
                self._disk.close(fd)
        finally:
            self._disk.close(source)
        self._disk.rename(target + FRESH, target)
        self._disk.fsync_directory(f"{self.directory}/quarantine")

    def _put_aside_unreadable(self, damage):
        """Not a byte of it can be read, or is known: its name goes to quarantine."""
        name = _name(damage.file)
        self._note(name, {"what": damage.what, "was_found": self._now})
        self._disk.rename(damage.file, self._free_name(name))
        self._disk.fsync_directory(f"{self.directory}/quarantine")
        self._disk.fsync_directory(self.directory)

    def _note(self, name, content):
        self._disk.mkdir(f"{self.directory}/quarantine")
        self._disk.fsync_directory(self.directory)
        path = self._free_name(name) + WHY
        fd = self._disk.create(path + FRESH)
        try:
            self._put(fd, json.dumps({"file": name, **content}).encode() + b"\n", 0)
            self._disk.fdatasync(fd)
        finally:
            self._disk.close(fd)
        self._disk.rename(path + FRESH, path)

    def _free_name(self, name):
        """quarantine/NAME, or with a number when an earlier repair, which was cut off, left one of that name."""
        taken, n = set(self._disk.listdir(f"{self.directory}/quarantine")), 1
        free = name
        while free in taken:
            n += 1
            free = f"{name}.{n}"
        return f"{self.directory}/quarantine/{free}"

    def _sweep(self):
        """What a repair that was cut off had not finished."""
        for directory in (self.directory, f"{self.directory}/quarantine"):
            try:
                names = self._disk.listdir(directory)
            except FileNotFoundError:
                continue
            for name in names:
                if name.endswith(FRESH):
                    self._disk.unlink(f"{directory}/{name}")

    def _beyond(self):
        """The position after all that files which nobody can read may have held."""
        return max((parse_name(_name(d.file)).first + RECORDS_MAX for d in self.unreadable), default=0)

    def _salt(self):
        return int.from_bytes(bytes(b or 0xA5 for b in self._disk.entropy(4)), "little")


class _Patient:
    """A segment that counts. runs: [first position, position after, [(offset, end), ...]] of what can be read; reach: the position after the last of them;
    lost: positions that cannot; why: what is wrong, in words; head: the position after all that it can have held; gap_before: its header is to say that the
    positions before it are lost; end_lost: positions at its end are, and no segment begins where it ends."""

    def __init__(self, reader, segment, check):
        self.segment, self.runs, self.why, self.gap_before, self.end_lost, self.records = segment, [], [], False, False, 0
        path = reader.path(segment)
        reader_damage = len(reader.damage)
        for record in reader.records(segment):
            try:
                check(record)
            except DiskError as error:
                self.why.append(f"offset {record.offset}: {error}")
                continue
            self.records += 1
            if self.runs and self.runs[-1][1] == record.position:
                run = self.runs[-1]
                run[1] = record.position + 1
                if run[2][-1][1] == record.offset:
                    run[2][-1] = (run[2][-1][0], record.end)
                else:
                    run[2].append((record.offset, record.end))
            else:
                self.runs.append([record.position, record.position + 1, [(record.offset, record.end)]])
        found = [d for d in reader.damage[:reader_damage] if d.file == path and d.what != "no file has these positions"] + reader.damage[reader_damage:]
        self.why += [f"offset {d.offset} to {d.end}: {d.what}" for d in found]
        self.reach = self.runs[-1][1] if self.runs else segment.first
        tail = self._tail(reader, path) if segment is reader.segments[-1] else 0
        self.head = segment.end + (tail // HEADER_BYTES + 1 if tail else 0)          # as opening.py reckons
        self.lost = _between(self.runs, segment.first, segment.end)

    def _tail(self, reader, path):
        """Bytes behind the last record that are not blank."""
        at, tail = self.runs[-1][2][-1][1] if self.runs else SEGMENT_HEADER.size, 0
        fd = reader.disk.open(path)
        try:
            for offset in range(at, reader.disk.size(fd), COPY_BYTES):
                data = read_at(reader.disk, fd, COPY_BYTES, offset).rstrip(b"\0")
                tail = offset + len(data) - at if data else tail
        finally:
            reader.disk.close(fd)
        return tail

    @property
    def sick(self) -> bool:
        """Its file is to be replaced."""
        return bool(self.why)


def _between(runs, first, end):
    """The positions from first to end that no run has."""
    lost, at = [], first
    for start, after, _ in runs:
        if start > at:
            lost.append((at, start))
        at = after
    return lost + [(at, end)] * (at < end)


def _name(path):
    return path.rpartition("/")[2]
