"""A bound query: what it reads, what it keeps, what it puts out. From sqlglot's SELECT, clause by clause."""

from dataclasses import dataclass, field

from sqlglot import exp

from rulec.sql.binding import EVENT_TIME, Binder
from rulec.sql.calls import ROW, WINDOW
from rulec.sql.dialect import WINDOWED
from rulec.sql.nodes import WORDS, Node

SINGLE, KEYED, TUMBLE, HOP, SESSION = range(5)             # forms, of rules/sql/sql_rule.c
FORMS = {"tumble": TUMBLE, "hop": HOP, "session": SESSION}
ARGUMENTS = {"tumble": "the event time and a length: TUMBLE(ts, INTERVAL '10' SECOND)",
             "hop": "the event time, a hop and a length: HOP(ts, INTERVAL '1' SECOND, INTERVAL '10' SECOND)",
             "session": "the event time and a gap: SESSION(ts, INTERVAL '30' SECOND)"}
MEASURES = ("min", "max", "first", "last", "sum", "percentile")      # slots whose results have the argument's unit, where they have its kind
PER_EVENT_MAX = 64                   # windows that an event is in
CLAUSES = {"joins": "a rule reads one stream: join upstream, or let a rule read this rule's output", "hint": "hints have no meaning here"}
READ = ("expressions", "from_", "where", "group", "having", "kind")


@dataclass
class Query:
    """form: one of the above. inputs, parameters: names, in the order that nodes count them. memories, slots: see Binder. where, having: Node or None.

    outputs: (name, kind, Node); none: a filter. key, time: positions in outputs, or None. length, hop: nanoseconds, or the position of a parameter
    if bit 1, 2 of from_parameter is set.
    """

    form: int = SINGLE
    inputs: list = field(default_factory=list)
    parameters: list = field(default_factory=list)
    memories: list = field(default_factory=list)
    slots: list = field(default_factory=list)
    where: Node | None = None
    having: Node | None = None
    outputs: list = field(default_factory=list)
    key: int | None = None
    time: int | None = None
    length: int = 0
    hop: int = 0
    from_parameter: int = 0

    @property
    def windowed(self):
        return self.form >= TUMBLE

    def unit_of(self, node, kinds, optional):
        """The position of the input that an output has its kind and unit from, or None: a field as it is, what LAG gives, an aggregate that measures in the same.
        An input that the stream may lack does not count: its output would be gone with it."""
        if node.op == "previous":
            node, kind = self.memories[node.value].argument, node.kind
        elif node.op == "aggregate":
            slot = self.slots[node.value[0]]
            node, kind = slot.argument if slot.name.partition("_")[0] in MEASURES else None, node.kind
        else:
            kind = node.kind
        if node is None or node.op != "field":
            return None
        name = self.inputs[node.value]
        return node.value if name != EVENT_TIME and name not in optional and kinds[name] == kind else None


def bind(source, tree, schema, parameters) -> Query:
    """parameters: name -> type. Raises RuleError."""
    _check_clauses(source, tree, schema)
    query = Query()
    window = _window_call(source, tree, schema)
    binder = Binder(source, schema, parameters, window is not None)
    binder.aliases = {item.alias: item.this for item in tree.expressions if isinstance(item, exp.Alias)}
    if window is not None:
        query.form = FORMS[window.name.lower()]
        _window(source, binder, query, window, schema)
    if tree.args.get("where"):
        query.where = binder.condition(tree.args["where"].this, ROW, "WHERE")
    if tree.args.get("having"):
        query.having = binder.condition(tree.args["having"].this, WINDOW, "HAVING")
    _outputs(source, binder, query, tree, schema)
    query.inputs, query.parameters, query.memories, query.slots = binder.inputs, binder.parameters, binder.memories, binder.slots
    if query.memories:
        query.form = KEYED
    return query


def _check_clauses(source, tree, schema):
    for name, part in tree.args.items():
        if part and name not in READ:
            where = part[0] if isinstance(part, list) else part
            source.refuse(where if isinstance(where, exp.Expression) else tree,
                          CLAUSES.get(name, f"{name.strip('_').upper()} is not supported; a rule is SELECT ... FROM ... WHERE ... GROUP BY ..."))
    if tree.args.get("kind"):
        source.refuse(tree, "SELECT AS is not supported: name the fields")
    table = tree.args["from_"].this if tree.args.get("from_") else None
    if table is None:
        source.refuse(tree, f"there is no FROM: write FROM {schema.stream}")
    if not isinstance(table, exp.Table) or not isinstance(table.this, exp.Identifier):
        source.refuse(table, f"a rule reads a stream by its name: write FROM {schema.stream}")
    if any(part for name, part in table.args.items() if name != "this"):
        source.refuse(table, f"the stream's name stands alone: write FROM {table.name}, without alias, schema or options")
    if table.name != schema.stream:
        source.refuse(table, f"the rule's input is stream {schema.stream}, not {table.name}: write FROM {schema.stream}, or change [input] in rule.toml")


