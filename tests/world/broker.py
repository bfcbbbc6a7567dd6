"""The upstream broker of a simulated world, MQTT 5, and the receiver behind it. How it behaves is a word that may change at any time.

    good      acknowledges what the receiver has          slow     the same, seconds later, and takes 4 messages at a time
    mute      accepts and never acknowledges              shuffle  acknowledges late and in any order
    forget    acknowledges and throws away                flap     ends each connection after a second
    garbage   answers with what is no MQTT                refuse   MQTT 5: quota exceeded
"""

from contextlib import suppress

from edge.codec.batches import BATCH, CONTEXT, ROW
from edge.codec.receiver import Receiver
from edge.errors import UpstreamError

BEHAVIOURS = ("good", "slow", "mute", "shuffle", "forget", "flap", "garbage", "refuse")
GARBAGE = (b"\xff" * 8, b"\x00\x00", b"\x40\x00", b"\x40\x02\xff\xff", b"\x30\xff\xff\xff\xff\xff", b"\x90\x03\x00\x01\x80", b"\x20\x03\x00\x00\x00",
           b"\xf0\x00", b"\x50\x02\x00\x01", b"\x40\x7f", b"\x62\x01\x00", b"\x30\x02\x00\x05")
IN_FLIGHT_SLOW = 4


class Broker:
    """What was received: `rows`, (stream, epoch, sequence) -> row; `changed`: sequences that came a second time and said something else."""

    def __init__(self, universe):
        self.universe, self.behaviour, self.reachable, self.delay_s = universe, "good", True, 0.02
        self.receiver, self.rows, self.changed = Receiver(), {}, []
        self._forgetful = Receiver()     # of what is thrown away
        self.clock_is_right = lambda: True
        self.unknown_before = lambda: 0
        self.forgotten_rows = {}         # (stream, epoch, sequence) -> row that was acknowledged and thrown away
        self.qualities = [0, 0, 0]       # rows by what they say of the clock
        self.timed = {}                  # (stream, epoch, sequence) -> (what it said of the clock, its time of receipt) of rows that came in a batch while the clock was right
        self.marks = {}                  # (stream, epoch, sequence) -> what a row said of the clock, when it first came
        self.connections, self.connects, self.messages, self.doubles = [], 0, 0, 0

    def dial(self, host):
        """The gateway connects."""
        if not self.reachable:
            raise ConnectionRefusedError(111, "refused")
        connection = Connection(self)
        connection.link = self.universe.link(connection, self.delay_s)
        self.connections.append(connection)
        return connection.link

    def cut(self, silent=False):
        """The connections end; silent: without a word."""
        for connection in list(self.connections):
            connection.link.hang() if silent else connection.link.close()

    def take(self, topic, payload, keep):
        """What came. keep: False throws it away, but for contexts, which are retained messages."""
        delivery = (self.receiver if keep else self._forgetful).feed(topic, payload)
        message = delivery.message
        if delivery.kind == CONTEXT:
            (self._forgetful if keep else self.receiver).feed(topic, payload)
            keep = True
        self.messages += keep
        self.doubles += delivery.duplicates * keep
        if delivery.kind not in (BATCH, ROW):
            return
        self.qualities[message.batch.clock] += message.count
        right = delivery.kind == BATCH and self.clock_is_right()
        for i, row in enumerate(message.batch.rows()):
            name = message.stream, message.epoch, message.first + i
            self.marks.setdefault(name, message.batch.clock)
            if right and name[2] >= self.unknown_before():
                self.timed.setdefault(name, (message.batch.clock, message.batch.received_ns))
            if not keep:
                self.forgotten_rows[name] = row
            elif (before := self.rows.setdefault(name, row)) is not row and repr(before) != repr(row):
                self.changed.append((name, self.rows[name], row))

    def lost_rows(self):
        """What it acknowledged and the receiver does not have."""
        return self.forgotten_rows.keys() - self.rows.keys()


class Connection:
    """One connection of the gateway."""

    name = "broker"

    def __init__(self, broker):
        self.broker, self.universe, self.link = broker, broker.universe, None
        self._buffer, self._owed, self._stuck = bytearray(), [], False

    def lost(self):
        if self in self.broker.connections:
            self.broker.connections.remove(self)

    def received(self, data):
        self._buffer += data
        while self.link.open and (packet := self._take()) is not None:
            self._packet(*packet)

    def _take(self):
        size = shift = 0
        for i in range(1, min(5, len(self._buffer))):
            size |= (self._buffer[i] & 127) << shift
            shift += 7
            if self._buffer[i] < 128:
                if len(self._buffer) < i + 1 + size:
                    return None
                first, body = self._buffer[0], bytes(self._buffer[i + 1:i + 1 + size])
                del self._buffer[:i + 1 + size]
                return first, body
        return None

    def _packet(self, first, body):
        broker, kind = self.broker, first >> 4
        if kind == 1:
            broker.connects += 1
            limits = b"\x21" + IN_FLIGHT_SLOW.to_bytes(2, "big") if broker.behaviour == "slow" else b""
            self.link.send(bytes([0x20, 3 + len(limits), 0, 0, len(limits)]) + limits)
            if broker.behaviour == "flap":
                self.universe.after(1.0, self.link.close)
        elif kind == 12:
            self.link.send(b"\xd0\0")
        elif kind == 3:
            n = int.from_bytes(body[:2], "big")
            number, at = int.from_bytes(body[2 + n:4 + n], "big"), 4 + n
            self._publish(body[2:2 + n].decode(), body[at + 1 + body[at]:], number)

    def _publish(self, topic, payload, number):
        random, behaviour = self.universe.random, self.broker.behaviour
        self._stuck |= behaviour == "mute" or (behaviour == "garbage" and random.random() < 0.3)
        if self._stuck:                  # it takes some of it, and says nothing that is true any more
            if behaviour == "garbage":
                self.link.send(random.choice(GARBAGE) if random.random() < 0.7 else random.randbytes(random.randrange(1, 40)))
            if random.random() < 0.5:
                with suppress(UpstreamError):    # a row whose context it did not take
                    self.broker.take(topic, payload, True)
            return
        if behaviour == "refuse":
            self._ack(number, 0x97)
            return
        self.broker.take(topic, payload, behaviour != "forget")
        if behaviour == "shuffle":
            self._owed.append(number)
            self.universe.after(random.uniform(0.1, 4.0), self._ack_any)
        elif behaviour == "slow":
            self.universe.after(random.uniform(0.5, 3.0), lambda: self._ack(number))
        else:
            self._ack(number)

    def _ack_any(self):
        if self._owed:
            self._ack(self._owed.pop(self.universe.random.randrange(len(self._owed))))

    def _ack(self, number, reason=0):
        self.link.send(b"\x40\x04" + number.to_bytes(2, "big") + bytes([reason, 0]))
