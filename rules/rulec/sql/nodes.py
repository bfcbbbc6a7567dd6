"""A bound expression: what a query's expression is once names and kinds are known.

Kinds are those of edge.columns.schema, and two that live inside a query only: `interval` (ns, what times differ by) and `null` (the bare NULL).
"""

from dataclasses import dataclass, field

WASM = {"f64": "f64", "i64": "i64", "bool": "i32", "str": "i64", "time": "i64", "interval": "i64", "null": "i32"}
WORDS = {"f64": "DOUBLE (f64)", "i64": "BIGINT (i64)", "bool": "BOOLEAN", "str": "VARCHAR (str)", "time": "TIMESTAMP (time)", "interval": "INTERVAL",
         "null": "NULL"}
NUMBERS = ("f64", "i64")


@dataclass(frozen=True)
class Node:
    """op says what it is; `value` and `args` depend on it:

    literal     the Python value: float, int, bool, bytes (str); None for NULL
    field       position among the query's inputs
    parameter   position among the query's parameters
    call        a functions.Function; its arguments
    compare     "=", "<>", "<", "<=", ">", ">="; two of one kind
    and, or, not, is_null
    case        condition, value, condition, value, ..., else; all values of the node's kind
    coalesce, greatest, least    arguments of one kind
    nullif      a, b, a = b
    convert     one argument, of a kind that the node's kind holds without a function (i64 as f64, NULL as any, ...)
    concat      strings; NULLs are left out
    previous    position among the query's memories: what LAG gives
    changed     the same: CHANGED
    aggregate   position among the query's aggregates
    key, window_start, window_end
    size: nodes in it.
    """

    op: str
    kind: str
    args: tuple = ()
    value: object = None
    size: int = field(init=False, compare=False, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "size", 1 + sum(a.size for a in self.args))
        object.__setattr__(self, "_hash", hash((self.op, self.kind, self.args, self.value)))

    def __hash__(self):
        return self._hash

    def walk(self):
        yield self
        for a in self.args:
            yield from a.walk()


def literal(kind, value) -> Node:
    return Node("literal", kind, (), value)


NULL = literal("null", None)
TRUE = literal("bool", True)


def converted(node: Node, kind: str) -> Node | None:
    """The node as another kind, where SQL does that by itself: NULL as anything, i64 as f64. None: it does not."""
    if node.kind == kind:
        return node
    if node.kind == "null":
        return literal(kind, None)
    if (node.kind, kind) == ("i64", "f64"):
        return literal("f64", float(node.value)) if node.op == "literal" and node.value is not None else Node("convert", "f64", (node,))
    return None


def common(nodes) -> str | None:
    """The kind that all can be converted to; None if there is none."""
    kinds = {n.kind for n in nodes} - {"null"}
    if not kinds:
        return "null"
    return kinds.pop() if len(kinds) == 1 else "f64" if kinds == {"f64", "i64"} else None
