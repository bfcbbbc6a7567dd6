"""Queries compiled and run as the gateway runs them."""

import wasmtime

from edge._watermark import Watermarks
from edge.columns._batch import Batch
from edge.columns.schema import Field, Schema
from edge.host.code import check
from edge.host.engine import engine
from edge.host.module import Module
from edge.host.resident import Here
from edge.host.rule import Rule
from rulec import sql

SECOND = 10**9
ENV = Schema("env", (Field("device", "str"), Field("ts", "time"), Field("temp", "f64"), Field("hum", "f64"), Field("n", "i64"), Field("ok", "bool"),
                     Field("site", "str")),
             key="device", time="ts")
PLAIN = Schema("env", (Field("temp", "f64"), Field("n", "i64"), Field("at", "time")))


class InThisProcess:
    """Instead of edge.host.compile.Cache: the same compiler and settings, without a child and a disk."""

    place = Here()

    @staticmethod
    def load(module):
        check(module.wasm)
        return wasmtime.Module(engine(), module.wasm)


class World:
    """A query's rule and its stream. parameters: name -> type; given: their values."""

    def __init__(self, text, *, schema=ENV, parameters=None, given=None, optional=(), bound=None):
        declared = [{"name": n, "type": t, "summary": ""} for n, t in (parameters or {}).items()]
        self.wasm = sql.compile(text, schema=schema, name="q", parameters=declared, optional=optional)
        self.schema = bound or schema
        self.rule = Rule("q", Module(self.wasm), given or {}, self.schema, cache=InThisProcess)
        self.marks = Watermarks()
        self.sequence = 0

    def send(self, *rows):
        """The answer to a batch of rows, a dict each: selected or output rows; late rows in `late`, ignored in `ignored`."""
        batch = Batch.from_rows(self.schema, list(rows), first_sequence=self.sequence, received_ns=10**12)
        self.sequence += len(rows)
        self.marks.observe(batch)
        return self.process(batch)

    def process(self, batch):
        result = self.rule.process(batch)
        self.late = result.late(batch).rows() if result.late_count else []
        self.ignored = result.ignored
        return result.out(batch).rows() if result.out_count else []


def select(expressions, rows, **options):
    """The rows of SELECT expressions FROM env, for events without key."""
    return World(f"SELECT {expressions} FROM env", schema=options.pop("schema", PLAIN), **options).send(*rows)


def one(expression, row=None, **options):
    """The value of an expression for one event."""
    return select(f"{expression} AS x", [row or {}], **options)[0]["x"]
