# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""MQTT 3.1.1 and 5 packets in bulk: from a receive buffer into an Intake, without the GIL.

    fixed header    type(4) flags(4) | remaining length, 1..4 bytes of 7 bits, least first
    PUBLISH         topic size(2) topic | packet id(2) if QoS > 0 | properties (v5) | payload
    PUBACK PUBREC PUBREL PUBCOMP        packet id(2) | v5: reason(1) | properties

take() goes from packet to packet; a packet is dealt with whole or not at all, so the caller may call it again with the
rest. PUBACK and PUBREC go to `acks`, which the owner sends when the events are on disk; nothing else holds them back.

Sources: OASIS MQTT 3.1.1 and MQTT 5.0. FAULTS names the section for each thing that a packet can break.
Bounds: acks stop at ACKS_BYTES_MAX as if the intake were full; at MQTT 5, inflight_max messages may be unacknowledged,
which the peer was told as Receive Maximum: more is a fault.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from edge.mqtt._intake cimport DUP, Intake, NO_TOPIC, RETAIN
from edge.mqtt._mqtt_session cimport PacketIds, Run

# fault: (what, section of MQTT 3.1.1, section of MQTT 5.0, MQTT 5 reason code)
FAULTS = {
    FAULT_GREETING: ("the first packet of a connection is not CONNECT", "3.1", "3.1", 0x82),
    FAULT_FLAGS: ("reserved flags of the fixed header are set wrongly", "2.2.2", "2.1.3", 0x81),
    FAULT_TYPE: ("this packet type is reserved or is not sent in this direction", "2.2.1", "2.1.2", 0x82),
    FAULT_LENGTH: ("the remaining length takes more than four bytes", "2.2.3", "1.5.5", 0x81),
    FAULT_QOS: ("QoS 3 does not exist", "3.3.1.2", "3.3.1.2", 0x81),
    FAULT_DUP: ("DUP is set at QoS 0", "3.3.1.1", "3.3.1.1", 0x81),
    FAULT_SHORT: ("a field does not fit its packet", "2.2.3", "2.1.4", 0x81),
    FAULT_TOPIC_EMPTY: ("the topic is empty", "4.7.3", "4.7.3", 0x82),
    FAULT_WILDCARD: ("the topic of a PUBLISH holds a wildcard", "3.3.2.1", "3.3.2.1", 0x90),
    FAULT_TEXT: ("a string is not UTF-8 or holds a NUL", "1.5.3", "1.5.4", 0x81),
    FAULT_PACKET_ID: ("packet id 0", "2.3.1", "2.2.1", 0x82),
    FAULT_PROPERTY: ("a property is unknown, not allowed in this packet, or cut off", "2.2", "2.2.2", 0x81),
    FAULT_PROPERTY_TWICE: ("a property that may stand once stands twice", "2.2", "2.2.2.2", 0x82),
    FAULT_ALIAS: ("a topic alias, and none is allowed", "3.3.2", "3.3.2.3.4", 0x94),
    FAULT_SUBSCRIPTION_ID: ("a client's PUBLISH holds a subscription identifier", "3.3.4", "3.3.4", 0x82),
    FAULT_LARGE: ("the packet is larger than is taken here", "2.2.3", "3.1.2.11.4", 0x95),
    FAULT_INFLIGHT: ("more unacknowledged messages than the Receive Maximum", "4.6", "3.3.4", 0x93),
    FAULT_DENIED: ("it may not publish on this topic, and 3.1.1 has no other way to say so", "3.3.5", "3.3.4", 0x87),
    FAULT_MEMORY: ("the gateway is out of memory", "4.8", "4.13", 0x97),
}

# Property types of MQTT 5.0 section 2.2.2.2, by identifier: 1, 2, 4 bytes; v variable byte integer; s string; b binary; p string pair.
cdef const uint8_t *TYPES = (b"\0" b"14s\0\0\0\0" b"sb\0v\0\0\0\0" b"\0" b"4s2\0sb1" b"41s\0s\0\0s"
                             b"\0" b"22211p4" b"111")
PROPERTY_TYPES = {i: chr(TYPES[i]) for i in range(43) if TYPES[i]}

cdef enum:
    ACKS_BYTES_MAX = 1 << 18

cdef uint64_t PUBLISH_PROPERTIES = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 8 | 1 << 9 | 1 << 11 | <uint64_t>1 << 35 | <uint64_t>1 << 38
cdef uint64_t STRICT = <uint64_t>1 << 63             # of what a client sends; what a broker passes on is no reason to leave it
cdef uint64_t ACK_PROPERTIES = <uint64_t>1 << 31 | <uint64_t>1 << 38
cdef uint64_t REPEATABLE = 1 << 11 | <uint64_t>1 << 38


