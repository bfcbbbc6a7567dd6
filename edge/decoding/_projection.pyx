# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Projection: a contract's paths as a trie, and its types as conversions into a batch's columns.

A decoder walks the payload and the trie together: visit() at each node that has nodes below, take() for each value that a field wants.
A node that is visited again in the same event (a member's name stands twice) forgets what it and those below had: the last wins.
"""
from hashlib import blake2b

from libc.math cimport fabs, pow, trunc
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp

from edge.columns._batch cimport BOOL, F64, STR, TIME
from edge.decoding._json cimport blank, is_utf8, scan_number, unescape
from edge.decoding._number cimport (ABSENT, BOOLEAN, LONE_SURROGATE, NOT_READABLE, NOT_UTF8, NULL_, STRING, TAKEN, TIMESTAMP,
                           WRONG_TYPE, Value, rfc3339_ns, to_double, to_i64, to_ns)

from edge.columns.schema import KINDS

MASKS = {None: WHOLE, "drop": DROP, "hash": HASH, "truncate": TRUNCATE}
HASH_BYTES = 8                       # 16 digits: two of a million texts are alike with a probability of 3e-8
POWERS = {"s": 9, "ms": 6, "us": 3, "ns": 0, "rfc3339": -1, None: 0}


cdef double cut(double d, uint32_t decimals) noexcept nogil:
    """Towards zero, to so many decimals."""
    cdef double scale = pow(10.0, decimals)
    return trunc(d * scale) / scale if decimals < 16 and fabs(d) < 1e15 / scale else d


cdef class Projection:
    """Compiled from an edge.decoding.contract.Contract."""

    def __cinit__(self, contract):
        cdef uint32_t i
        self.contract = contract
        self.targets_n = len(contract.fields)
        self.targets = <Target *>calloc(self.targets_n, sizeof(Target))
        tree, count = _tree(contract.fields)
        self.nodes = <Node *>calloc(count, sizeof(Node))
        self.children = <Child *>calloc(count, sizeof(Child))
        if self.targets == NULL or self.nodes == NULL or self.children == NULL:
            raise MemoryError("contract")
        for i, field in enumerate(contract.fields):
            self.targets[i].kind = KINDS[field.kind]
            self.targets[i].required = field.required
            self.targets[i].power = POWERS[field.time_format]
            self.targets[i].topic = field.topic
            self.targets[i].level = field.level
            self.targets[i].next = NONE
            self.targets[i].mask = MASKS[field.mask]
            self.targets[i].kept = field.kept
            self.reads_topic |= field.topic
        if contract.mask_key is not None:
            self.hasher = blake2b(key=contract.mask_key, digest_size=HASH_BYTES)
        self.names = []
        self._lay(tree, 0)

    def __dealloc__(self):
        free(self.targets)
        free(self.nodes)
        free(self.children)
        free(self.scratch)

    def _lay(self, tree, uint32_t first):
        """Write a node, its children from position `first` on, and all below; the next free child position."""
        cdef uint32_t at = self.nodes_n, position = first
        cdef Node *node = &self.nodes[at]
        cdef Child *child
        self.nodes_n += 1
        fields, members, elements = tree
        node.target = fields[0] if fields else NONE
        for a, b in zip(fields, fields[1:]):
            self.targets[<uint32_t>a].next = b
        node.members, node.members_n = first, len(members)
        node.elements, node.elements_n = first + node.members_n, len(elements)
        first += node.members_n + node.elements_n
        for step, below in [*members.items(), *sorted(elements.items())]:
            child = &self.children[position]
            position += 1
            if isinstance(step, int):
                child.index = step
            else:
                name = step.encode()
                self.names.append(name)
                child.name = name
                child.size = len(name)
                child.quick = NONE if any(c < 32 or c in b'"\\' for c in name) else child.size
            child.node = self.nodes_n
            first = self._lay(below, first)
        node.last = self.nodes_n - 1
        return first

    cdef int room(self, uint32_t size) except -1 nogil:
        """scratch has room for size bytes."""
        cdef void *p
        if size > self.scratch_size:
            p = realloc(self.scratch, size)
            if p == NULL:
                with gil:
                    raise MemoryError("a string of %d bytes" % size)
            self.scratch = <uint8_t *>p
            self.scratch_size = size
        return 0

    cdef void begin(self) noexcept nogil:
        """A new event."""
        cdef uint32_t i
        for i in range(self.targets_n):
            self.targets[i].status = ABSENT
        self.event += 1
        if self.event == 0:
            for i in range(self.nodes_n):
                self.nodes[i].seen = 0
            self.event = 1

    cdef void visit(self, uint32_t at) noexcept nogil:
        cdef Node *node = &self.nodes[at]
        cdef uint32_t i, t
        if node.seen == self.event:
            for i in range(at, node.last + 1):
                t = self.nodes[i].target
                while t != NONE:
                    self.targets[t].status = ABSENT
                    t = self.targets[t].next
        node.seen = self.event

    cdef uint32_t find(self, Node *node, const uint8_t *name, uint32_t size, bint escaped) except? 0xfffffffe nogil:
        """The child position of a member's name, or NONE."""
        cdef uint32_t i
        cdef bint lone
        cdef Child *child
        if escaped:
            self.room(size)
            size = unescape(name, size, self.scratch, &lone)
            name = self.scratch
        for i in range(node.members, node.members + node.members_n):
            child = &self.children[i]
            if child.size == size and memcmp(child.name, name, size) == 0:
                return i
        return NONE

    cdef int take(self, uint32_t target, Value *v) except -1 nogil:
        """The value goes to the field, and to those that share its path."""
        cdef Target *t
        while target != NONE:
            t = &self.targets[target]
            t.status = <uint8_t>self.put(t, target, v)
            t.found = v.kind
            target = t.next
        return 0

    cdef int put(self, Target *t, uint32_t column, Value *v) except -1 nogil:
        cdef double d
        cdef int64_t i
        cdef int status
        if v.kind == NULL_:
            return ABSENT
        if t.kind == F64:
            status = to_double(v, &d)
            if status == TAKEN:
                if t.mask == TRUNCATE:
                    d = cut(d, t.kept)
                (<double *>self.out.columns[column].values)[self.row] = d
            return status
        if t.kind == STR:
            return self.put_string(t, column, v)
        if t.kind == TIME:
            return self.put_time(t, column, v)
        if t.kind == BOOL:
            if v.kind != BOOLEAN:
                return WRONG_TYPE
            (<uint8_t *>self.out.columns[column].values)[self.row] = v.i != 0
            return TAKEN
        status = to_i64(v, &i)
        if status == TAKEN:
            (<int64_t *>self.out.columns[column].values)[self.row] = i
        return status

    cdef int put_time(self, Target *t, uint32_t column, Value *v) except -1 nogil:
        cdef int64_t *slot = &(<int64_t *>self.out.columns[column].values)[self.row]
        cdef bint lone
        cdef uint32_t size
        if v.kind == TIMESTAMP:
            slot[0] = v.i
            return TAKEN
        if t.power >= 0:
            return to_ns(v, t.power, slot)
        if v.kind != STRING:
            return WRONG_TYPE
        if v.escaped:
            self.room(v.size)
            size = unescape(v.text, v.size, self.scratch, &lone)
            return rfc3339_ns(self.scratch, size, slot)
        return rfc3339_ns(v.text, v.size, slot)

    cdef int put_string(self, Target *t, uint32_t column, Value *v) except -1 nogil:
        cdef bint lone
        cdef uint32_t size
        if v.kind != STRING:
            return WRONG_TYPE
        if v.escaped:
            self.room(v.size)
            size = unescape(v.text, v.size, self.scratch, &lone)
            if lone:
                return LONE_SURROGATE
            self.put_text(t, column, self.scratch, size)
        else:
            self.put_text(t, column, v.text, v.size)
        return TAKEN

    cdef int put_text(self, Target *t, uint32_t column, const uint8_t *text, uint32_t size) except -1 nogil:
        """A string's column takes it, masked: what a mask takes away never gets into the batch."""
        cdef uint32_t i = 0, left = t.kept
        if t.mask == DROP:
            return 0                             # finish() makes it null
        if t.mask == TRUNCATE:
            while i < size and (left or text[i] & 0xc0 == 0x80):
                left -= text[i] & 0xc0 != 0x80
                i += 1
            size = i
        elif t.mask == HASH:
            with gil:
                hasher = self.hasher.copy()
                hasher.update((<const char *>text)[:size])
                digest = hasher.hexdigest().encode()
                self.out.set_str(column, self.row, <const uint8_t *><char *>digest, 2 * HASH_BYTES)
            return 0
        self.out.set_str(column, self.row, text, size)
        return 0

    cdef int take_text(self, uint32_t target, const uint8_t *text, uint32_t size) except -1 nogil:
        """Bare text, from a raw payload or a topic: read as the field's type. Empty text is an absent value."""
        cdef Target *t = &self.targets[target]
        cdef const uint8_t *p = text
        cdef const uint8_t *end = text + size
        cdef Value v
        v.kind = STRING
        v.escaped = False
        if t.kind != STR:
            p = blank(p, end)
            while end > p and ((end - 1)[0] == 32 or (end - 1)[0] == 10 or (end - 1)[0] == 13 or (end - 1)[0] == 9):
                end -= 1
        if p == end:
            t.status = ABSENT
            return 0
        v.text = p
        v.size = <uint32_t>(end - p)
        if t.kind == STR:
            t.status = <uint8_t>(self.put(t, target, &v) if is_utf8(p, end) else NOT_UTF8)
            return 0
        if t.kind == BOOL:
            v.kind = BOOLEAN
            v.i = v.size == 4
            if not (v.size == 4 and memcmp(p, b"true", 4) == 0) and not (v.size == 5 and memcmp(p, b"false", 5) == 0):
                t.status = NOT_READABLE
                return 0
        elif not (t.kind == TIME and t.power < 0) and scan_number(p, end, &v) != end:
            t.status = NOT_READABLE
            return 0
        t.status = <uint8_t>self.put(t, target, &v)
        t.found = v.kind
        return 0

    cdef uint32_t finish(self) noexcept nogil:
        """Nulls for the optional fields that are absent; the first field that breaks the contract, or NONE."""
        cdef uint32_t i
        for i in range(self.targets_n):
            if self.targets[i].status != TAKEN and (self.targets[i].required or self.targets[i].status != ABSENT):
                return i
        for i in range(self.targets_n):
            if self.targets[i].status == ABSENT or self.targets[i].mask == DROP:
                self.out.set_null(i, self.row)
        return NONE


def _tree(fields):
    """(fields here, members, elements) of the root, each child alike; and the number of nodes."""
    root, count = ([], {}, {}), 1
    for i, field in enumerate(fields):
        if field.topic:
            continue
        node = root
        for step in field.path:
            table = node[2 if isinstance(step, int) else 1]
            if step not in table:
                table[step] = ([], {}, {})
                count += 1
            node = table[step]
        node[0].append(i)
    return root, count
