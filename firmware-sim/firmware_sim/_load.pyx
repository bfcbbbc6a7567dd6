# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Load: offers W1 events at a rate or flat out over a few connections, from one thread, without the GIL.

Bounds and what happens at them: a connection with OUT_MAX unsent bytes, or `window` unacknowledged events, takes no more;
with none left that does, no event is made (a stall). Stamps stop at their capacity.
"""
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memmove
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, timespec

cdef extern from "<sys/socket.h>" nogil:
    ssize_t send(int fd, const void *buffer, size_t size, int flags)
    ssize_t recv(int fd, void *buffer, size_t size, int flags)
    enum: MSG_NOSIGNAL

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *fds, unsigned long n, int timeout_ms)
    enum: POLLIN, POLLOUT


cdef uint64_t clock_ns(int which) noexcept nogil:
    cdef timespec t
    clock_gettime(which, &t)
    return <uint64_t>t.tv_sec * 1000000000ULL + <uint64_t>t.tv_nsec


cdef inline void digits(uint8_t *p, uint64_t value, int n) noexcept nogil:
    while n:
        n -= 1
        p[n] = 48 + <uint8_t>(value % 10)
        value //= 10


cdef inline int32_t clamp(int32_t value, int32_t low, int32_t high) noexcept nogil:
    return low if value < low else high if value > high else value


cdef inline int bucket(uint64_t ns) noexcept nogil:
    """Histogram place: exact below 64 ns, then 64 steps an octave."""
    cdef int shift = 0
    while ns >> shift >= 128:
        shift += 1
    if ns < 64:
        return <int>ns
    return <int>((shift + 1) * 64 + ((ns >> shift) & 63))


cdef uint64_t bucket_ns(int place) noexcept:
    """The middle of a bucket."""
    if place < 64:
        return place
    cdef int shift = place // 64 - 1
    return ((64 + <uint64_t>(place % 64)) << shift) + ((<uint64_t>1 << shift) >> 1)


cdef class Load:
    """Runs over connected, non-blocking sockets on which CONNACK has been read.

    packets: one a device, as (PUBLISH bytes, offsets of packet id, ts, temp, hum, seq, pres, bat). Raises MemoryError, ValueError.
    """

    def __cinit__(self, list descriptors, list packets, *, int qos, uint32_t window, uint64_t first_seq, uint64_t seed,
                  uint64_t stamps_max=0, bint measure=False):
        cdef int i
        self.n_links, self.n_devices = len(descriptors), len(packets)
        if not 1 <= self.n_links <= LINKS_MAX or self.n_devices < 1:
            raise ValueError(f"{self.n_links} connections and {self.n_devices} devices; 1 to {LINKS_MAX} and at least 1")
        self.links = <Link *>calloc(self.n_links, sizeof(Link))
        self.templates = <Template *>calloc(self.n_devices, sizeof(Template))
        if self.links == NULL or self.templates == NULL:
            raise MemoryError("load")
        self.qos, self.window, self.first_seq, self.measure = qos, window, first_seq, measure
        self.random = seed * 2654435761ULL ^ 88172645463325252ULL
        for i in range(self.n_links):
            self.links[i].fd = descriptors[i]
            self.links[i].packet_id = 1
            self.links[i].out = <uint8_t *>malloc(OUT_CAPACITY)
            self.links[i].inp = <uint8_t *>malloc(IN_MAX)
            self.links[i].made_ns = <uint64_t *>calloc(65536, 8)
            if self.links[i].out == NULL or self.links[i].inp == NULL or self.links[i].made_ns == NULL:
                raise MemoryError("connection buffers")
        for i in range(self.n_devices):
            self._set_template(&self.templates[i], packets[i])
        if stamps_max:
            self.stamps = <uint64_t *>malloc(stamps_max * 8)
            if self.stamps == NULL:
                raise MemoryError("stamps")
            self.stamps_capacity = stamps_max

    def __dealloc__(self):
        cdef int i
        if self.links != NULL:
            for i in range(self.n_links):
                free(self.links[i].out)
                free(self.links[i].inp)
                free(self.links[i].made_ns)
        free(self.links)
        free(self.templates)
        free(self.stamps)

    cdef _set_template(self, Template *t, tuple packet_and_offsets):
        cdef bytes packet = packet_and_offsets[0]
        if len(packet) > PACKET_MAX:
            raise ValueError(f"packet of {len(packet)} bytes; at most {PACKET_MAX}")
        memcpy(t.bytes, <const char *>packet, len(packet))
        t.size = len(packet)
        t.packet_id, t.ts, t.temp, t.hum, t.seq, t.pres, t.bat = packet_and_offsets[1:]
        t.temp_now, t.hum_now, t.pres_now = 1800 + draw(&self.random) % 1000, 350 + draw(&self.random) % 200, 10132

    def start(self):
        """The clock of the paced run begins now."""
        self.started_ns = clock_ns(CLOCK_MONOTONIC)

    def turn(self, double rate, uint64_t total, double slice_s) -> bool:
        """Go on for slice_s seconds, or until `total` events are made since start(); rate 0 is flat out.

        False when there is nothing left to do: all are made, or all connections are lost.
        """
        cdef uint64_t until = clock_ns(CLOCK_MONOTONIC) + <uint64_t>(slice_s * 1e9)
        with nogil:
            self.play(rate, total, until)
        return self.sent < total and self.lost < self.n_links

    def drain(self, double slice_s) -> bool:
        """Send what is buffered and read acknowledgements for slice_s seconds; False when nothing is outstanding."""
        cdef uint64_t until = clock_ns(CLOCK_MONOTONIC) + <uint64_t>(slice_s * 1e9)
        cdef bint open_ = self.outstanding()
        while open_ and clock_ns(CLOCK_MONOTONIC) < until:
            with nogil:
                self.wait(5)
            open_ = self.outstanding()
        return open_

    def outstanding(self) -> bool:
        """Bytes are unsent or events unacknowledged, on connections that are up."""
        cdef int i
        for i in range(self.n_links):
            if self.links[i].fd >= 0 and (self.links[i].inflight or self.links[i].out_at < self.links[i].out_size):
                return True
        return False

    @property
    def sent_s(self) -> float:
        """Seconds from start() to the last event."""
        return (self.latest_ns - self.started_ns) * 1e-9 if self.sent else 0.0

    def stamp_bytes(self) -> bytes:
        """u64 first_seq, u64 n, n x u64 CLOCK_MONOTONIC ns: when each event was made."""
        cdef uint64_t head[2]
        head[0], head[1] = self.first_seq, self.stamped
        return (<const char *>head)[:16] + ((<const char *>self.stamps)[:self.stamped * 8] if self.stamped else b"")

    def latency_ns(self, double part):
        """The time that this part of the acknowledgements did not exceed, to 1 %; None without any."""
        cdef uint64_t seen = 0, total = 0
        cdef int i
        for i in range(BUCKETS):
            total += self.histogram[i]
        for i in range(BUCKETS):
            seen += self.histogram[i]
            if seen and seen >= part * total:
                return bucket_ns(i)
        return None

    cdef void play(self, double rate, uint64_t total, uint64_t until_ns) noexcept nogil:
        cdef uint64_t now = clock_ns(CLOCK_MONOTONIC), due, wall_ms
        cdef int burst, link, i
        while now < until_ns and self.sent < total and self.lost < self.n_links:
            due = total if rate <= 0 else <uint64_t>(<double>(now - self.started_ns) * 1e-9 * rate) + 1
            if due > total:
                due = total
            wall_ms = clock_ns(CLOCK_REALTIME) // 1000000
            burst, link = 0, 0
            while self.sent < due and burst < BURST_MAX:
                link = self.pick()
                if link < 0:
                    self.stalls += 1
                    break
                self.emit(&self.links[link], now, wall_ms)
                burst += 1
            for i in range(self.n_links):
                self.flush(&self.links[i])
            self.wait(0 if self.sent < due and link >= 0 else 1)
            now = clock_ns(CLOCK_MONOTONIC)

    cdef int pick(self) noexcept nogil:
        """The next connection with room, or -1."""
        cdef int k
        cdef Link *link
        for k in range(self.n_links):
            self.next_link += 1
            if self.next_link >= self.n_links:
                self.next_link = 0
            link = &self.links[self.next_link]
            if link.fd >= 0 and link.out_size < OUT_MAX and (self.qos == 0 or link.inflight < self.window):
                return self.next_link
        return -1

    cdef void emit(self, Link *link, uint64_t now_ns, uint64_t wall_ms) noexcept nogil:
        cdef Template *t = &self.templates[self.sent % <uint64_t>self.n_devices]
        cdef uint8_t *b = t.bytes
        cdef uint64_t seq = self.first_seq + self.sent
        cdef uint32_t r = draw(&self.random), temp
        t.temp_now = clamp(t.temp_now + <int32_t>(r % 21) - 10, 1500, 2950)
        t.hum_now = clamp(t.hum_now + <int32_t>((r >> 8) % 5) - 2, 200, 900)
        t.pres_now = clamp(t.pres_now + <int32_t>((r >> 16) % 3) - 1, 10000, 10300)
        temp = t.temp_now
        r = draw(&self.random)
        if r % 10 == 0:
            temp = 3001 + (r >> 8) % 998
            self.over_30 += 1
        digits(b + t.ts, wall_ms, 13)
        digits(b + t.temp, temp // 100, 2)
        digits(b + t.temp + 3, temp % 100, 2)
        digits(b + t.hum, t.hum_now // 10, 2)
        digits(b + t.hum + 3, t.hum_now % 10, 1)
        digits(b + t.seq, seq, 8)
        digits(b + t.pres, t.pres_now // 10, 4)
        digits(b + t.pres + 5, t.pres_now % 10, 1)
        digits(b + t.bat + 2, 60 + seq // 100000 % 40, 2)
        if self.qos:
            b[t.packet_id], b[t.packet_id + 1] = link.packet_id >> 8, link.packet_id & 255
            if self.measure:
                link.made_ns[link.packet_id] = now_ns
            link.packet_id = link.packet_id + 1 if link.packet_id < 65535 else 1
            link.inflight += 1
        if self.sent < self.stamps_capacity:
            self.stamps[self.sent] = now_ns
            self.stamped = self.sent + 1
        memcpy(link.out + link.out_size, b, t.size)
        link.out_size += t.size
        self.sent += 1
        self.latest_ns = now_ns

    cdef void flush(self, Link *link) noexcept nogil:
        cdef ssize_t n
        while link.fd >= 0 and link.out_at < link.out_size:
            n = send(link.fd, link.out + link.out_at, link.out_size - link.out_at, MSG_NOSIGNAL)
            if n < 0 and errno == EINTR:
                continue
            if n <= 0:
                if n == 0 or errno != EAGAIN:
                    self.lose(link)
                break
            link.out_at += <uint32_t>n
        if link.out_at:
            memmove(link.out, link.out + link.out_at, link.out_size - link.out_at)
            link.out_size -= link.out_at
            link.out_at = 0

    cdef void receive(self, Link *link) noexcept nogil:
        """Read and count acknowledgements; other packets are passed over."""
        cdef ssize_t n = recv(link.fd, link.inp + link.in_size, IN_MAX - link.in_size, 0)
        cdef uint32_t at = 0, i, size, shift
        cdef uint64_t now
        cdef uint8_t *p = link.inp
        if n <= 0:
            if n == 0 or (errno != EAGAIN and errno != EINTR):
                self.lose(link)
            return
        link.in_size += <uint32_t>n
        now = clock_ns(CLOCK_MONOTONIC) if self.measure else 0
        while link.in_size - at >= 2:
            size, shift, i = 0, 0, at + 1
            while i < link.in_size and shift < 28:
                size |= <uint32_t>(p[i] & 127) << shift
                shift += 7
                i += 1
                if p[i - 1] < 128:
                    break
            if size >= IN_MAX - 5:
                self.lose(link)              # not what a broker sends to a publisher
                return
            if p[i - 1] >= 128 or link.in_size - i < size:
                break
            if p[at] >> 4 == 4 and size >= 2 and link.inflight:
                link.inflight -= 1
                if size > 2 and p[i + 2] >= 0x80:
                    self.refused += 1
                else:
                    self.acknowledged += 1
                    if self.measure:
                        self.histogram[bucket(now - link.made_ns[<uint32_t>p[i] << 8 | p[i + 1]])] += 1
            at = i + size
        memmove(p, p + at, link.in_size - at)
        link.in_size -= at

    cdef void lose(self, Link *link) noexcept nogil:
        """The owner closes the descriptor; here the connection just ends."""
        link.fd = -1
        link.out_at = link.out_size = 0
        self.lost += 1

    cdef void wait(self, int timeout_ms) noexcept nogil:
        cdef pollfd fds[LINKS_MAX]
        cdef int i, ready
        for i in range(self.n_links):
            fds[i].fd = self.links[i].fd
            fds[i].events = POLLIN | (POLLOUT if self.links[i].out_at < self.links[i].out_size else 0)
            fds[i].revents = 0
        ready = poll(fds, self.n_links, timeout_ms)
        if ready <= 0:
            return
        for i in range(self.n_links):
            if fds[i].revents and self.links[i].fd >= 0:
                self.flush(&self.links[i])
                if self.links[i].fd >= 0:
                    self.receive(&self.links[i])


cdef inline uint32_t draw(uint64_t *state) noexcept nogil:
    state[0] ^= state[0] << 13
    state[0] ^= state[0] >> 7
    state[0] ^= state[0] << 17
    return <uint32_t>(state[0] >> 16)