cdef int read_varint(const uint8_t *p, size_t n, uint32_t *value) noexcept nogil:
    """Bytes used; 0 when bytes are missing; -1 when it is longer than four (MQTT 5.0 section 1.5.5)."""
    cdef uint32_t i
    value[0] = 0
    for i in range(4):
        if i >= n:
            return 0
        value[0] |= <uint32_t>(p[i] & 127) << (7 * i)
        if not p[i] & 128:
            return i + 1
    return -1


cdef int frame(const uint8_t *p, size_t n, Frame *out) noexcept nogil:
    cdef uint32_t remaining
    cdef int used
    out.size = 0
    if n < 2:
        return -1
    used = read_varint(p + 1, n - 1, &remaining)
    if used <= 0:
        return FAULT_LENGTH if used < 0 else -1
    out.first = p[0]
    out.header = 1 + used
    out.size = out.header + remaining
    return 0 if n >= out.size else -1


cdef int text_fault(const uint8_t *p, uint32_t n, bint topic) noexcept nogil:
    """UTF-8 without NUL and surrogates (sections 1.5.3 and 1.5.4); of a topic name also: no + and no #."""
    cdef uint32_t i = 0, k, c
    while i < n:
        c = p[i]
        i += 1
        if c < 0x80:
            if c == 0:
                return FAULT_TEXT
            if topic and (c == 0x2b or c == 0x23):
                return FAULT_WILDCARD
            continue
        if c < 0xc2 or c > 0xf4:
            return FAULT_TEXT
        k = 1 if c < 0xe0 else 2 if c < 0xf0 else 3
        if n - i < k:
            return FAULT_TEXT
        # The second byte's range excludes overlong forms, surrogates and what is above U+10FFFF.
        if p[i] < (0xa0 if c == 0xe0 else 0x90 if c == 0xf0 else 0x80) or p[i] > (0x9f if c == 0xed else 0x8f if c == 0xf4 else 0xbf):
            return FAULT_TEXT
        while k:
            if p[i] & 0xc0 != 0x80:
                return FAULT_TEXT
            i += 1
            k -= 1
    return 0


cdef int read_string(const uint8_t *p, uint32_t n, uint32_t *i, bint text, bint topic=False) noexcept nogil:
    cdef uint32_t size
    if n - i[0] < 2:
        return FAULT_PROPERTY
    size = <uint32_t>p[i[0]] << 8 | p[i[0] + 1]
    if n - i[0] - 2 < size:
        return FAULT_PROPERTY
    i[0] += 2 + size
    return text_fault(p + i[0] - size, size, topic) if text else 0


cdef int check_properties(const uint8_t *p, uint32_t n, uint64_t allowed, uint64_t *seen) noexcept nogil:
    """The properties p[:n], without their length: 0 or a fault. seen: the identifiers, a bit each."""
    cdef uint32_t i = 0, value
    cdef uint8_t kind
    cdef int fault = 0, used
    cdef bint topic
    seen[0] = 0
    while i < n:
        if p[i] >= 43 or not allowed >> p[i] & 1:
            return FAULT_PROPERTY
        if seen[0] >> p[i] & 1 and not REPEATABLE >> p[i] & 1:
            return FAULT_PROPERTY_TWICE
        seen[0] |= <uint64_t>1 << p[i]
        kind = TYPES[p[i]]
        topic = p[i] == 8 and allowed & STRICT   # Response Topic: no wildcards, section 3.3.2.3.5
        i += 1
        if kind == c's' or kind == c'b' or kind == c'p':
            fault = read_string(p, n, &i, kind != c'b', topic)
            if kind == c'p' and not fault:
                fault = read_string(p, n, &i, True)
            if fault:
                return fault
        elif kind == c'v':
            used = read_varint(p + i, n - i, &value)
            if used <= 0:
                return FAULT_PROPERTY
            i += used
        else:
            i += kind - c'0'
    return 0 if i == n else FAULT_PROPERTY


cdef int read_properties(const uint8_t *p, uint32_t n, uint64_t allowed, uint32_t *used, uint64_t *seen) noexcept nogil:
    """The property length and the properties at p. 0 or a fault."""
    cdef uint32_t size
    cdef int k = read_varint(p, n, &size)
    if k <= 0 or size > n - k:
        return FAULT_PROPERTY
    used[0] = k + size
    return check_properties(p + k, size, allowed, seen)


