"""Campaign: quotas and full disks. Random loads on three lanes under each policy, the receiver up and down, on a disk with room, one that gets full in
memory, one that gets full and loses power at any operation, also while it starts again, and a small tmpfs where one can be mounted. At the end, by stream and event by event: what the receiver lacks = what was announced = what the ledger calls
evicted; lanes that may not evict lose nothing; nothing was taken from a lane while a less urgent one of those that share had something to give."""

import contextlib
import json
import random
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "soak"))

from campaign import main  # first: it finds the other folders
from memory_disk import BLOCK, PowerCut, SmallDisk
from pipeline_world import S, World

from edge.codec import batches as codec
from edge.errors import DiskError
from edge.outbox import Outbox
from edge.share import Share
from edge.storage.disk import Disk
from edge.storage.records import BATCH, between
from gateway.daemon import Daemon
from gateway.gathering import Gathering

POLICIES = ("evict-oldest", "evict-lowest-priority", "backpressure")


class Gate(Daemon):
    """A daemon without doors: takes events as its turns do, and holds them back when it must."""

    def __init__(self, world):
        self.world, self.core, self.pipeline, self.intake = world, world.core, world.pipeline, world.intake
        self.pipeline.share, self._gathering = Share(1.0), Gathering(0)
        self.clock, self.reactor = SimpleNamespace(now_ns=lambda: world.now_ns, quality=0), SimpleNamespace(monotonic=lambda: world.now_ns / S)
        self.parts, self.log, self.blocked = SimpleNamespace(sources=[]), world.lines, ""
        self._stored, self._checkpoint_due, self._checkpointed, self.blocks, self.last_block = [], False, 0, 0, ""

    def step(self, events=()):
        """One turn; how many of the events found room in the intake."""
        taken = 0
        if not self.intake.closed:
            for event in events:
                if not self.intake.add(*event):
                    break
                taken += 1
        if self.intake and not self.intake.closed and self._may_take():
            self._store()
        if self.intake.closed:
            self._commit()
        if self._checkpoint_due:
            self._checkpoint()
        return taken