def _window_call(source, tree, schema):
    """The call of TUMBLE, HOP or SESSION in GROUP BY, or None. Refuses other groups."""
    group = tree.args.get("group")
    if not group:
        if tree.args.get("having"):
            source.refuse(tree.args["having"], f"HAVING is for windows: write WHERE, or GROUP BY a window, as in {WINDOWED}")
        return None
    if any(part for name, part in group.args.items() if name != "expressions"):
        source.refuse(group, f"group by the key and one window, as in {WINDOWED}")
    windows = [g for g in group.expressions if isinstance(g, exp.Anonymous) and g.name.lower() in FORMS]
    if len(windows) != 1:
        wanted = "one window only" if windows else "a window, because a stream has no end"
        source.refuse(windows[1] if windows else group, f"GROUP BY needs {wanted}: write {WINDOWED}")
    others = [g for g in group.expressions if g is not windows[0]]
    for other in others:
        if not isinstance(other, exp.Column) or other.name != schema.key:
            source.refuse(other, f"a rule groups by the stream's key, {schema.key}, and a window, by nothing else: make {other.sql()[:40]} the key, "
                          "or use it in WHERE or FILTER" if schema.key
                          else f"stream {schema.stream} has no key: group by the window alone, or give the stream a key in its contract")
    if schema.key and not others:
        source.refuse(windows[0], f"windows are kept by key: add {schema.key} to GROUP BY (for one window over all keys, make a stream without a key)")
    return windows[0]


def _window(source, binder, query, window, schema):
    name, args = window.name.lower(), window.expressions
    time = schema.time or "time"
    if len(args) != (3 if name == "hop" else 2):
        source.refuse(window, f"{name.upper()} takes {ARGUMENTS[name]}")
    if not isinstance(args[0], exp.Column) or args[0].name != time:
        source.refuse(args[0], f"windows go by the stream's event time: write {name.upper()}({time}, ...)")
    lengths = []
    for bit, arg in zip((1, 2) if name != "hop" else (2, 1), args[1:]):
        if isinstance(arg, exp.Placeholder):
            node = binder.bind(arg, ROW)
            if node.kind != "interval":
                source.refuse(arg, f":{arg.name} is {WORDS[node.kind]}; a window's length is a parameter of type \"duration\"")
            query.from_parameter |= bit
            lengths.append(node.value)
            continue
        if not isinstance(arg, exp.Interval):
            source.refuse(arg, "a window's length is an INTERVAL '10' SECOND or a parameter of type \"duration\"")
        lengths.append(binder.interval(arg))
        if lengths[-1] <= 0:
            source.refuse(arg, "a window's length is above 0")
    query.length, query.hop = (lengths[1], lengths[0]) if name == "hop" else (lengths[0], 0)
    if name == "hop" and not query.from_parameter and (query.hop > query.length or query.length // query.hop > PER_EVENT_MAX):
        source.refuse(args[1], f"HOP(ts, hop, length): the hop is at most the length, and at least a {PER_EVENT_MAX}th of it")


def _outputs(source, binder, query, tree, schema):
    place = WINDOW if query.windowed else ROW
    if not query.windowed and len(tree.expressions) == 1 and isinstance(tree.expressions[0], exp.Star) and not any(tree.expressions[0].args.values()):
        return
    for item in tree.expressions:
        if isinstance(item, exp.Star):
            if query.windowed or any(item.args.values()):
                source.refuse(item, "* stands for the fields of single events: in a window name the key and aggregates" if query.windowed
                              else "* takes no EXCEPT or REPLACE: name the fields")
            for name in (f.name for f in schema.fields):
                _output(source, query, item, name, binder.bind(exp.column(name), ROW))
            continue
        inner = item.this if isinstance(item, exp.Alias) else item
        if isinstance(item, exp.Alias) and not item.alias or not isinstance(item, (exp.Alias, exp.Column)):
            source.refuse(item, f"give it a name: {item.sql()[:60]} AS {_suggestion(item)}")
        _output(source, query, item, item.alias if isinstance(item, exp.Alias) else item.name, binder.bind(inner, place))
    ends = [i for name in ("window_end", "window_start") for i, (_, _, node) in enumerate(query.outputs) if node.op == name]
    fields = {binder.inputs[node.value]: i for i, (_, _, node) in reversed(list(enumerate(query.outputs))) if node.op == "field"}
    keys = [i for i, (_, _, node) in enumerate(query.outputs) if node.op == "key"]
    query.key = keys[0] if keys else fields.get(schema.key)
    query.time = ends[0] if ends else fields.get(schema.time or EVENT_TIME)


def _suggestion(item):
    inner = item.expressions[0] if isinstance(item, exp.Anonymous) and item.expressions else None
    return f"{inner.name}_{item.name.lower()}" if isinstance(inner, exp.Column) else "name"


def _output(source, query, item, name, node):
    if node.kind in ("interval", "null"):
        instead = "BIGINT), nanoseconds" if node.kind == "interval" else "DOUBLE)"
        source.refuse(item, f"{name} is {WORDS[node.kind]}, which a field cannot hold; write CAST(... AS {instead}")
    if any(name == other for other, _, _ in query.outputs):
        source.refuse(item, f"two outputs are called {name}: give one another name with AS")
    if not name or len(name.encode()) > 256:
        source.refuse(item, "a field's name has 1 to 256 bytes")
    query.outputs.append((name, node.kind, node))
