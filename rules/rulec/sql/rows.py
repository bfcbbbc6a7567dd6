"""Code of the functions that see events: the loop over a batch, and what adds one event to one of several windows."""

from rulec.sql import aggregates, vectors
from rulec.sql import code as wasm
from rulec.sql.code import Code, i32
from rulec.sql.expressions import Generator, Value, makes_text
from rulec.sql.nodes import WASM, Node
from rulec.sql.query import HOP, KEYED, SINGLE, TUMBLE

# Offsets of sql_batch, rules/sql/sql_rule.c; of a Column, rules/ABI.md.
COLUMNS, ROWS, SELECTED, USABLE, CODES, SLOTS, TIMES, ANY_NULL, PARAMETERS = range(0, 36, 4)
VALUES, VALID, DICT_OFFSETS, DICT_BYTES, COLUMN = 4, 8, 16, 20, 24
SHIFT = {"f64": 3, "i64": 3, "time": 3, "str": 2, "bool": 0}


class RowGenerator(Generator):
    """Of the row in the local `row`. nullable: fields may be NULL, in this version of the code."""

    def __init__(self, code, template, table, query, row, *, nullable):
        super().__init__(code, template, table)
        self.query, self.row, self.nullable = query, wasm.get(row), nullable
        self._columns = {}

    def batch(self, offset, kind="i32") -> bytes:
        """A word of sql_batch, in a local."""
        return self.loaded(kind, i32(self.template.constants["sql_batch_at"]), offset, None).push

    def prelude(self, nodes):
        """Before the rows: where columns lie, and the parameters."""
        inside = dict.fromkeys(n for node in nodes for n in node.walk())
        fields = {n.value: n.kind for n in inside if n.op == "field"}
        if fields:
            columns = self.batch(COLUMNS)
        for i, kind in fields.items():
            wanted = [VALUES, *([VALID] if self.nullable else []), *([DICT_OFFSETS, DICT_BYTES] if kind == "str" else [])]
            self._columns[i] = {part: self.loaded("i32", columns, COLUMN * i + part, None).push for part in wanted}
        self.parameters([n for n in inside if n.op == "parameter"])

    def parameters(self, nodes):
        if nodes:
            base = self.batch(PARAMETERS)
        for node in nodes:
            self.know(node, self.loaded(WASM[node.kind], base, 8 * node.value, None))

    def duration(self, value, bit) -> bytes:
        """A window's length, given as a number or as a parameter."""
        if self.query.from_parameter & bit:
            return self.loaded("i64", self.batch(PARAMETERS), 8 * value, None).push
        return wasm.i64(value)

    def begin_row(self):
        """Behind the row's own scope()."""
        code = self.code
        self._at = {0: self.row, 2: wasm.get(code.set("i32", self.row, i32(2), "i32.shl")), 3: wasm.get(code.set("i32", self.row, i32(3), "i32.shl"))}
        if self.nullable:
            self._byte = wasm.get(code.set("i32", self.row, i32(3), "i32.shr_u"))
            self._bit = wasm.get(code.set("i32", self.row, i32(7), "i32.and"))

    def at(self, base, shift) -> bytes:
        """The address of the row's value in an array."""
        return base + self._at[shift] + wasm.op("i32.add")

    def bit(self, bitmap) -> list:
        """What pushes the row's bit of a bitmap."""
        self.code.emit(bitmap, self._byte, "i32.add")
        self.code.memory("i32.load8_u")
        return [self._bit, "i32.shr_u", i32(1), "i32.and"]

    def leaf(self, node) -> Value:
        assert node.op == "field", node.op
        column, kind = self._columns[node.value], node.kind
        null = None
        if self.nullable:
            self.code.emit(*self.bit(column[VALID]), "i32.eqz")
            null = wasm.get(self.code.set("i32"))
        self.code.emit(self.at(column[VALUES], SHIFT[kind]))
        self.code.memory({"bool": "i32.load8_u", "str": "i32.load"}.get(kind, f"{WASM[kind]}.load"))
        if kind != "str":
            return self.kept(WASM[kind], null)
        self.code.emit(i32(2), "i32.shl", column[DICT_OFFSETS], "i32.add")
        entry = wasm.get(self.code.set("i32"))
        start = self.loaded("i32", entry, 0, None).push
        self.code.emit(entry)
        self.code.memory("i32.load", 4)
        return self.made("i64", start, "i32.sub", "i64.extend_i32_u", wasm.i64(32), "i64.shl", column[DICT_BYTES], start, "i32.add", "i64.extend_i32_u",
                         "i64.or", null=null)

    def values(self, node) -> bytes:
        return self._columns[node.value][VALUES]

    def valid(self, node) -> bytes:
        return self._columns[node.value][VALID]

    def time(self) -> bytes:
        """What pushes the event time."""
        return self.loaded("i64", self.at(self._times, 3), 0, None).push

    def look(self):
        """Before the rows: what windows and keys need."""
        if self.query.windowed:
            self._times = self.batch(TIMES)


