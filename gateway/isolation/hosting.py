"""The instances of a worker, and what it does at request: see gateway/isolation/_channel.pyx for how requests come and answers go."""

import msgpack
from msgspec import Struct

from edge.columns.schema import Schema
from edge.errors import RuleError
from edge.host.engine import Unloadable
from edge.host.limits import Limits
from edge.host.resident import Here
from gateway.isolation import _channel as c

TEXT_MAX = 8192                      # characters of an error
FRAMES_MAX = 32


class About(Struct):
    """What an instance needs to know of its module."""

    digest: str
    memory_pages: int
    globals: list
    exports: list
    version: int
    state: int

    @property
    def manifest(self):
        return self


class Hosting:
    """desk: gateway.isolation._answerer.Answerer."""

    READY = c.DONE

    def __init__(self, desk):
        self._desk, self._here = desk, Here()
        self._codes, self._instances = {}, {}
        self._do = {c.LOAD: self._load, c.DROP: self._drop, c.MAKE: self._make, c.OPEN: self._open, c.BIND: self._bind, c.RESERVE: self._reserve,
                    c.SNAPSHOT: self._snapshot, c.RESTORE: self._restore, c.SAVED: self._saved, c.TAKE_OVER: self._take_over}

    def serve(self):
        """Until the daemon is gone."""
        desk, instances = self._desk, self._instances
        while (kind := desk.next()) != c.GONE:
            instance = instances.get(desk.number)
            try:
                if kind == c.PROCESS:
                    desk.process(instance)
                else:
                    self._do[kind](instance)
            except RuleError as error:
                said = {"text": str(error)[:TEXT_MAX], "code": error.code, "backtrace": error.backtrace and error.backtrace[:FRAMES_MAX]}
                desk.answer(c.REFUSED, [msgpack.packb(said)], instance=instances.get(desk.number))
            except Unloadable as error:
                desk.answer(c.UNLOADABLE, [str(error)[:TEXT_MAX].encode()])

    def _load(self, _):
        self._codes[self._desk.number] = self._here.load_bytes(self._desk.payload())
        self._desk.answer(c.DONE)

    def _drop(self, _):
        instances, codes = msgpack.unpackb(self._desk.payload())
        for number in instances:
            self._instances.pop(number, None)
        for number in codes:
            self._codes.pop(number, None)
        self._desk.answer(c.DONE)

    def _make(self, _):
        name, code, about, limits = msgpack.unpackb(self._desk.payload())
        made = self._here.instance(name, About(*about), self._codes[code], Limits(*limits))
        self._instances[self._desk.number] = made
        self._desk.answer(c.DONE, instance=made)

    def _open(self, instance):
        plan = instance.open(msgpack.unpackb(self._desk.payload()))
        self._desk.answer(c.DONE, [plan.encode()], instance=instance)

    def _bind(self, instance):
        instance.bind(Schema.from_dict(msgpack.unpackb(self._desk.payload())))
        self._desk.answer(c.DONE, instance=instance)

    def _reserve(self, instance):
        instance.reserve(self._desk.a)
        self._desk.answer(c.DONE, instance=instance)

    def _snapshot(self, instance):
        memory, mutable = instance.snapshot()
        self._desk.answer(c.DONE, [memory, mutable], a=len(memory), instance=instance)

    def _restore(self, instance):
        image = self._desk.payload()
        instance.restore(image[:self._desk.a], image[self._desk.a:])
        self._desk.answer(c.DONE, instance=instance)

    def _saved(self, instance):
        self._desk.answer(c.DONE, [instance.saved()], instance=instance)

    def _take_over(self, instance):
        instance.take_over(self._desk.payload(), self._desk.a)
        self._desk.answer(c.DONE, instance=instance)