cdef int read_publish(const uint8_t *p, const Frame *f, bint v5, bint from_client, Publish *out) noexcept nogil:
    cdef uint32_t n = f.size - f.header, i, used
    cdef uint64_t seen
    cdef uint8_t qos = f.first >> 1 & 3
    cdef int fault
    if qos == 3:
        return FAULT_QOS
    if f.first & 8 and qos == 0:
        return FAULT_DUP
    p += f.header
    if n < 2:
        return FAULT_SHORT
    out.topic = p + 2
    out.topic_size = <uint32_t>p[0] << 8 | p[1]
    i = 2 + out.topic_size
    if i + (2 if qos else 0) > n:
        return FAULT_SHORT
    fault = text_fault(out.topic, out.topic_size, True)
    if fault:
        return fault
    out.packet_id = 0
    if qos:
        out.packet_id = <uint16_t>(p[i] << 8 | p[i + 1])
        i += 2
        if out.packet_id == 0:
            return FAULT_PACKET_ID
    if v5:
        fault = read_properties(p + i, n - i, PUBLISH_PROPERTIES | (STRICT if from_client else 0), &used, &seen)
        if fault:
            return fault
        if seen >> 35 & 1:
            return FAULT_ALIAS
        if from_client and seen >> 11 & 1:
            return FAULT_SUBSCRIPTION_ID
        i += used
    if out.topic_size == 0:
        return FAULT_TOPIC_EMPTY
    out.payload = p + i
    out.payload_size = n - i
    out.flags = qos | (RETAIN if f.first & 1 else 0) | (DUP if f.first & 8 else 0)
    return 0


cdef int read_release(const uint8_t *p, const Frame *f, bint v5, uint16_t *packet_id) noexcept nogil:
    """PUBREL, section 3.6. 0 or a fault."""
    cdef uint32_t n = f.size - f.header, used
    cdef uint64_t seen
    cdef int fault
    p += f.header
    if f.first != PUBREL:
        return FAULT_FLAGS
    if n < 2 or (n > 2 and not v5):
        return FAULT_SHORT
    packet_id[0] = <uint16_t>(p[0] << 8 | p[1])
    if packet_id[0] == 0:
        return FAULT_PACKET_ID
    if n > 3:
        fault = read_properties(p + 3, n - 3, ACK_PROPERTIES, &used, &seen)
        if fault or used != n - 3:
            return fault or FAULT_SHORT
    return 0