def put(gen, position, node):
    """Into an output of the row that was begun by sql_emit."""
    if node.op == "key":
        gen.code.emit(i32(position))
        return gen.call("sql_put_key")
    value = gen.value(node)
    copied = node.op == "field" and node.kind == "str"

    def fill():
        if copied:
            gen.code.emit(i32(position), i32(node.value), gen.row)
            gen.call("sql_put_field")
        else:
            gen.code.emit(i32(position), value.push)
            gen.call(f"sql_put_{'i64' if node.kind == 'time' else node.kind}")

    if value.null is None:
        return fill()
    with gen.code.when(value.null, "i32.eqz"):
        fill()


def emit(gen, query):
    gen.call("sql_emit")
    for position, (_, _, node) in enumerate(query.outputs):
        put(gen, position, node)


def row_nodes(query):
    """The expressions that an event is asked for."""
    outputs = [] if query.windowed else [node for _, _, node in query.outputs]
    kept = [n for part in (*query.memories, *query.slots) for n in (part.argument, part.where)]
    return [n for n in (query.where, *outputs, *kept) if n is not None]


def rows(template, table, query, offsets) -> bytes:
    """The function `rows`. offsets: of the slots in a tally, or of the memories in a key's state."""
    code = Code()
    row = code.local("i32")
    if query.form == SINGLE and not query.outputs and query.where is not None and vectors.possible(query.where):
        vectors.filter_rows(RowGenerator(code, template, table, query, row, nullable=True), query, row)
        _loop(code, template, table, query, offsets, row, nullable=True)
        return code.encode()
    if query.inputs:
        code.emit(i32(template.constants["sql_batch_at"]))
        code.memory("i32.load", ANY_NULL)
        with code.when():
            _loop(code, template, table, query, offsets, row, nullable=True)
            code.emit("return")
    _loop(code, template, table, query, offsets, row, nullable=False)
    return code.encode()


def _loop(code, template, table, query, offsets, row, *, nullable):
    gen = RowGenerator(code, template, table, query, row, nullable=nullable)
    nodes = row_nodes(query)
    gen.prelude(nodes)
    gen.look()
    body = {KEYED: _keyed, TUMBLE: _windowed, HOP: _windowed}.get(query.form, _windowed if query.windowed else _single)(gen, query, offsets)
    end = gen.batch(ROWS)
    with code.block() as done, code.loop() as again:
        code.branch(done, gen.row, end, "i32.ge_u")
        with gen.scope(), code.block() as skip:
            if makes_text(nodes):
                gen.call("sql_arena_reset")
            gen.begin_row()
            body(skip)
        code.emit(gen.row, i32(1), "i32.add")
        code.put(row)
        code.branch(again)


def _single(gen, query, offsets):
    selected = None if query.outputs else gen.batch(SELECTED)

    def body(skip):
        if query.outputs:
            if query.where is not None:
                gen.code.branch(skip, gen.condition(query.where), "i32.eqz")
            return emit(gen, query)
        passes = gen.condition(query.where) if query.where is not None else i32(1)
        at = wasm.get(gen.code.set("i32", selected, gen.row, i32(3), "i32.shr_u", "i32.add"))
        gen.code.emit(at, at)
        gen.code.memory("i32.load8_u")
        gen.code.emit(passes, gen.row, i32(7), "i32.and", "i32.shl", "i32.or")
        gen.code.memory("i32.store8")

    return body


def _usable(gen):
    """Passes over rows whose key is null."""
    usable = gen.batch(USABLE)

    def check(skip):
        code = gen.code
        with code.when(usable):
            code.emit(usable, gen.row, i32(3), "i32.shr_u", "i32.add")
            code.memory("i32.load8_u")
            code.branch(skip, gen.row, i32(7), "i32.and", "i32.shr_u", i32(1), "i32.and", "i32.eqz")

    return check


def _keyed(gen, query, offsets):
    check, single = _usable(gen), _single(gen, query, offsets)

    def body(skip):
        check(skip)
        gen.code.emit(gen.row)
        gen.call("sql_state")
        state = wasm.get(gen.code.set("i32"))
        stores = [_recall(gen, position, memory, state, offset) for position, (memory, offset) in enumerate(zip(query.memories, offsets))]
        with gen.code.block() as passed_over:
            single(passed_over)
        for store in stores:
            store()

    return body


