# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Requests of the daemon to the worker that runs the rules (gateway/isolation/worker.py), and its answers: one at a time, through one shared memory.

    asker: Head and payload into the memory -> a byte through the socket -> answerer: Head and payload into the memory -> a byte back

The memory is a sealed memfd of ROOM bytes, of which pages exist as far as they were used; neither side can shrink it under the other's feet. The
batch goes through it as Inputs lays it out, the answer comes as Result.write() writes it: both are copied once on each side.

The worker's side is not believed: native code there may write the memory at any moment. The Head of an answer is copied once and then
looked at; its payload is copied once into memory of the daemon's own, and only the copy is parsed, by Answers.read, Plan.read and
msgpack, which check every length, code and offset.
"""
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset
from cpython.bytes cimport PyBytes_FromStringAndSize

from edge.columns._batch cimport Batch
from edge.host._inputs cimport Inputs
from edge.host._result cimport IMAGE, Answers, Result
from edge.host.plan import Wrong

cdef extern from *:
    """
    #include <stdatomic.h>
    #include <sys/mman.h>
    #include <sys/socket.h>
    #include <time.h>
    static int64_t tg_time(clockid_t clock) {
        struct timespec t;
        return clock_gettime(clock, &t) ? -1 : (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
    }
    static void tg_fence(void) { atomic_thread_fence(memory_order_seq_cst); }
    """
    enum:
        PROT_READ
        PROT_WRITE
        MAP_SHARED
        MADV_REMOVE
        MSG_NOSIGNAL
        CLOCK_MONOTONIC
    void *MAP_FAILED
    void *mmap(void *at, size_t size, int protection, int flags, int fd, long offset) nogil
    int munmap(void *at, size_t size) nogil
    int madvise(void *at, size_t size, int advice) nogil
    ssize_t send(int fd, const void *data, size_t size, int flags) nogil
    ssize_t recv(int fd, void *data, size_t size, int flags) nogil
    int clock_getcpuclockid(int pid, int *clock) nogil
    int64_t tg_time(int clock) noexcept nogil
    void tg_fence() noexcept nogil

cdef enum:
    KEPT = 1 << 20                           # bytes of the memory that stay when they are not used
    NOBODY = 100
    LATE = 101

# kinds of requests
LOAD, DROP, MAKE, OPEN, BIND, RESERVE, PROCESS, SNAPSHOT, RESTORE, SAVED, TAKE_OVER = range(1, 12)
RUNNING = frozenset({MAKE, OPEN, RESERVE, PROCESS, SAVED, TAKE_OVER})        # these run code of the module
# kinds of answers, and what may be in the place of one
DONE, REFUSED, UNLOADABLE = 1, 2, 3
GONE, OVERDUE = NOBODY, LATE                   # the worker is dead; it does not answer in time

ROOM = (1 << 30) + (1 << 24)                 # the largest memory that a rule may have, and then some


cdef class Channel:
    """One end. memory: descriptor of the memfd, which may be closed then; socket: of the socket, which stays the caller's."""

    def __cinit__(self, int memory, int socket, *rest):
        cdef void *at = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0)
        if at == MAP_FAILED:
            raise OSError(errno, "no addresses for the memory that is shared with the worker of rules")
        self.memory, self.size, self.fd = <uint8_t *>at, ROOM, socket

    def __dealloc__(self):
        if self.memory != NULL:
            munmap(self.memory, self.size)

    @property
    def kind(self):
        return self.head.kind

    @property
    def number(self):
        return self.head.number

    @property
    def serial(self):
        return self.head.serial

    @property
    def a(self):
        return self.head.a

    def payload(self, uint64_t most=ROOM) -> bytes:
        """A copy of what came with the Head. Raises Wrong when it is more than it may be."""
        if self.head.size > most or self.head.size > self.size - PAYLOAD:
            raise Wrong(f"{self.head.size} bytes, where {most} may be")
        return PyBytes_FromStringAndSize(<char *>self.memory + PAYLOAD, self.head.size)

    cdef int _put(self, parts, uint64_t *size) except -1:
        """Write bytes-like objects one behind the other."""
        cdef const uint8_t[::1] part
        cdef uint64_t at = PAYLOAD
        for data in parts:
            if len(data) > self.size - at:
                raise MemoryError(f"{len(data)} bytes are too much for the memory that is shared with the worker of rules")
            if len(data):
                part = data
                memcpy(self.memory + at, &part[0], len(data))
                at += len(data)
        size[0] = at - PAYLOAD
        return 0


