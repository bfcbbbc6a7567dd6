"""What the worker says is not believed: whatever is in the shared memory, at any moment, the daemon gets a result that can be, or an error."""

import mmap
import os
import socket
import struct
import subprocess
import sys
import threading

import pytest
import rule_module as m
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.columns._batch import Batch
from edge.errors import RuleError
from edge.host.compile import Cache
from edge.host.rule import Rule
from gateway.isolation import _channel as c
from gateway.isolation._answerer import Answerer
from gateway.isolation.hosting import Hosting
from gateway.isolation.workshop import Workshop
from tidegate_rules import path

PAYLOAD = 128


class Liar:
    """In the place of gateway.isolation.child.Child: an honest worker in a thread, and between it and the daemon one who changes its answers.

    lie: fn(the memory), called when an answer stands there.
    """

    lie = None

    def __init__(self):
        fd = os.memfd_create("memory")
        os.ftruncate(fd, c.ROOM)
        self.memory = mmap.mmap(fd, 1 << 20)
        (self._near, middle), (far, end) = (socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2))
        self._near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, 100_000))
        self.channel, self.landlock, self.memory_bytes = c.Asker(fd, self._near.fileno(), os.getpid()), 0, 0
        self._desk, self._end = Answerer(fd, end.fileno()), end
        self.fd = fd
        threading.Thread(target=self._serve, daemon=True).start()
        threading.Thread(target=self._relay, args=(middle, far), daemon=True).start()

    def _serve(self):
        """Until a request is nonsense: the scribbler may have come too late for the answer, and hit the next one."""
        try:
            Hosting(self._desk).serve()
        except Exception:                    # what a worker would die of
            pass
        self._end.close()

    def _relay(self, middle, far):
        while middle.recv(1):
            far.send(b"\1")
            if not far.recv(1):
                break
            if Liar.lie:
                Liar.lie(self.memory)
            middle.send(b"\1")
        far.close()
        middle.close()

    def ready(self):
        return self

    def end(self, why):
        self.channel.close()
        self._near.close()
        os.close(self.fd)
        return why or "ended"


@pytest.fixture(autouse=True)
def honest():
    yield
    Liar.lie = None


@pytest.fixture(scope="module")
def rules(tmp_path_factory):
    """A filter, and one that puts out numbers, strings and nulls."""
    cache = Cache(tmp_path_factory.mktemp("code"), Workshop(Liar))
    late = {"length": "2s", "fields": ["t", "n"], "functions": ["count", "min", "last"]}
    return [Rule("f", m.checked(m.module(process=m.ABOVE_4)), {}, m.STREAM, cache=cache), Rule("w", path("window"), late, m.STREAM, cache=cache)]


def batch(rows=24):
    made = [{"id": f"d{i % 5}", "t": float(i) if i % 3 else None, "n": i, "ok": True, "at": 10**9 * i} for i in range(rows)]
    one = Batch.from_rows(m.STREAM, made, received_ns=10**12)
    one.watermark_ns = 10**9 * (rows - 8)
    one.set_watermarks([(f"d{i}".encode(), 10**9 * (rows - 8)) for i in range(5)])
    return one


def taken(rule):
    """All that can be seen of an answer to a batch. None when it is refused; the rule must be reset then."""
    given = batch()
    try:
        result = rule.process(given)
    except RuleError as error:
        assert str(error) and rule._instance.dead
        return None
    out, late = result.out(given), result.late(given)
    assert result.out_count == len(out) <= 1 << 22 and result.late_count == len(late) <= len(given) and result.ignored <= len(given)
    return out.rows(), late.rows()


WORDS = st.sampled_from([0, 1, 7, 8, 9, 31, 64, 4095, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 8, (1 << 32) - 1])
PATCHES = st.lists(st.tuples(st.integers(0, 300), st.one_of(WORDS.map(lambda w: w.to_bytes(4, "little")), st.binary(min_size=1, max_size=24))), min_size=1, max_size=6)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PATCHES, st.integers(0, 1))
def test_no_answer_is_too_strange(rules, patches, which):
    def lie(memory):
        for word, data in patches:
            memory[4 * word:4 * word + len(data)] = data

    rules[which].reset()
    Liar.lie = lie
    taken(rules[which])
    Liar.lie = None
    rules[which].reset()
    assert taken(rules[which]) is not None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=600), st.integers(0, 1))
def test_no_payload_is_too_strange(rules, data, which):
    def lie(memory):
        memory[16:24] = len(data).to_bytes(8, "little")
        memory[PAYLOAD:PAYLOAD + len(data)] = data

    rules[which].reset()
    Liar.lie = lie
    for question in (rules[which].image, rules[which].saved, lambda: taken(rules[which])):
        try:
            question()
        except RuleError:
            Liar.lie = None
            rules[which].reset()
            Liar.lie = lie
    Liar.lie = None
    rules[which].reset()


SCRIBBLER = """
import mmap, random, struct, sys
memory, rng = mmap.mmap(int(sys.argv[1]), 1 << 16), random.Random(int(sys.argv[2]))
words = [rng.randrange(1 << 32) >> rng.choice([0, 8, 16, 24]) for _ in range(997)]
print("begins", flush=True)
while True:
    for word in words:
        struct.pack_into("<I", memory, 128 + word % 300 * 4, word)
"""


def test_a_memory_that_changes_while_it_is_read_is_no_danger(rules):
    for seed in range(10):
        rule = rules[seed % 2]
        rule.reset()
        taken(rule)
        liar = rule._place._child
        with subprocess.Popen([sys.executable, "-c", SCRIBBLER, str(liar.fd), str(seed)], pass_fds=[liar.fd], stdout=subprocess.PIPE) as scribbler:
            try:
                scribbler.stdout.readline()
                for _ in range(100):
                    if rule._place._child is not liar or taken(rule) is None:
                        break
            finally:
                scribbler.kill()
    rules[0].reset()
    assert taken(rules[0])


def test_an_area_where_none_can_be_is_not_written_to(rules):
    rules[0].reset()
    Liar.lie = lambda memory: memory.__setitem__(slice(48, 56), struct.pack("<II", 0xFFFFFFF8, 0xFFFFFFFF))
    assert taken(rules[0]) is not None
    assert taken(rules[0]) is None