def _recall(gen, position, memory, state, offset):
    """LAG and CHANGED of a memory, whose first word says what it holds: 0 nothing yet, 1 a value, 2 NULL.

    Returns what writes the code that stores the row's value.
    """
    code, kind = gen.code, WASM[memory.kind]
    held = gen.loaded("i32", state, offset, None).push
    new = gen.value(memory.argument)
    stays = gen.made("i32", gen.condition(memory.where), "i32.eqz").push if memory.where is not None else None
    now = wasm.get(code.set("i32", *([i32(2), i32(1), new.null, "select"] if new.null else [i32(1)])))
    slot = [state, i32(offset + 8), "i32.add"]
    code.emit(*slot)
    if memory.kind == "str":
        gen.call("sql_kept_get")
    else:
        code.memory(f"{kind}.load")
    old = gen.kept(kind, wasm.get(code.set("i32", held, i32(1), "i32.ne")))
    if memory.kind == "bool":
        old = gen.made("i32", old.push, old.null, "i32.eqz", "i32.and", null=old.null)
    changed = code.set("i32", held, now, "i32.ne")
    with code.when(held, i32(1), "i32.eq", now, i32(1), "i32.eq", "i32.and"):
        if memory.kind == "str":
            code.emit(*slot, new.push)
            gen.call("sql_kept_same")
            code.emit("i32.eqz")
        elif kind == "f64":
            code.emit(old.push, new.push, "f64.eq", old.push, old.push, "f64.ne", new.push, new.push, "f64.ne", "i32.and", "i32.or", "i32.eqz")
        else:
            code.emit(old.push, new.push, f"{kind}.ne")
        code.put(changed)
    gen.know(Node("previous", memory.kind, (), position), old)
    gen.know(Node("changed", "bool", (), position), Value(wasm.get(changed)))

    def store():
        with code.block() as done:
            if stays is not None:
                code.branch(done, stays)
            code.emit(state, now)
            code.memory("i32.store", offset)
            code.branch(done, now, i32(1), "i32.ne")
            code.emit(*slot, new.push)
            if memory.kind == "str":
                gen.call("sql_kept_set")
            else:
                code.memory(f"{kind}.store")

    return store


def _windowed(gen, query, offsets):
    check = _usable(gen)
    find = {TUMBLE: _tumble, HOP: _hop}.get(query.form, _session)(gen, query)

    def body(skip):
        check(skip)
        if query.where is not None:
            gen.code.branch(skip, gen.condition(query.where), "i32.eqz")
        tally = find(skip)
        if tally is not None:
            for slot, offset in zip(query.slots, offsets):
                aggregates.add(gen, slot, tally, offset)

    return body


def _tumble(gen, query):
    """The newest window of the key, where the event is in it; else the template finds it."""
    constants = gen.template.constants
    codes, slots, length = gen.batch(CODES), gen.batch(SLOTS), gen.duration(query.length, 1)

    def find(skip):
        code = gen.code
        tally = code.local("i32")
        with code.block() as found:
            with code.block() as slow:
                code.emit(gen.at(codes, 2))
                code.memory("i32.load")
                code.emit(i32(2), "i32.shl", slots, "i32.add")
                code.memory("i32.load")
                key = code.local("i32")
                code.tee(key)
                code.branch(slow, "i32.eqz")
                window = gen.loaded("i32", wasm.get(key), constants["sql_key_bytes"] + constants["sql_newest_at"], None).push
                code.branch(slow, window, "i32.eqz")
                start = gen.loaded("i64", window, constants["sql_start_at"], None).push
                code.emit(window, i32(constants["sql_window_bytes"]), "i32.add")
                code.put(tally)
                code.branch(found, gen.time(), start, "i64.sub", length, "i64.lt_u")
            code.emit(gen.row)
            gen.call("sql_tally")
            code.tee(tally)
            code.branch(skip, "i32.eqz")
        return wasm.get(tally)

    return find


def _session(gen, query):
    def find(skip):
        gen.code.emit(gen.row)
        gen.call("sql_session")
        tally = gen.code.local("i32")
        gen.code.tee(tally)
        gen.code.branch(skip, "i32.eqz")
        return wasm.get(tally)

    return find


def _hop(gen, query):
    def find(skip):
        gen.code.emit(gen.row)
        gen.call("sql_hop")

    return find