cdef class Asker(Channel):
    """The daemon's end. pid: of the worker. After an answer `kind`, `a`, `payload()` are of it, and so are these:

    begun: when there was none, whether code of the module had been begun.
    """

    def __init__(self, int memory, int socket, int pid):
        if clock_getcpuclockid(pid, &self.clock):
            self.clock = -1

    def __dealloc__(self):
        free(self.copy)

    def close(self):
        """The worker is gone, and with it the socket."""
        self.fd = -1

    @property
    def dead(self) -> bool:
        return self.head.dead != 0

    @property
    def run_ns(self) -> int:
        return self.head.run_ns

    @property
    def memory_bytes(self) -> int:
        return self.head.memory_bytes

    @property
    def area(self) -> tuple[int, int]:
        return self.head.area, self.head.area_size

    @property
    def begun(self) -> bool:
        return (<uint32_t *>(self.memory + BEGUN))[0] == self.head.serial

    @property
    def cpu_ns(self) -> int:
        """CPU time of the worker so far."""
        return tg_time(self.clock)

    @property
    def took_ns(self) -> int:
        """From the request to the answer."""
        return self.took

    def wait(self, int64_t wall_ns) -> int:
        """For the first word of a new worker: an answer without a request."""
        cdef int kind
        with nogil:
            kind = self._recv(-1, wall_ns)
        return kind

    def ask(self, uint32_t kind, uint32_t number, parts, *, uint64_t a=0, int64_t cpu_ns=-1, int64_t wall_ns) -> int:
        """A request; returns the kind of the answer. cpu_ns: CPU time of the worker after which it counts as overdue, -1 for any."""
        cdef Head head
        memset(&head, 0, sizeof(head))
        head.kind, head.number, head.a = kind, number, a
        self._begin()
        try:
            self._put(parts, &head.size)
            return self._finish(&head, cpu_ns, wall_ns)
        finally:
            self.busy = False

    def process(self, uint32_t number, Inputs inputs, Batch batch, uint32_t area, uint64_t room, *, int64_t cpu_ns, int64_t wall_ns) -> int:
        """PROCESS for a batch, for an area of `room` bytes at `area` of the module's memory. 0, and nothing is asked: the area is too small.
        read() gives the Result of an answer DONE."""
        cdef Head head
        memset(&head, 0, sizeof(head))
        head.kind, head.number, head.size, head.a = PROCESS, number, inputs.lay_out(batch), batch.n
        if head.size > room or head.size > self.size - PAYLOAD:
            return 0
        self._begin()
        try:
            inputs.write(batch, self.memory + PAYLOAD, area)
            return self._finish(&head, cpu_ns, wall_ns)
        finally:
            self.busy = False

    def read(self, Answers answers, Batch batch) -> Result:
        """The Result for the batch that process() was given. Raises edge.host.plan.Wrong."""
        cdef Result result
        if self.head.size > answers.bytes_max + batch.n // 4 + 64 * <uint64_t>answers.n_outputs + 1024:
            raise Wrong(f"a result of {self.head.size} bytes, the limit of output is {answers.bytes_max}")
        if self.head.size:
            self._copy()
        result = answers.read(self.copy, self.head.size, IMAGE if self.head.size else 0, batch.n)
        result.stamp(batch)
        return result

    # --- inside

    cdef int _begin(self) except -1:
        if self.busy:
            raise RuntimeError("the worker of rules is in use by another thread")
        self.busy = True
        return 0

    cdef int _finish(self, Head *head, int64_t cpu_ns, int64_t wall_ns) except -1:
        cdef int kind
        head.serial = self.head.serial + 1
        memcpy(self.memory, head, sizeof(Head))
        self.head = head[0]
        if head.size > self.used:
            self.used = head.size
        kind = self._exchange(cpu_ns, wall_ns)
        if kind < NOBODY and self.head.serial != head.serial:
            kind = LATE                   # an answer to something else: it is not to be relied on
        self.head.serial = head.serial
        return kind

    cdef int _exchange(self, int64_t cpu_ns, int64_t wall_ns) except -1:
        cdef char byte = 1
        cdef int kind
        if self.used > KEPT:
            self._let_go()
        with nogil:
            self.took = tg_time(CLOCK_MONOTONIC)
            kind = NOBODY
            if send(self.fd, &byte, 1, MSG_NOSIGNAL) == 1:
                kind = self._recv(cpu_ns, wall_ns)
            self.took = tg_time(CLOCK_MONOTONIC) - self.took
        return kind

    cdef int _recv(self, int64_t cpu_ns, int64_t wall_ns) noexcept nogil:
        """The answer's Head. The socket wakes up now and then (SO_RCVTIMEO)."""
        cdef int64_t began = tg_time(CLOCK_MONOTONIC), used = -1
        cdef char byte
        cdef ssize_t n
        if cpu_ns >= 0 and self.clock != -1:
            used = tg_time(self.clock)
        while True:
            n = recv(self.fd, &byte, 1, 0)
            if n == 1:
                break
            if n == 0 or (errno != EAGAIN and errno != EINTR):
                return NOBODY
            if tg_time(CLOCK_MONOTONIC) - began > wall_ns or (used >= 0 and tg_time(self.clock) - used > cpu_ns):
                return LATE
        tg_fence()
        memcpy(&self.head, self.memory, sizeof(Head))
        tg_fence()
        if self.head.size > self.size - PAYLOAD or self.head.kind == 0 or self.head.kind >= NOBODY:
            return LATE
        if self.head.size > self.used:
            self.used = self.head.size
        return self.head.kind

    cdef int _copy(self) except -1:
        cdef uint8_t *grown
        if self.head.size > self.copy_room or (self.copy_room > KEPT and self.head.size <= KEPT):
            grown = <uint8_t *>realloc(self.copy, self.head.size)
            if grown == NULL:
                raise MemoryError(f"{self.head.size} bytes that a rule put out")
            self.copy, self.copy_room = grown, self.head.size
        memcpy(self.copy, self.memory + PAYLOAD, self.head.size)
        return 0

    cdef int _let_go(self) except -1:
        """Give pages back that a large message has used, behind the one that goes out now."""
        cdef uint64_t start = KEPT if self.head.size <= KEPT else (PAYLOAD + self.head.size + 65535) & ~<uint64_t>65535
        if self.used + PAYLOAD > start:
            madvise(self.memory + start, self.size - start, MADV_REMOVE)
            self.used = self.head.size
        return 0
