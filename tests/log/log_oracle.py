"""What a log must hold, said independently of it; and a scenario that makes a log do everything."""

from edge.storage.log import Log

SEGMENT = 600
DIRECTORY = "data/log"


def open_log(disk, **options):
    options = {"segment_bytes_max": SEGMENT, "quota_bytes_max": 1 << 20, "preamble": lambda: [(1, 7, b"schema")], **options}
    return Log(disk, DIRECTORY, **options)


def read_all(log, bytes_max=1 << 20, position=0):
    found = []
    while records := log.read(position, bytes_max):
        found += records
        position = records[-1].position + 1
    return found


class Oracle:
    """records: position -> payload of all appended; before `acknowledged` they are promised; `gone_before` may be dropped; positions from
    `forgotten` on are being truncated, and may be there or not."""

    def __init__(self):
        self.records, self.old = {}, {}
        self.acknowledged = self.gone_before = 0
        self.forgotten = None

    def append(self, log, payload, count=1):
        self.records[log.append(2, 3, len(self.records), count, payload)] = payload

    def sync(self, log):
        head = log.head
        log.sync()
        self.acknowledged = head

    def truncate(self, log, position):
        self.old.update({p: v for p, v in self.records.items() if p >= position})
        self.forgotten = position
        log.truncate(position)
        self.records = {p: v for p, v in self.records.items() if p < position}
        self.forgotten, self.old, self.acknowledged = None, {}, log.durable

    def drop_before(self, log, position):
        self.gone_before = max(self.gone_before, position)
        log.drop_before(position)

    def check(self, log, bytes_max=1 << 20):
        found = read_all(log, bytes_max)
        positions = [r.position for r in found]
        assert positions == sorted(set(positions)), "a position shown twice or out of order"
        data = {r.position: r.payload for r in found if r.kind == 2}
        for position, payload in self.records.items():
            if self.gone_before <= position < self.acknowledged and not (self.forgotten is not None and position >= self.forgotten):
                assert data.get(position) == payload, f"acknowledged position {position} is lost (held: {sorted(data)})"
        for position, payload in data.items():
            assert payload in (self.records.get(position), self.old.get(position)), f"position {position} was never that"
        assert log.head >= (self.acknowledged if self.forgotten is None else min(self.forgotten, self.acknowledged))
        assert all(p < log.head for p in positions)

    def restart(self, log):
        """Check, and go on from what survived."""
        self.check(log)
        self.records = {r.position: r.payload for r in read_all(log) if r.kind == 2}
        self.acknowledged, self.forgotten, self.old = log.durable, None, {}


def scenario(disk, oracle):
    """Append, group commit, roll, read, drop, truncate, close, open again."""
    log = open_log(disk)
    for i in range(10):
        oracle.append(log, b"one%d" % i * 9)
        oracle.append(log, b"two%d" % i * (40 if i == 4 else 5))
        if i != 7:
            oracle.sync(log)
    oracle.drop_before(log, 6)
    oracle.truncate(log, log.head - 5)
    for i in range(4):
        oracle.append(log, b"new%d" % i * 20)
        oracle.sync(log)
    log.close()
    log = open_log(disk)
    for i in range(3):
        oracle.append(log, b"last%d" % i * 20)
    oracle.sync(log)
    oracle.drop_before(log, log.head - 2)
    oracle.append(log, b"end")
    oracle.sync(log)
    oracle.truncate(log, log.head + 10)
    oracle.append(log, b"after the gap")
    oracle.sync(log)
    log.close()
