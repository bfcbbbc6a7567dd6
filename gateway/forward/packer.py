"""Packer: a lane's rows become MQTT messages, none longer than the limit.

A stream's batches and gaps go to its topic; single rows go to TOPIC/row, in few bytes, told relative to a context that stands
retained at TOPIC/context. So each stream's contexts have a scope of their own (edge/codec/receiver.py).
"""

import json

from edge.codec.batches import encode_batch, encode_gap, json_rows
from edge.codec.context import FIELDS_MAX
from edge.codec.rows import RowEncoder

CONTENT_BATCH = "application/vnd.tidegate"
CONTEXT_LEVEL, ROW_LEVEL = "/context", "/row"
CONTENT_JSON = "application/json"
CONTENT_JSONL = "application/jsonl"
ROW_BYTES_GUESS = 64             # until a stream's first message tells better
FILL = 0.9                       # aim below the limit: an overshoot costs a second encoding
JSON_ROWS = 256                  # rows turned into JSON at a time when each is a message
PACKET_BYTES = 72                # what a PUBLISH may need beside topic and payload


class Message:
    """One PUBLISH. `group` is told when it is acknowledged; None for what covers no rows. properties: of MQTT 5, beside the content type's."""

    __slots__ = ("lane", "topic", "payload", "retain", "content_type", "properties", "rows", "group", "size", "deadline", "backlog", "sent_at", "alone")

    def __init__(self, topic, payload, rows, group, content_type=None, retain=False, properties=None):
        self.topic = topic
        self.payload = payload
        self.rows = rows
        self.group = group
        self.content_type = content_type
        self.properties = properties
        self.retain = retain
        self.size = len(topic) + len(payload)
        self.backlog = False         # of a lane's backlog: sent_at and alone are its Pace's


