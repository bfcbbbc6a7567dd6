# cython: language_level=3
"""MQTT packets in bulk: framing, PUBLISH, acknowledgements. See _mqtt.pyx."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from edge.mqtt._intake cimport Intake
from edge.mqtt._mqtt_session cimport PacketIds, Run
from edge.mqtt._permission cimport Permission

cdef enum:                       # first byte of a packet, type in the upper four bits
    CONNECT = 0x10
    PUBLISH = 0x30
    PUBACK = 0x40
    PUBREC = 0x50
    PUBREL = 0x62
    PUBCOMP = 0x70
    PINGREQ = 0xc0
    PINGRESP = 0xd0

cdef enum:                       # why take() stopped
    STOP_MORE = 0                # no complete packet is left
    STOP_OTHER = 1               # a complete packet that is the caller's begins at `consumed`
    STOP_FULL = 2                # the intake or its topic table has no room: the packet stays where it is
    STOP_FAULT = 3               # the packet at `consumed` breaks the protocol: `fault`
    STOP_LARGE = 4               # client role: the packet at `consumed` is larger than the limit; its header is complete

cdef enum:                       # what a packet breaks; texts and sections in _mqtt.pyx, FAULTS
    FAULT_GREETING = 1
    FAULT_FLAGS
    FAULT_TYPE
    FAULT_LENGTH
    FAULT_QOS
    FAULT_DUP
    FAULT_SHORT
    FAULT_TOPIC_EMPTY
    FAULT_WILDCARD
    FAULT_TEXT
    FAULT_PACKET_ID
    FAULT_PROPERTY
    FAULT_PROPERTY_TWICE
    FAULT_ALIAS
    FAULT_SUBSCRIPTION_ID
    FAULT_LARGE
    FAULT_INFLIGHT
    FAULT_DENIED
    FAULT_MEMORY

cdef struct Frame:
    uint8_t first
    uint32_t header              # bytes of the fixed header
    uint32_t size                # bytes of the whole packet; 0 while its length is not complete

cdef struct Publish:
    const uint8_t *topic
    uint32_t topic_size
    const uint8_t *payload
    uint32_t payload_size
    uint16_t packet_id           # 0 at QoS 0
    uint8_t flags                # QoS | RETAIN | DUP, as in RawEvent

cdef struct Taken:
    size_t consumed              # bytes of whole packets dealt with
    uint32_t events              # put into the intake
    int fault

# 0: the packet at p is complete; -1: bytes are missing; else a fault.
cdef int frame(const uint8_t *p, size_t n, Frame *out) noexcept nogil
# p holds the whole packet. 0, or a fault.
cdef int read_publish(const uint8_t *p, const Frame *f, bint v5, bint from_client, Publish *out) noexcept nogil

cdef class Flow:
    """What the receiver of one connection's PUBLISH packets keeps."""
    cdef readonly bint server            # the peer is a client
    cdef public bint open                # server role: CONNECT was accepted; before, every packet is the caller's
    cdef public bint v5
    cdef public uint32_t packet_bytes_max
    cdef uint32_t inflight_max
    cdef readonly Run acks               # PUBACK and PUBREC, to be sent once the events are durable
    cdef uint32_t acks_owed              # packets in acks
    cdef readonly Run answers            # PUBCOMP and PINGRESP, to be sent at once
    cdef public PacketIds received
    cdef readonly uint64_t published     # events put into the intake
    cdef readonly uint64_t unasked       # messages at QoS 0, those refused too; one more for each KiB
    cdef readonly uint64_t repeated      # QoS 2 messages sent again and not stored twice
    cdef public Permission permission    # server role: what the client may publish on; None: all but forbidden topics
    cdef readonly uint64_t denied        # events refused
    cdef uint8_t denied_topic[128]       # the last of them, its first bytes
    cdef uint32_t denied_size
    cdef int take(self, const uint8_t *p, size_t n, Intake intake, Taken *out) noexcept nogil
    cdef int refuse(self, Taken *out, int fault) noexcept nogil
    cdef int deal(self, const uint8_t *p, const Frame *f, Intake intake, Taken *out) noexcept nogil
    cdef int deal_publish(self, const uint8_t *p, const Frame *f, Intake intake, Taken *out) noexcept nogil
    cdef int deny(self, const Publish *publish, Taken *out) noexcept nogil
    cdef int deal_release(self, const uint8_t *p, const Frame *f, Taken *out) noexcept nogil
