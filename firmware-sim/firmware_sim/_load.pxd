"""Load: W1 PUBLISH packets, whole and pre-encoded, patched in place, over a few connections. All without the GIL."""
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    PACKET_MAX = 320
    LINKS_MAX = 64
    IN_MAX = 65536
    OUT_MAX = 1 << 18            # bytes a connection may hold back; then it takes no more events
    OUT_CAPACITY = OUT_MAX + PACKET_MAX
    BURST_MAX = 2000             # events between two looks at the sockets
    BUCKETS = 64 * 64            # latency histogram: 64 steps an octave

cdef struct Template:            # a device's packet; the numbers are offsets of what is patched
    uint8_t bytes[PACKET_MAX]
    int32_t size, packet_id, ts, temp, hum, seq, pres, bat
    int32_t temp_now, hum_now, pres_now      # 1/100 degree, 1/10 %, 1/10 hPa

cdef struct Link:                # a connection
    int fd                       # -1: lost
    uint16_t packet_id
    uint32_t inflight
    uint8_t *out
    uint32_t out_at, out_size    # what is unsent is out[out_at:out_size]
    uint8_t *inp
    uint32_t in_size
    uint64_t *made_ns            # by packet id, when the event was made

cdef class Load:
    cdef Link *links
    cdef Template *templates
    cdef readonly int n_links, n_devices, qos, lost
    cdef readonly uint32_t window
    cdef readonly uint64_t first_seq, sent, acknowledged, over_30, stalls, refused
    cdef readonly uint64_t stamped   # stamps[0:stamped] are set
    cdef uint64_t random, started_ns, latest_ns
    cdef uint64_t *stamps
    cdef uint64_t stamps_capacity
    cdef uint64_t histogram[BUCKETS]
    cdef int next_link
    cdef bint measure

    cdef _set_template(self, Template *t, tuple packet_and_offsets)
    cdef int pick(self) noexcept nogil
    cdef void emit(self, Link *link, uint64_t now_ns, uint64_t wall_ms) noexcept nogil
    cdef void flush(self, Link *link) noexcept nogil
    cdef void receive(self, Link *link) noexcept nogil
    cdef void lose(self, Link *link) noexcept nogil
    cdef void wait(self, int timeout_ms) noexcept nogil
    cdef void play(self, double rate, uint64_t total, uint64_t until_ns) noexcept nogil