class Upstream(World):
    """A world that notes, by stream: `told`, sequences whose loss was announced and that are not in an outbox again since; of what the receiver had when the
    power went, `unsure`, what stands in an outbox as if it had not, and `late`, what was evicted while it was under way: a restart may know
    or not."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.told, self.unsure, self.late, self.under_way = ({f"s{k}": set() for k in range(3)} for _ in range(4))

    def start(self):
        evict, cut_back, back = Outbox.on_evict, Outbox.cut_back, set()

        def noted(box, kind, number, first, count):
            if box in back:                      # by what a replay puts out
                name = box.names[number]
                self.unsure[name] |= set(range(first, first + count)) & set(self.of(name))
            return evict(box, kind, number, first, count)

        with patch.object(Outbox, "on_evict", noted), patch.object(Outbox, "cut_back", lambda box, *state: (cut_back(box, *state), back.add(box))):
            super().start()
        for outbox, lane in self.core.lanes:
            there = [(r.stream, r.first, r.count, lane.holds(r.position, r.position + 1)) for r in between(outbox.log, outbox.log.tail) if r.kind == BATCH]
            there += [(number, first, count, True) for kind, number, first, count, _ in outbox.writer._held if kind == BATCH]
            for number, first, count, waits in there:
                name, rows = outbox.names[number], set(range(first, first + count))
                self.told[name] -= rows
                self.unsure[name] |= rows & set(self.of(name)) if waits else set()
            lane.acknowledged = partial(self.acknowledged, lane.acknowledged, outbox)
        self.late, self.under_way = {name: late | self.under_way[name] for name, late in self.late.items()}, {name: set() for name in self.late}
        return self

    def acknowledged(self, old, outbox, message):
        group = message.group
        if group is not None and group.positions and group.positions[0] < outbox.log.tail:
            self.under_way[group.schema.stream] |= set(range(group.first, group.first + group.rows))
        old(message)

    def receive(self, topic, payload):
        message = super().receive(topic, payload).message
        if message.stream in self.told and message.kind in (codec.BATCH, codec.ROW):
            self.unsure[message.stream] -= set(range(message.first, message.first + message.count))      # acknowledged at once
        if message.kind == codec.GAP and message.stream in self.told:
            self.told[message.stream] |= set(range(message.first, message.first + message.count))


def configuration(chance, data):
    """(text, lanes: name -> (priority, policy))."""
    lanes, text = {}, f'[gateway]\nname = "g1"\ndata = "{data}"\n[listener]\n[upstream]\nhost = "nowhere"\n[journal]\nquota = "64KiB"\ndead_letters = "16KiB"\n'
    one = chance.choice((*POLICIES, None))
    for i in range(3):
        lanes[f"lane{i}"] = chance.randint(0, 9), one or chance.choice(POLICIES)
        text += f'[streams.s{i}]\ntopics = ["s{i}"]\n[streams.s{i}.fields]\nn = "i64"\ntext = "str"\n'
        text += f'[lanes.lane{i}]\nstreams = ["s{i}"]\nage = "0s"\npriority = {lanes[f"lane{i}"][0]}\nquota = "{chance.randint(12, 40)}KiB"\nfull = "{lanes[f"lane{i}"][1]}"\n'
    return text, lanes


def watch(world, lanes, said):
    """Note when a lane gives way although a less urgent one that shares has something to give."""
    boxes, refused = [box for box in world.core.outboxes.values() if lanes[box.name][1] == POLICIES[1]], set()        # refused: the disk takes no notice of what would go
    for box in boxes:
        def give_way(box=box, old=box.log.give_way):
            before = [other.name for other in boxes if lanes[other.name][0] > lanes[box.name][0] and other.log._evictable() and other.name not in refused]
            try:
                gone = old()
            except DiskError:
                refused.add(box.name)
                raise
            if gone:
                refused.clear()
            if gone and before:
                said.append(f"{box.name} gave way before {before}")
            return gone

        box.log.give_way = give_way


def run_unit(seed, i, modules, broken, figures):
    chance = random.Random(f"{seed}/{i}")
    kind = ("quota", "full", "cut", "tmpfs")[(i % 10 >= 3) + (i % 10 >= 5) + (i % 10 == 9)]
    with mounted(kind == "tmpfs", chance.randint(250, 500)) as data:
        if kind == "tmpfs" and data is None:
            kind = "full"
        text, lanes = configuration(chance, data or "data")
        disk = Disk() if kind == "tmpfs" else SmallDisk(seed=i)
        world, said, offered = Upstream(modules, text, disk).start(), [], {f"s{k}": 0 for k in range(3)}
        watch(world, lanes, said)
        if kind in ("full", "cut"):
            disk.room = disk.used() + chance.randint(16, 40) * BLOCK
        if kind == "cut":
            load_and_cut(chance, world, lanes, said, offered, figures)
        gate = Gate(world)
        load(chance, world, gate, offered, figures)
        if kind == "tmpfs":
            subprocess.run(["mount", "-o", "remount,size=16m", data], check=True)
        else:
            world.disk.room = None
        settle(world, gate)
        said += judge(world, lanes, offered, figures)
        figures[kind] += 1
        world.close()
    broken += [f"seed {seed}, unit {i} ({kind}, {lanes}): {text}" for text in said]


def load_and_cut(chance, world, lanes, said, offered, figures):
    """Load, and now and then the power goes."""
    for _ in range(chance.randint(1, 3)):
        world.disk.cut_at = world.disk.operations + chance.randint(1, 1000)
        sure = dict.fromkeys(offered, 0)
        try:
            load(chance, world, Gate(world), offered, figures, sure)
        except PowerCut:
            pass
        restart(chance, world, figures)
        watch(world, lanes, said)
        for name, count in sure.items():
            offered[name] = world.stream(name).next_sequence     # the device sends again what is not there
            if offered[name] < count:
                said.append(f"{name}: {count} were acknowledged, {offered[name]} are there after a power cut")


def restart(chance, world, figures):
    """After a power cut. The power may go again meanwhile, and where there is too little room for a start somebody makes some."""
    while True:
        world.disk = world.disk.after_cut(chance.choice((0, 0.5, 1)))
        world.disk.cut_at = chance.randint(1, 400) if chance.random() < 0.3 else None
        figures["cuts"] += 1
        try:
            while True:
                try:
                    world.start()
                    world.disk.cut_at = None
                    return
                except DiskError:
                    world.disk.room += BLOCK
        except PowerCut:
            pass


def load(chance, world, gate, offered, figures, sure=None):
    """sure: events that are acknowledged for sure, by stream, kept up to date."""
    up = False
    for _ in range(120):
        world.now_ns += S
        up = up if chance.random() < (0.8 if up else 0.97) else not up
        events = []
        for _ in range(chance.randint(1, 12)):
            name = chance.choices(list(offered), (1, 2, 4))[0]
            events.append((name, json.dumps({"n": offered[name], "text": chance.randbytes(chance.choice((40, 150, 300))).hex()}).encode()))
            offered[name] += 1
        taken = gate.step([(name.encode(), payload) for name, payload in events])
        for name, _ in reversed(events[taken:]):
            offered[name] -= 1                   # held back: the device sends it later
        figures["blocked turns"] += bool(gate.blocked)
        if sure is not None and not world.intake:
            sure.update(offered)
        if up:
            world.drain(most=chance.randint(0, 12))
        if chance.random() < 0.1:
            gate._checkpoint_due = True


def settle(world, gate):
    """Room again, and the receiver up: everything that is there leaves."""
    for _ in range(50):
        world.now_ns += S
        gate._checkpoint_due = True
        gate.step()
        if not world.drain() and not world.intake:
            break


def judge(world, lanes, offered, figures):
    """What is wrong, event by event."""
    said, announced = [], world.announced()
    for k in range(3):
        name, lane = f"s{k}", f"lane{k}"
        rows, total = world.of(name), world.stream(name).next_sequence
        gone = {s for first, count in announced.get(name, ()) for s in range(first, first + count)}
        account = next((a for a in world.ledger if a.name == f"{lane}/{name}"), None)
        evicted, box = account.out["evicted"] if account else 0, world.core.outboxes[lane]
        figures["events"] += total
        figures["evicted"] += evicted
        if total != offered[name]:
            said.append(f"{name}: {offered[name]} were offered, {total} are numbered")
        if set(rows) | gone != set(range(total)) or set(rows) & gone:
            said.append(f"{name}: lacks {sorted(set(range(total)) - set(rows) - gone)[:5]} unannounced, {sorted(set(rows) & gone)[:5]} announced and there")
        if account and account.out["pending"]:
            said.append(f"{name}: the ledger says {account.out['pending']} pending, and nothing waits")
        unsure, late = world.told[name] & world.unsure[name], world.told[name] & world.late[name]       # announced, and the receiver has them
        if not 0 <= evicted - len(gone) <= len(unsure | late):           # of those it may have heard after all
            said.append(f"{name}: the ledger says {evicted} evicted, {len(gone)} announced and lacking, {len(unsure | late)} announced and there")
        figures["unsure"] += len(unsure)
        if account and (counted := sum(n for number, n in box.evicted.items() if box.names.get(number) == name)) != evicted:
            said.append(f"{name}: {counted} are counted as evicted, {evicted} can have been")
        if lanes[lane][1] == POLICIES[2] and gone:
            said.append(f"{name}: its lane may not evict, and {len(gone)} are gone")
        said += [f"{name}: sequence {s} has {row[:20]}" for s, row in rows.items() if f"'n': {s}," not in row][:1]
    return said + [f"ledger: {a.name} off by {a.difference}" for a in world.ledger if a.difference]


@contextlib.contextmanager
def mounted(wanted, kibibytes):
    """A directory on a tmpfs of that size, or None where none can be mounted."""
    if not wanted:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", folder], capture_output=True).returncode:
            yield None
            return
        try:
            yield folder
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def run(seed, first, count):
    broken, figures = [], dict.fromkeys(("quota", "full", "cut", "tmpfs", "events", "evicted", "blocked turns", "cuts", "unsure"), 0)
    with tempfile.TemporaryDirectory() as modules:
        for i in range(first, first + count):
            try:
                run_unit(seed, i, modules, broken, figures)
            except Exception as error:           # one broken unit does not hide the others
                broken.append(f"seed {seed}, unit {i}: {error!r}")
    return figures, broken


if __name__ == "__main__":
    sys.exit(main(run, __doc__, 20))
