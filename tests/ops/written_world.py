"""A data directory written by the real pipeline and logs, and what it must hold, noted down beside."""

import hashlib
import json
import os
from pathlib import Path

from edge._watermark import Watermarks
from edge.decoding._decode import Decoder, Router
from edge.decoding.contract import Contract, FieldSource
from edge.errors import RuleError
from edge.identity import Identity
from edge.mqtt._intake import Intake, Topics
from edge.outbox import Outbox
from edge.pipeline import Pipeline
from edge.stage import Stage, Stream
from edge.storage.disk import Disk
from edge.storage.log import Log
from gateway import cli

START_NS = 1_790_000_000_000_000_000
STEP_NS = 1_500_000_000
CONTRACTS = [
    Contract("env", ["env/+"], [FieldSource("device", "str", "topic[1]"), FieldSource("temp", "f64")], key="device"),
    Contract("door", ["door"], [FieldSource("sequence", "i64"), FieldSource("open", "bool", required=False)]),
]


class TrapsAbove90:
    """A rule that traps on a batch with a temp above 90 and puts out nothing."""

    name, digest, identity = "fragile", "ab" * 32, "id"
    is_filter, drops, quarantined, strikes, traps, run_ns = True, "filtered", False, [], 0, 0
    out_count = late_count = ignored = selected_count = 0

    def image(self):
        return b"", b""

    def load_image(self, image):
        pass

    def reset(self):
        pass

    def process(self, batch):
        if any(t > 90 for t in batch.column("temp")):
            raise RuleError("rule fragile: unreachable", code="trap", rule=self.name, digest=self.digest, backtrace=["on_batch + 0x12", "edge_process + 0x3"])
        return self


class World:
    """turn() takes a turn's events through the pipeline. journal: the rows it must hold, in order; letters: the reasons' first words."""

    def __init__(self, folder, segment_bytes=2500, quota=1 << 20):
        self.data = str(folder)
        self.disk = Disk()
        self.disk.mkdir(self.data)
        identity = Identity(self.disk, self.data, "g")
        self.intake = Intake(Topics())
        env, door = (Stream(identity.number(c.schema), c.schema, Watermarks) for c in CONTRACTS)
        output, late, partial = (Stream(identity.number(env.schema.__class__(name, env.schema.fields)), env.schema, Watermarks) for name in ("fragile", "fragile.late", "fragile.partial"))
        stage = Stage(TrapsAbove90(), env, output, late, partial)
        env.stages.append(stage)
        identity.save()
        logs = {name: Log(self.disk, f"{self.data}/{name}", segment_bytes_max=segment_bytes, quota_bytes_max=quota, preamble=lambda: self.pipeline.preamble())
                for name in ("journal", "dead", "outbox/all")}
        self.logs = logs
        outbox = Outbox("all", logs["outbox/all"], evict=True)
        env.outboxes, door.outboxes = [outbox], [outbox]
        self.pipeline = Pipeline(epoch=1, router=Router(CONTRACTS), decoders=[Decoder(c) for c in CONTRACTS], inputs=[env, door], stages=[stage],
                                 outboxes=[outbox], journal=logs["journal"], dead=logs["dead"])
        self.turns, self.journal, self.letters = 0, [], []

    def turn(self, *events):
        """events: (topic, payload). Good ones are noted in `journal` as they must be exported."""
        self.intake.clear()
        for topic, payload in events:
            assert self.intake.add(topic, payload)
        self.turns += 1
        received = START_NS + self.turns * STEP_NS
        stored = self.pipeline.store(self.intake, received)
        self.pipeline.sync()
        for stream, batch, _ in stored:
            for i, row in enumerate(batch.rows()):
                self.journal.append({"stream": stream.name, "received_ns": received, "sequence": batch.first_sequence + i, **row})
        self.pipeline.run(stored)
        self.pipeline.sync()
        self.pipeline.flush()
        self.logs["outbox/all"].sync()

    def fill(self, turns):
        """Good events of both streams."""
        for _ in range(turns):
            n = self.turns
            self.turn(*[(b"env/d%d" % (i % 3), b'{"temp": %d.5}' % (n % 50 + i)) for i in range(8)], (b"door", b'{"sequence": %d, "open": true}' % (1000 + n)))

    def close(self):
        for log in self.logs.values():
            log.close()


def fingerprint(folder):
    """Every path below a folder with its bytes' hash and times of change."""
    return {str(p): (hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else None, p.stat().st_mtime_ns, p.stat().st_ctime_ns)
            for p in sorted(Path(folder).rglob("*"))}


def tidegate(capfdbinary, *arguments, data):
    """(exit status, standard output, standard error) of a command on a data directory."""
    capfdbinary.readouterr()
    status = cli.main([*arguments, "--data", os.fspath(data)])
    out, err = capfdbinary.readouterr()
    return status, out.decode(), err.decode()


def answer(capfdbinary, *arguments, data):
    """The JSON object that a command prints."""
    return json.loads(tidegate(capfdbinary, *arguments, "--json", data=data)[1])
