"""Code of the functions of windows: `add` for an event that is in several, `close`, and `merge` of two sessions."""

from rulec.sql import aggregates
from rulec.sql import code as wasm
from rulec.sql.code import Code, i32
from rulec.sql.expressions import Generator, Value
from rulec.sql.rows import RowGenerator, emit, row_nodes


def add(template, table, query, offsets) -> bytes:
    """(row, tally): the row, which WHERE let pass, into one window's tally."""
    code = Code(("i32", "i32"))
    gen = RowGenerator(code, template, table, query, 0, nullable=True)
    gen.prelude(row_nodes(query))
    gen.look()
    gen.begin_row()
    for slot, offset in zip(query.slots, offsets):
        aggregates.add(gen, slot, wasm.get(1), offset)
    return code.encode()


def merge(template, table, query, offsets) -> bytes:
    """(into, from): tallies."""
    code = Code(("i32", "i32"))
    gen = Generator(code, template, table)
    for slot, offset in zip(query.slots, offsets):
        aggregates.merge(gen, slot, wasm.get(0), wasm.get(1), offset)
    return code.encode()


class _Window(RowGenerator):
    """Of a window that closes."""

    def __init__(self, code, template, table, query, offsets):
        super().__init__(code, template, table, query, 0, nullable=False)
        self._offsets = offsets

    def leaf(self, node) -> Value:
        if node.op == "key":
            self.call("sql_key_text")
            return self.kept("i64")
        if node.op in ("window_start", "window_end"):
            return Value(wasm.get(1 if node.op == "window_start" else 2))
        position = node.value[0]
        return aggregates.read(self, node, wasm.get(0), self._offsets[position], self.query.slots[position])


def close(template, table, query, offsets) -> bytes:
    """(tally, start, end): puts out the window's row, if HAVING lets it."""
    code = Code(("i32", "i64", "i64"))
    gen = _Window(code, template, table, query, offsets)
    nodes = [n for n in (query.having, *(node for _, _, node in query.outputs)) if n is not None]
    gen.prelude(nodes)
    with code.block() as skip:
        if query.having is not None:
            code.branch(skip, gen.condition(query.having), "i32.eqz")
        emit(gen, query)
    return code.encode()