cdef class Flow:
    """The receiving side of one connection.

    PUBLISH and PUBREL are dealt with, and from a client (server=True) PINGREQ; the rest is the caller's (STOP_OTHER).
    From a client nothing is dealt with before `open` is set, that is, before the caller has accepted its CONNECT.
    """

    def __cinit__(self, *, bint server, bint v5=False, uint32_t packet_bytes_max=1 << 18, uint32_t inflight_max=0xffff):
        self.server = server
        self.v5 = v5
        self.packet_bytes_max = packet_bytes_max
        self.inflight_max = inflight_max
        self.acks = Run()
        self.answers = Run()
        self.received = PacketIds()

    cdef int take(self, const uint8_t *p, size_t n, Intake intake, Taken *out) noexcept nogil:
        """Deal with the packets at p[:n]; STOP_... says why it ended, `out.consumed` where."""
        cdef Frame f
        cdef int state, stop = STOP_MORE
        cdef uint32_t before = intake.n
        out.consumed = 0
        out.events = 0
        out.fault = 0
        if self.server and not self.open and n and p[0] != CONNECT:
            return self.refuse(out, FAULT_GREETING)
        while stop == STOP_MORE:
            state = frame(p + out.consumed, n - out.consumed, &f)
            if state > 0:
                stop = self.refuse(out, state)
            elif f.size > self.packet_bytes_max:
                stop = self.refuse(out, FAULT_LARGE) if self.server else STOP_LARGE
            elif state < 0:
                break
            else:
                stop = self.deal(p + out.consumed, &f, intake, out)
                if stop == STOP_MORE:
                    out.consumed += f.size
        out.events = intake.n - before
        self.published += out.events
        return stop

    cdef int refuse(self, Taken *out, int fault) noexcept nogil:
        out.fault = fault
        return STOP_FAULT

    cdef int deal(self, const uint8_t *p, const Frame *f, Intake intake, Taken *out) noexcept nogil:
        """One whole packet: STOP_MORE when it is dealt with."""
        cdef uint8_t kind = f.first & 0xf0
        if self.server and not self.open:
            return STOP_OTHER
        if kind == PUBLISH:
            return self.deal_publish(p, f, intake, out)
        if kind == 0 or (kind == 0xf0 and not self.v5):
            return self.refuse(out, FAULT_TYPE)
        if kind == 0x60:
            return self.deal_release(p, f, out)
        if kind == PINGREQ and self.server:
            if f.first != PINGREQ:
                return self.refuse(out, FAULT_FLAGS)
            if f.size != 2:
                return self.refuse(out, FAULT_SHORT)
            return STOP_MORE if self.answers.append(b"\xd0\x00", 2) else self.refuse(out, FAULT_MEMORY)
        return STOP_OTHER

    cdef int deal_publish(self, const uint8_t *p, const Frame *f, Intake intake, Taken *out) noexcept nogil:
        cdef Publish publish
        cdef uint32_t topic
        cdef uint8_t qos
        cdef int fault = read_publish(p, f, self.v5, self.server, &publish)
        if fault:
            return self.refuse(out, fault)
        qos = publish.flags & 3
        if qos and self.acks.end > ACKS_BYTES_MAX:
            return STOP_FULL
        if qos == 2 and self.received.has(publish.packet_id):
            self.repeated += 1
            if intake.n == 0:                    # no event waits for the disk: the message is durable
                return STOP_MORE if self.answers.add(PUBREC, publish.packet_id) else self.refuse(out, FAULT_MEMORY)
        else:
            if qos and self.v5 and self.server and self.acks_owed + self.received.n >= self.inflight_max:
                return self.refuse(out, FAULT_INFLIGHT)
            if self.permission is not None and not self.permission.allows(publish.topic, publish.topic_size):
                return self.deny(&publish, out)
            topic = intake.topics.intern(publish.topic, publish.topic_size)
            if topic != NO_TOPIC and self.server and intake.topics.topics[topic].forbidden:
                return self.deny(&publish, out)
            if topic == NO_TOPIC or not intake.put(topic, publish.payload, publish.payload_size, publish.packet_id, publish.flags):
                return STOP_FULL
            if qos == 2 and not self.received.add(publish.packet_id):
                return self.refuse(out, FAULT_MEMORY)
        if qos == 0:
            self.unasked += 1 + (publish.payload_size >> 10)
        if qos:
            if not self.acks.add(PUBACK if qos == 1 else PUBREC, publish.packet_id):
                return self.refuse(out, FAULT_MEMORY)
            self.acks_owed += qos == 1           # a QoS 2 message is counted by `received` until its PUBREL
        return STOP_MORE

    cdef int deny(self, const Publish *publish, Taken *out) noexcept nogil:
        """A PUBLISH that the client has no right to: MQTT 5 says Not authorized, 3.1.1 closes the connection (3.3.5), QoS 0 hears nothing."""
        cdef uint8_t answer[5]
        cdef bint kept
        self.denied += 1
        self.denied_size = min(publish.topic_size, <uint32_t>sizeof(self.denied_topic))
        memcpy(self.denied_topic, publish.topic, self.denied_size)
        if publish.flags & 3 == 0:
            self.unasked += 1 + (publish.payload_size >> 10)
            return STOP_MORE
        if not self.v5:
            return self.refuse(out, FAULT_DENIED)
        answer[0] = PUBACK if publish.flags & 3 == 1 else PUBREC
        answer[1] = 3
        answer[2] = publish.packet_id >> 8
        answer[3] = publish.packet_id & 0xff
        answer[4] = 0x87
        # In the order of the packets (4.6.0): behind those that wait for the disk; where none waits, at once.
        kept = self.acks.append(answer, 5) if self.acks.end else self.answers.append(answer, 5)
        return STOP_MORE if kept else self.refuse(out, FAULT_MEMORY)

    @property
    def last_denied(self):
        """The beginning of the topic that was refused last."""
        return (<char *>self.denied_topic)[:self.denied_size].decode("utf-8", "replace")

    cdef int deal_release(self, const uint8_t *p, const Frame *f, Taken *out) noexcept nogil:
        cdef uint16_t packet_id
        cdef uint8_t unknown[5]
        cdef bint kept
        cdef int fault = read_release(p, f, self.v5, &packet_id)
        if fault:
            return self.refuse(out, fault)
        if self.received.remove(packet_id) or not self.v5:
            kept = self.answers.add(PUBCOMP, packet_id)
        else:                                    # section 3.7.2.1: Packet Identifier not found
            memcpy(unknown, b"\x70\x03", 2)
            unknown[2] = packet_id >> 8
            unknown[3] = packet_id & 0xff
            unknown[4] = 0x92
            kept = self.answers.append(unknown, 5)
        return STOP_MORE if kept else self.refuse(out, FAULT_MEMORY)

    def acknowledged(self):
        """The acks were handed to the connection: their messages are no longer in flight."""
        self.acks_owed = 0

    def feed(self, const unsigned char[::1] data, Intake intake not None):
        """Deal with the packets in data: (stop, bytes consumed, events, fault). stop: 0 more bytes are needed,
        1 another packet, 2 the intake is full, 3 fault, 4 too large (broker's side)."""
        cdef Taken taken
        cdef int stop
        cdef const uint8_t *p = &data[0] if data.shape[0] else NULL
        with nogil:
            stop = self.take(p, data.shape[0], intake, &taken)
        return stop, taken.consumed, taken.events, taken.fault
