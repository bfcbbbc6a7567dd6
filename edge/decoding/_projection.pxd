# cython: language_level=3
"""What a contract wants of a payload, as a trie of paths over C memory, and the columns it goes to. See _projection.pyx."""
from libc.stdint cimport int32_t, uint8_t, uint32_t

from edge.columns._batch cimport Batch
from edge.decoding._number cimport Value

cdef enum:
    NONE = 0xffffffff

cdef enum Mask:
    WHOLE = 0
    DROP = 1
    HASH = 2
    TRUNCATE = 3

cdef struct Target:              # a field of the contract; its column has the same position
    uint8_t kind
    bint required
    int32_t power                # time: the unit is 10^power nanoseconds; -1 RFC 3339
    bint topic
    int32_t level                # of the topic; -1 the whole
    uint32_t next                # another field of the same path, or NONE
    uint8_t mask                 # see Mask
    uint32_t kept                # characters or decimals, of truncate
    uint8_t status               # in the event at hand
    uint8_t found                # the value's kind, for WRONG_TYPE

cdef struct Child:               # a member's name, or an element's index
    const uint8_t *name
    uint32_t size
    uint32_t quick               # size if the name stands in JSON as it is, else NONE
    uint32_t index
    uint32_t node

cdef struct Node:                # nodes stand in depth-first order: those below a node are node + 1 .. last
    uint32_t target              # first field that takes the value here, or NONE
    uint32_t last
    uint32_t members             # children by name: position of the first, their number, and the one expected next
    uint32_t members_n
    uint32_t guess
    uint32_t elements            # children by index, ascending
    uint32_t elements_n
    uint32_t seen                # the event that was last here

cdef class Projection:
    cdef readonly object contract
    cdef Target *targets
    cdef uint32_t targets_n
    cdef Child *children
    cdef Node *nodes
    cdef uint32_t nodes_n
    cdef object hasher           # of masks: keyed, without data
    cdef list names              # keeps the children's names alive
    cdef Batch out
    cdef uint32_t row
    cdef uint32_t event
    cdef bint reads_topic
    cdef uint8_t *scratch
    cdef uint32_t scratch_size

    cdef void begin(self) noexcept nogil
    cdef void visit(self, uint32_t node) noexcept nogil
    cdef int room(self, uint32_t size) except -1 nogil
    cdef uint32_t find(self, Node *node, const uint8_t *name, uint32_t size, bint escaped) except? 0xfffffffe nogil
    cdef int take(self, uint32_t target, Value *v) except -1 nogil
    cdef int put(self, Target *t, uint32_t column, Value *v) except -1 nogil
    cdef int put_time(self, Target *t, uint32_t column, Value *v) except -1 nogil
    cdef int put_string(self, Target *t, uint32_t column, Value *v) except -1 nogil
    cdef int put_text(self, Target *t, uint32_t column, const uint8_t *text, uint32_t size) except -1 nogil
    cdef int take_text(self, uint32_t target, const uint8_t *text, uint32_t size) except -1 nogil
    cdef uint32_t finish(self) noexcept nogil
