# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Decoder: a turn's raw events of one stream into rows of a batch, without the interpreter. Router: which stream a topic belongs to.

Payload and path trie are walked together; what no field asks for is skipped, but read: a malformed payload is rejected wherever
the fault is. An event adds a whole row or none. Rejections are noted in C and become text once, after the loop.
"""
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcmp

from edge.columns._batch cimport Batch
from edge.decoding._json cimport DEPTH_MAX, MALFORMED, TOO_DEEP, Reader, blank, expect, fail, open_, read_scalar, scan_string, skip, skip_container
from edge.decoding._msgpack cimport read_head, skip_items
from edge.mqtt._intake cimport Intake, RawEvent, Topics, TopicSlot
from edge.decoding._number cimport (ABSENT, ARRAY, LONE_SURROGATE, NOT_A_TIME, NOT_FINITE, NOT_INTEGRAL, NOT_READABLE, NOT_UTF8, OBJECT,
                           OUT_OF_RANGE, WRONG_TYPE, Value)
from edge.decoding._projection cimport NONE, Child, Node, Projection

cdef enum:
    JSON = 0
    MSGPACK = 1
    RAW = 2

FORMATS = {"json": JSON, "msgpack": MSGPACK, "raw": RAW}
FOUND = ("null", "boolean", "integer", "number", "number", "string", "array", "object", "binary", "timestamp", "extension")
REASONS = {ABSENT: "missing", NOT_FINITE: "not finite", NOT_INTEGRAL: "not an integer", OUT_OF_RANGE: "out of range",
           NOT_A_TIME: "not an RFC 3339 time", LONE_SURROGATE: "half a surrogate pair", NOT_UTF8: "not UTF-8"}


cdef class Decoder:
    """Of one contract. Holds state between events of one call only; not thread-safe."""

    def __cinit__(self, contract):
        self.plan = Projection(contract)
        self.format = FORMATS[contract.format]

    def __dealloc__(self):
        free(self.rejections)

    @property
    def masked(self) -> bool:
        """Payloads of this stream are to be kept nowhere."""
        return self.plan.contract.masked

    def decode(self, Intake intake, int stream, Batch out, list dead) -> int:
        """Append a row to `out` for each event whose topic is routed to `stream`; the number of rows.

        `out` has the contract's schema. Events that break the contract go to `dead` as (event index, reason).
        Raises MemoryError, and has then added nothing.
        """
        cdef uint32_t i, before = out.n
        cdef Reader r
        cdef TopicSlot *topics = intake.topics.topics
        if out.width != self.plan.targets_n:
            raise AssertionError("the batch is of another schema")
        self.plan.out = out
        self.rejections_n = 0
        try:
            with nogil:
                for i in range(intake.n):
                    if topics[intake.events[i].topic].stream == stream:
                        self.read_event(self.plan, intake, i, &r)
        except:
            while out.n > before:
                out.pop_row()
            raise
        finally:
            self.plan.out = None
        for i in range(self.rejections_n):
            dead.append((self.rejections[i].event, self.reason(&self.rejections[i])))
        return out.n - before

    cdef int read_event(self, Projection plan, Intake intake, uint32_t index, Reader *r) except -1 nogil:
        cdef RawEvent *e = &intake.events[index]
        cdef const uint8_t *start = intake.arena + e.offset
        cdef const uint8_t *end = start + e.size
        cdef const uint8_t *p = end
        cdef uint32_t field
        plan.row = plan.out.add_row()
        plan.begin()
        r.depth = r.fault = 0
        if self.format == JSON:
            p = walk_json(plan, 0, start, end, r)
            if p != NULL:
                p = blank(p, end)
        elif self.format == MSGPACK:
            p = walk_msgpack(plan, 0, start, end, r)
        elif plan.nodes[0].target != NONE:
            plan.take_text(plan.nodes[0].target, start, e.size)
        if plan.reads_topic:
            self.read_topic(intake, e.topic)
        if p != NULL and p != end:
            fail(r, p)
        if r.fault:
            plan.out.pop_row()
            return self.reject(index, NONE, <uint32_t>(r.at - start), r.fault)
        field = plan.finish()
        if field != NONE:
            plan.out.pop_row()
            return self.reject(index, field, 0, plan.targets[field].status)
        return 0

    cdef int read_topic(self, Intake intake, uint32_t topic) except -1 nogil:
        """The fields that are levels of the topic."""
        cdef TopicSlot *slot = &intake.topics.topics[topic]
        cdef const uint8_t *name = intake.topics.bytes_ + slot.offset
        cdef const uint8_t *end = name + slot.size
        cdef const uint8_t *p
        cdef const uint8_t *stop
        cdef uint32_t i
        cdef int32_t level
        for i in range(self.plan.targets_n):
            if not self.plan.targets[i].topic:
                continue
            p = name
            level = self.plan.targets[i].level
            stop = end if level < 0 else <const uint8_t *>memchr(p, c'/', end - p)
            while level > 0 and stop != NULL:
                p = stop + 1
                stop = <const uint8_t *>memchr(p, c'/', end - p)
                level -= 1
            if level <= 0:                       # else there are fewer levels: absent
                self.plan.take_text(i, p, <uint32_t>((end if stop == NULL else stop) - p))
        return 0

    cdef int reject(self, uint32_t event, uint32_t field, uint32_t at, uint8_t status) except -1 nogil:
        cdef Rejection *r
        cdef void *p
        if self.rejections_n == self.rejections_capacity:
            p = realloc(self.rejections, (2 * <size_t>self.rejections_capacity + 16) * sizeof(Rejection))
            if p == NULL:
                with gil:
                    raise MemoryError("rejections")
            self.rejections = <Rejection *>p
            self.rejections_capacity = 2 * self.rejections_capacity + 16
        r = &self.rejections[self.rejections_n]
        r.event, r.field, r.at, r.status = event, field, at, status
        r.found = self.plan.targets[field].found if field != NONE else 0
        self.rejections_n += 1
        return 0

    cdef object reason(self, Rejection *r):
        if r.field == NONE:
            what = "JSON" if self.format == JSON else "MessagePack"
            return f"not {what} at byte {r.at}" if r.status == MALFORMED else f"nested deeper than {DEPTH_MAX} levels at byte {r.at}"
        field = self.plan.contract.fields[r.field]
        if r.status == WRONG_TYPE:
            return f"field {field.name}: expected {field.kind}, found {FOUND[r.found]}"
        if r.status == NOT_READABLE:
            return f"field {field.name}: expected {field.kind}, found text that is none"
        return f"field {field.name}: {REASONS[r.status]}"


cdef const uint8_t *walk_json(Projection plan, uint32_t at, const uint8_t *p, const uint8_t *end, Reader *r) except? NULL nogil:
    """Past the value at p, which belongs to node `at`."""
    cdef Node *node = &plan.nodes[at]
    cdef Value v
    p = blank(p, end)
    if p == end:
        return fail(r, p)
    if node.last != at:
        plan.visit(at)
    if p[0] == c'{':
        v.kind = OBJECT
        p = json_members(plan, node, p, end, r) if node.members_n else skip_container(p, end, r)
    elif p[0] == c'[':
        v.kind = ARRAY
        p = json_elements(plan, node, p, end, r) if node.elements_n else skip_container(p, end, r)
    else:
        p = read_scalar(p, end, r, &v)
    if p != NULL and node.target != NONE:
        plan.take(node.target, &v)
    return p


cdef const uint8_t *json_members(Projection plan, Node *node, const uint8_t *p, const uint8_t *end, Reader *r) except? NULL nogil:
    cdef const uint8_t *name
    cdef Child *child
    cdef uint32_t found
    cdef bint escaped
    p = open_(p, r)
    if p == NULL:
        return NULL
    p = blank(p, end)
    if p < end and p[0] == c'}':
        r.depth -= 1
        return p + 1
    while True:
        name = p = expect(p, end, c'"', r)
        if p == NULL:
            return NULL
        found = node.members + node.guess
        child = &plan.children[found]
        if <uint64_t>(end - p) > child.quick and p[child.quick] == c'"' and memcmp(p, child.name, child.quick) == 0:
            p += child.quick + 1
        else:
            p = scan_string(p, end, r, &escaped)
            if p == NULL:
                return NULL
            found = plan.find(node, name, <uint32_t>(p - name - 1), escaped)
        p = expect(p, end, c':', r)
        if p == NULL:
            return NULL
        if found == NONE:
            p = blank(p, end)
            if p == end:
                return fail(r, p)
            p = skip(p, end, r)
        else:
            node.guess = found + 1 - node.members if found + 1 < node.members + node.members_n else 0
            p = walk_json(plan, plan.children[found].node, p, end, r)
        if p == NULL:
            return NULL
        p = blank(p, end)
        if p < end and p[0] == c'}':
            r.depth -= 1
            return p + 1
        p = expect(p, end, c',', r)
        if p == NULL:
            return NULL


cdef const uint8_t *json_elements(Projection plan, Node *node, const uint8_t *p, const uint8_t *end, Reader *r) except? NULL nogil:
    cdef Child *child = &plan.children[node.elements]
    cdef Child *stop = child + node.elements_n
    cdef uint32_t index = 0
    p = open_(p, r)
    if p == NULL:
        return NULL
    p = blank(p, end)
    if p < end and p[0] == c']':
        r.depth -= 1
        return p + 1
    while True:
        if child < stop and child.index == index:
            p = walk_json(plan, child.node, p, end, r)
            child += 1
        else:
            p = blank(p, end)
            if p == end:
                return fail(r, p)
            p = skip(p, end, r)
        if p == NULL:
            return NULL
        index += 1
        p = blank(p, end)
        if p < end and p[0] == c']':
            r.depth -= 1
            return p + 1
        p = expect(p, end, c',', r)
        if p == NULL:
            return NULL


cdef const uint8_t *walk_msgpack(Projection plan, uint32_t at, const uint8_t *p, const uint8_t *end, Reader *r) except? NULL nogil:
    """Past the value at p, which belongs to node `at`."""
    cdef Node *node = &plan.nodes[at]
    cdef const uint8_t *start = p
    cdef Value v
    p = read_head(p, end, r, &v)
    if p == NULL:
        return NULL
    if node.last != at:
        plan.visit(at)
    if v.kind == OBJECT or v.kind == ARRAY:
        if r.depth == DEPTH_MAX:
            r.fault, r.at = TOO_DEEP, start
            return NULL
        r.depth += 1
        if v.kind == OBJECT:
            p = msgpack_members(plan, node, p, end, r, <uint64_t>v.i)
        else:
            p = msgpack_elements(plan, node, p, end, r, <uint64_t>v.i)
        r.depth -= 1
    if p != NULL and node.target != NONE:
        plan.take(node.target, &v)
    return p


cdef const uint8_t *msgpack_members(Projection plan, Node *node, const uint8_t *p, const uint8_t *end, Reader *r,
                                    uint64_t count) except? NULL nogil:
    cdef Value name
    cdef Child *child
    cdef uint32_t found
    if node.members_n == 0:
        return skip_items(p, end, r, 2 * count)
    while count:
        count -= 1
        found = NONE
        if p < end and (0xa0 <= p[0] <= 0xbf or 0xd9 <= p[0] <= 0xdb):
            p = read_head(p, end, r, &name)
            if p == NULL:
                return NULL
            child = &plan.children[node.members + node.guess]
            if child.size == name.size and memcmp(child.name, name.text, name.size) == 0:
                found = node.members + node.guess
            else:
                found = plan.find(node, name.text, name.size, False)
        else:
            p = skip_items(p, end, r, 1)
        if p == NULL:
            return NULL
        if found == NONE:
            p = skip_items(p, end, r, 1)
        else:
            node.guess = found + 1 - node.members if found + 1 < node.members + node.members_n else 0
            p = walk_msgpack(plan, plan.children[found].node, p, end, r)
        if p == NULL:
            return NULL
    return p


cdef const uint8_t *msgpack_elements(Projection plan, Node *node, const uint8_t *p, const uint8_t *end, Reader *r,
                                     uint64_t count) except? NULL nogil:
    cdef uint32_t i
    cdef uint64_t index = 0
    cdef Child *child
    for i in range(node.elements_n):
        child = &plan.children[node.elements + i]
        if child.index >= count:
            break
        p = skip_items(p, end, r, child.index - index)
        if p != NULL:
            p = walk_msgpack(plan, child.node, p, end, r)
        if p == NULL:
            return NULL
        index = <uint64_t>child.index + 1
    return skip_items(p, end, r, count - index)


class Router:
    """Contracts in order: a topic belongs to the first one that matches it."""

    def __init__(self, contracts):
        self.contracts = tuple(contracts)

    def stream_of(self, topic: bytes) -> int:
        """Position of the contract, -1 if none takes the topic."""
        return next((i for i, contract in enumerate(self.contracts) if contract.matches(topic)), -1)

    def route(self, Intake intake) -> list:
        """Look up the topics that are new, and note their stream. Returns the indices of events that no contract takes."""
        cdef Topics topics = intake.topics
        cdef TopicSlot *slot
        cdef list unrouted = []
        cdef uint32_t i
        with nogil:
            for i in range(intake.n):
                slot = &topics.topics[intake.events[i].topic]
                if slot.stream >= 0:
                    continue
                with gil:
                    if slot.stream == -2:
                        slot.stream = self.stream_of(topics.name(intake.events[i].topic))
                    if slot.stream < 0:
                        unrouted.append(i)
        return unrouted