class Packer:
    """Encodes by a policy. Rows that fit no message are noted in their group."""

    def __init__(self, policy, lane, gateway, epoch):
        self._policy = policy
        self._lane = lane
        self._gateway = gateway
        self._epoch = epoch
        self._topics = {}            # stream name -> topic
        self._row_bytes = {}         # stream -> bytes a row took in its last message
        self._encoders = {}          # stream -> (Schema, RowEncoder; None: its single rows go as batches)
        self._announced = set()      # streams whose context went out on this connection
        self._packet_bytes_max = None
        self._pack = {"batch": self._batch, "jsonl": self._jsonl, "json": self._json}[policy.encoding]

    def connected(self, packet_bytes_max):
        """A new connection: contexts go out again; packet_bytes_max is the server's limit or None."""
        self._announced.clear()
        self._packet_bytes_max = packet_bytes_max

    def topic(self, schema):
        """The topic of a stream's messages."""
        topic = self._topics.get(schema.stream)
        if topic is None:
            topic = self._topics[schema.stream] = self._policy.topic_of(self._gateway, self._lane, schema.stream)
        return topic

    def rows_full(self, stream):
        """So many rows make a message."""
        target = int(FILL * self._limit("") / self._row_bytes.get(stream, ROW_BYTES_GUESS))
        return max(1, min(self._policy.rows_max, target))

    def pack(self, group):
        """The group's next message, or None when all of it has gone."""
        topic = self.topic(group.schema)
        message = self._pack(group, topic, self._limit(topic)) if group.batch is not None and not group.gaps else None
        return self._gap(group, topic) if message is None and group.gaps else message

    def _limit(self, topic):
        if self._packet_bytes_max is None:
            return self._policy.size_bytes_max
        return min(self._policy.size_bytes_max, self._packet_bytes_max - len(topic.encode()) - PACKET_BYTES)

    def _batch(self, group, topic, limit):
        while group.at < group.rows:
            left = group.rows - group.at
            if left == 1:
                message = self._row(group, topic, limit)
                if message is not None:
                    return message
                continue
            n = min(left, self.rows_full(group.stream))
            while n > 1:
                try:
                    payload = encode_batch(group.cut(n), gateway=self._gateway, epoch=self._epoch)
                except ValueError:               # more memory than a receiver would spend on it
                    n //= 2
                    continue
                if len(payload) <= limit:
                    self._row_bytes[group.stream] = len(payload) / n
                    group.at += n
                    return Message(topic, payload, n, group, CONTENT_BATCH)
                n = max(1, min(n // 2, int(FILL * n * limit / len(payload))))
            message = self._row(group, topic, limit)
            if message is not None:
                return message
        return None

    def _row(self, group, topic, limit):
        """The row at group.at as a message of its own, its context first; None when it is too long, and skipped."""
        row = group.cut(1)
        encoder = self._encoder(group)
        if encoder is None:
            return self._alone(group, row, topic, limit)
        context = encoder.context(row)
        if context is None and group.stream not in self._announced:
            context = encoder.retained
        if context is not None and len(context) <= limit:
            self._announced.add(group.stream)
            return Message(topic + CONTEXT_LEVEL, context, 0, None, CONTENT_BATCH, retain=True)
        if context is not None:
            self._encoders[group.stream] = group.schema, None
            return self._row(group, topic, limit)
        group.at += 1
        try:
            payload = encoder.encode(row)[0]
        except ValueError as e:
            group.bury(str(e))
            return None
        if len(payload) > limit:
            self._too_long(group, len(payload), limit)
            return None
        return Message(topic + ROW_LEVEL, payload, 1, group)

    def _alone(self, group, row, topic, limit):
        """The row as a batch of one: its stream's contexts are too long, or it has too many fields for one."""
        group.at += 1
        try:
            payload = encode_batch(row, gateway=self._gateway, epoch=self._epoch)
        except ValueError as e:
            group.bury(str(e))
            return None
        if len(payload) > limit:
            self._too_long(group, len(payload), limit)
            return None
        return Message(topic, payload, 1, group, CONTENT_BATCH)

    def _encoder(self, group):
        schema, encoder = self._encoders.get(group.stream, (None, None))
        if schema is not group.schema:
            encoder = RowEncoder(self._gateway, self._epoch, group.schema) if len(group.schema.fields) <= FIELDS_MAX else None
            self._encoders[group.stream] = group.schema, encoder
            self._announced.discard(group.stream)
        return encoder

    def _gap(self, group, topic):
        first, count, why = group.gaps.pop(0)
        gap = {"stream": group.schema.stream, "epoch": self._epoch, "first": first, "count": count, "reason": why}
        if self._policy.encoding == "batch":
            return Message(topic, encode_gap(self._gateway, **gap), 0, group)
        return Message(topic, json.dumps({"gap": {"gateway": self._gateway, **gap}}).encode(), 0, group, CONTENT_JSON)

    def _jsonl(self, group, topic, limit):
        while group.at < group.rows:
            n = min(group.rows - group.at, self.rows_full(group.stream))
            lines = json_rows(group.cut(n))
            size = taken = 0
            for line in lines:
                if size + len(line) + 1 > limit:
                    break
                size += len(line) + 1
                taken += 1
            if taken == 0:
                group.at += 1
                self._too_long(group, len(lines[0]) + 1, limit)
                continue
            self._row_bytes[group.stream] = size / taken
            group.at += taken
            lines[taken:] = [b""]            # a newline behind the last line
            return Message(topic, b"\n".join(lines), taken, group, CONTENT_JSONL)
        return None

    def _json(self, group, topic, limit):
        while group.at < group.rows:
            if not group.lines:
                group.lines = json_rows(group.cut(min(group.rows - group.at, JSON_ROWS)))[::-1]
            line = group.lines.pop()
            group.at += 1
            if len(line) <= limit:
                return Message(topic, line, 1, group, CONTENT_JSON)
            self._too_long(group, len(line), limit)
        return None

    def _too_long(self, group, size, limit):
        group.bury(f"a row of {size} bytes exceeds the message limit of {limit}")
