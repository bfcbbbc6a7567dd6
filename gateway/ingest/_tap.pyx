# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Tap: the socket that paho-mqtt gets. It takes PUBLISH and PUBREL for itself and shows paho every other byte.

    socket -> fill() -> PUBLISH  -> intake       PUBACK and PUBREC wait for acknowledge()
                     -> PUBREL                   PUBCOMP goes back at once
                     -> all else -> recv() of paho

paho keeps CONNECT, SUBSCRIBE and keep-alive. QoS 2 is not left to paho, which sends PUBREC before the message is durable. Only the reactor's thread may touch a tap. A tap lives as long as its
connection: packet ids of a lost connection go with it, and the broker sends their messages again.

Bounds: the receive buffer is two packets of the limit (256 KiB at least). A packet above the limit is never stored: a
PUBLISH is acknowledged, counted in `skipped` and thrown away, or the broker would send it again for ever; another packet of
that size is a fault.
"""
from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memmove
from edge.mqtt._intake cimport Intake
from edge.mqtt._mqtt cimport (FAULT_LARGE, FAULT_MEMORY, FAULT_PACKET_ID, Flow, Frame, PUBACK, PUBREC, STOP_FAULT, STOP_FULL,
                         STOP_LARGE, STOP_MORE, STOP_OTHER, Taken, frame)
from edge.mqtt._mqtt_session cimport PacketIds, Run
import os
from gateway import secure as ssl

cdef extern from "<sys/socket.h>" nogil:
    ssize_t c_recv "recv"(int fd, void *buffer, size_t size, int flags)
    int MSG_DONTWAIT

cdef enum:
    NOBODY, PAHO, OURS
    CONNACK = 0x20


cdef class Tap:

    def __cinit__(self, sock, Intake intake not None, PacketIds received not None, *, bint v5, uint32_t packet_bytes_max):
        self.sock = sock
        self.fd = sock.fileno()
        self.tls = isinstance(sock, ssl.SSLSocket)
        self.intake = intake
        packet_bytes_max = min(packet_bytes_max, intake.bytes_max)
        self.flow = Flow(server=False, v5=v5, packet_bytes_max=packet_bytes_max)
        self.flow.received = received    # of the session: it outlives a connection
        self.control = Run()
        self.capacity = max(2 * packet_bytes_max, 1 << 18)
        self.data = <uint8_t *>malloc(self.capacity)
        if self.data == NULL:
            raise MemoryError("receive buffer")

    def __dealloc__(self):
        free(self.data)

    # receiving

    cdef ssize_t read(self, uint8_t *p, size_t n) except -2:
        """Bytes received, 0 at the end, -1: nothing there. OSError."""
        cdef ssize_t got
        cdef int e
        if not self.tls:
            with nogil:
                got = c_recv(self.fd, p, n, MSG_DONTWAIT)
                e = errno
            if got < 0 and e != EAGAIN and e != EINTR:
                raise OSError(e, os.strerror(e))
            return got
        cdef size_t filled = 0, part
        while filled < n:
            try:
                part = self.sock.recv_into(PyMemoryView_FromMemory(<char *>p + filled, n - filled, PyBUF_WRITE))
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return filled if filled else -1
            if part == 0:
                break
            filled += part
        return filled

    def fill(self):
        """Receive once and take what is there. The events put into the intake. OSError; look at `fault` and `ended` after it.

        With a full intake nothing is received: the bytes stay in the kernel, and the broker waits.
        """
        cdef uint64_t before = self.flow.published
        cdef ssize_t got = -1
        self.more = False
        with nogil:
            self.deal()
        if not self.full and not self.fault and not self.ended:
            if self.start:
                memmove(self.data, self.data + self.start, self.end - self.start)
                self.end -= self.start
                self.start = 0
            got = self.read(self.data + self.end, self.capacity - self.end)
            if got > 0:
                self.bytes_received += got
                self.end += <uint32_t>got
                self.more = self.end == self.capacity
                with nogil:
                    self.deal()
            self.ended = got == 0
        return self.flow.published - before

    cdef int deal(self) except -1 nogil:
        """Go through the received bytes; 0."""
        cdef Taken taken
        cdef Frame f
        cdef uint32_t n
        cdef int stop = STOP_MORE
        self.full = False
        while self.start < self.end and self.fault == 0:
            n = self.end - self.start
            if self.pass_left or self.skip_left:
                n = <uint32_t>min(<uint64_t>n, self.pass_left + self.skip_left)
                if self.pass_left:
                    if not self.control.append(self.data + self.start, n):
                        self.fault = FAULT_MEMORY
                        break
                    self.pass_left -= n
                else:
                    self.skip_left -= n
                self.start += n
                continue
            stop = self.flow.take(self.data + self.start, n, self.intake, &taken)
            self.start += <uint32_t>taken.consumed
            if stop == STOP_OTHER:
                frame(self.data + self.start, self.end - self.start, &f)
                self.pass_left = f.size
                if f.first == CONNACK and f.size > f.header and not self.data[self.start + f.header] & 1:
                    self.flow.received.clear()       # a new session: its packet ids mean other messages
            elif stop == STOP_LARGE:
                if not self.skip(self.data + self.start):
                    break
            else:
                self.full = stop == STOP_FULL
                if stop == STOP_FAULT:
                    self.fault = taken.fault
                break
        if self.start == self.end:
            self.start = self.end = 0
        return 0

    cdef int skip(self, const uint8_t *p) noexcept nogil:
        """A packet above the limit begins at p. Acknowledge a PUBLISH, and let its bytes go. 0: wait for more bytes."""
        cdef Frame f
        cdef uint32_t n = self.end - self.start, topic_size
        cdef uint16_t packet_id
        cdef uint8_t qos
        frame(p, n, &f)
        if f.first & 0xf0 != 0x30:
            self.fault = FAULT_LARGE
            return 0
        qos = f.first >> 1 & 3
        if qos:
            if n < f.header + 2:
                return 0
            topic_size = <uint32_t>p[f.header] << 8 | p[f.header + 1]
            if n < f.header + topic_size + 4:
                return 0
            packet_id = <uint16_t>(p[f.header + 2 + topic_size] << 8 | p[f.header + 3 + topic_size])
            if qos == 3 or packet_id == 0:
                self.fault = FAULT_PACKET_ID
                return 0
            if not self.flow.answers.add(PUBACK if qos == 1 else PUBREC, packet_id):
                self.fault = FAULT_MEMORY
                return 0
        self.skipped += 1
        self.skip_left = f.size
        return 1

    @property
    def for_paho(self):
        """Whether recv() has something: bytes, or the end."""
        return self.control.end > self.control.start or self.ended

    # acknowledging

    @property
    def owes(self):
        """Whether what was received is to be acknowledged when it is durable."""
        return self.flow.acks.end > 0

    @property
    def waiting(self):
        """Bytes of acknowledgements that the socket has not taken yet."""
        return self.flow.answers.end - self.flow.answers.start

    def acknowledge(self):
        """The events are durable: send their PUBACKs, in one send if the socket takes it. OSError."""
        if self.flow.acks.end:
            if not self.flow.answers.append(self.flow.acks.data, self.flow.acks.end):
                raise OSError("out of memory for acknowledgements")
            self.flow.acks.sent(self.flow.acks.end)
        self.flush()

    def flush(self):
        """Send what need not wait. OSError."""
        cdef Run run = self.flow.answers
        while run.start < run.end and self.owner != PAHO:
            self.owner = OURS
            try:
                run.sent(self.sock.send(PyMemoryView_FromMemory(<char *>run.data + run.start, run.end - run.start, PyBUF_READ)))
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                # A plain socket may be left between two packets; TLS must be offered the same bytes again.
                break
        if run.start == run.end and self.owner == OURS:
            self.owner = NOBODY

    # what paho asks of a socket

    def recv(self, size_t n):
        """Up to n bytes that are paho's; never reads from the network."""
        cdef Run run = self.control
        cdef size_t m = min(n, <size_t>(run.end - run.start))
        if m == 0:
            if self.ended:
                return b""
            raise BlockingIOError("no control packet")
        data = (<char *>run.data)[run.start:run.start + m]
        run.sent(<uint32_t>m)
        return data

    def send(self, data):
        """A packet of paho, or a part; it waits while acknowledgements are half sent."""
        if self.owner == OURS:
            raise BlockingIOError("acknowledgements are being sent")
        self.owner = PAHO
        sent = self.sock.send(data)
        if sent == len(data):
            self.owner = NOBODY
        return sent

    def fileno(self):
        """The socket's descriptor."""
        return self.sock.fileno()

    def setblocking(self, flag):
        """As of a socket."""
        self.sock.setblocking(flag)

    def close(self):
        """Close the socket."""
        self.sock.close()
