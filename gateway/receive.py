"""Receive: the upstream end for small sites, demonstrations and tests. It takes gateways' connections and writes their rows as lines.

    Listener -> Receiver (decode, drop what was seen) -> output flushed -> state saved -> PUBACK

The state holds the Receiver's memory and the length that the output had then. A restart cuts the output back to that length:
what stands behind it was never acknowledged and comes again, so that each row is in the output once.
Without `durable` this holds for a crash of the process; with it, for a power cut too. On standard output, which cannot be cut
back, rows may come twice after a crash.
"""

import base64
import json
import os
import sys

import msgpack

from edge.books import STREAM
from edge.codec.batches import LEDGER, json_rows
from edge.codec.receiver import Receiver
from edge.errors import ConfigError, DiskError, UpstreamError
from edge.mqtt._intake import Intake, Topics
from gateway.ingest.listener import Listener

STATE_VERSION = 1
PACKET_BYTES_MAX = 8 << 20


class Receive:
    """Listens on host:port (0: a free one, see .port) and appends to `out`, a path or None for standard output.

    state_path: where the memory is kept; default `out` + ".state"; there is none on standard output unless given.
    Call turn() after each turn of the reactor. Raises ConfigError when it cannot bind or the state is not one,
    DiskError when the output cannot be written: nothing of that turn is acknowledged.
    """

    def __init__(self, reactor, host, port, out, state_path=None, *, durable=False, tls=None, on_event=None):
        self._state_path = state_path or (out and f"{out}.state")
        self._out_path = out
        self._durable = durable
        self._on_event = on_event
        self.rows = self.json_rows = self.messages = self.rejected = self.bytes = 0
        self.ledgers = {}            # gateway -> the last account of itself that it sent
        state = self._load()
        self._receiver = Receiver(state["receiver"]) if state else Receiver()
        self._out = self._open(state["size"] if state else None)
        self._rejects = None
        self._intake = Intake(Topics(), bytes_max=2 * PACKET_BYTES_MAX)
        self._listener = Listener(reactor, self._intake, host=host, port=port, tls=tls, packet_bytes_max=PACKET_BYTES_MAX, on_event=on_event)
        self.port = self._listener.port

    def turn(self):
        """Write what has come, make sure of it, acknowledge it."""
        if not len(self._intake):
            return
        lines = []
        for i in range(len(self._intake)):
            topic, payload, _, _ = self._intake[i]
            self.messages += 1
            self.bytes += len(payload)
            self._take(topic.decode("utf-8", "replace"), payload, lines)
        try:
            if lines:
                self._out.write(b"".join(lines))
                self._out.flush()
                if self._durable:
                    os.fsync(self._out.fileno())
            if self._rejects is not None:
                self._rejects.flush()
                if self._durable:
                    os.fsync(self._rejects.fileno())
            self._save()
        except OSError as e:
            raise DiskError(f"{e.filename or self._out_path or 'standard output'}: {e.strerror}; nothing more is acknowledged, make room and start again") from None
        self._listener.acknowledge()
        self._intake.clear()
        if self._intake.topics.nearly_full:
            self._intake.topics.clear()

    def report(self):
        """What came since the start; and since the memory began, per stream, what is missing, announced as lost, or came twice."""
        return {"rows": self.rows, "json_rows": self.json_rows, "messages": self.messages, "bytes": self.bytes, "rejected": self.rejected,
                **self._totals(), "streams": self._receiver.report(), "ledgers": self.ledgers, "unbalanced": self._receiver.check()}

    def _totals(self):
        streams = self._receiver.report()
        return {"duplicates": sum(s["duplicates"] for s in streams),
                "missing": sum(count for s in streams for _, count in s["missing"]),
                "gaps": sum(count for s in streams for _, count in s["announced"])}

    def summary(self):
        """One line for people."""
        totals = self._totals()
        words = ", ".join(f"{totals[name]:,} {name}" for name in ("duplicates", "missing", "gaps"))
        return f"{self.rows + self.json_rows:,} rows in {self.messages:,} messages, {self.bytes:,} bytes, {words}, {self.rejected} rejected"

    def close(self):
        """Stop listening; what was not acknowledged comes again."""
        self._listener.close()
        if self._out_path is not None:
            self._out.close()
        if self._rejects is not None:
            self._rejects.close()

    # --- messages

    def _take(self, topic, payload, lines):
        if payload[:1] == b"{":                  # a lane that sends JSON: no identity, no memory
            rows = payload.splitlines()
            lines.extend(row + b"\n" for row in rows)
            self.json_rows += len(rows)
            return
        try:
            delivery = self._receiver.feed(topic, payload)
        except UpstreamError as e:
            self.rejected += 1
            self._reject(topic, payload, str(e))
            return
        if delivery.kind == LEDGER:
            message = delivery.message
            self.ledgers[delivery.gateway] = {"start_ns": message.start_ns, "stop_ns": message.stop_ns, "counts": message.counts}
        if delivery.batch is not None:
            if delivery.stream != STREAM:
                lines.extend(_lines(delivery))
                self.rows += len(delivery.batch)

    def _reject(self, topic, payload, reason):
        """Keep what cannot be read beside the output: it will not get better by coming again."""
        if self._on_event is not None:
            self._on_event("rejected", f"{topic}: {reason}")
        if self._out_path is None:
            return
        if self._rejects is None:
            self._rejects = open(f"{self._out_path}.rejected", "ab")
        line = {"topic": topic, "reason": reason, "payload": base64.b64encode(payload).decode()}
        self._rejects.write(json.dumps(line).encode() + b"\n")

    # --- files

    def _open(self, size):
        if self._out_path is None:
            return sys.stdout.buffer
        try:
            out = open(self._out_path, "ab")
            if size is not None and out.tell() > size:
                out.truncate(size)
                out.seek(size)
            return out
        except OSError as e:
            raise ConfigError(f"{self._out_path}: {e.strerror}; name another file with --out") from None

    def _load(self):
        if self._state_path is None:
            return None
        try:
            with open(self._state_path, "rb") as file:
                state = msgpack.unpackb(file.read())
            if state["version"] != STATE_VERSION:
                raise ValueError(f"version {state['version']}")
            return state
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise ConfigError(f"{self._state_path}: not a receiver's state ({e}); move it away to start without memory of what was seen") from None

    def _save(self):
        if self._state_path is None:
            return
        state = {"version": STATE_VERSION, "size": self._out.tell() if self._out_path is not None else 0, "receiver": self._receiver.dump()}
        fresh = f"{self._state_path}.new"
        with open(fresh, "wb") as file:
            file.write(msgpack.packb(state))
            if self._durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(fresh, self._state_path)
        if self._durable:
            folder = os.open(os.path.dirname(os.path.abspath(self._state_path)), os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _lines(delivery):
    """The new rows as JSON lines: identity first (but for names that the stream's own fields have), then the fields."""
    schema = delivery.batch.schema
    identity = {"gateway": delivery.gateway, "stream": delivery.stream, "epoch": delivery.epoch}
    if schema.time is None:
        identity["received_ns"] = delivery.batch.received_ns
    own = {f.name for f in schema.fields}
    head = json.dumps({k: v for k, v in identity.items() if k not in own}, ensure_ascii=False, separators=(",", ":")).encode()[:-1]
    if len(head) > 1:
        head += b","
    sequences = (first + i for first, count in delivery.ranges for i in range(count))
    for sequence, row in zip(sequences, json_rows(delivery.batch)):
        number = b"" if "sequence" in own else b'"sequence":%d' % sequence + (b"," if own else b"")
        yield head + number + row[1:] + b"\n"
