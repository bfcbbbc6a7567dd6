"""Two versions of a rule on the same events: which rows only one of them puts out.

Rows are compared by what they say, not by sequence: one row more does not make all that follow differ. A row that one puts out earlier than the other
is the same row. What is left over at the end differs; rows of one stream, key and event time that are left on both sides are one row that changed.

Bound: UNMATCHED_MAX rows that wait for their like on the other side; beyond, the oldest are counted and no longer matched or shown.
"""

from collections import OrderedDict

from msgspec import Struct

from edge.rehearsal.spelling import row_text

UNMATCHED_MAX = 100_000
SIDES = ("old", "new")


class Row(Struct):
    """position: of the journal record that it came of."""

    side: str
    stream: str
    identity: tuple
    values: dict
    text: str
    position: int


class Comparison:
    """put() takes rows as they come out. same: rows that both put out. given_up: rows dropped at the bound, by side."""

    def __init__(self):
        self.same = 0
        self.rows = dict.fromkeys(SIDES, 0)
        self.given_up = dict.fromkeys(SIDES, 0)
        self._waiting = {side: OrderedDict() for side in SIDES}      # (stream, text) -> [Row, ...]
        self._n = dict.fromkeys(SIDES, 0)

    def put(self, side, stream, batch, position):
        """stream: its name, the same on both sides."""
        schema = batch.schema
        other = self._waiting["new" if side == "old" else "old"]
        for values in batch.rows():
            self.rows[side] += 1
            text = row_text(values, schema.fields, "rfc3339")
            if matching := other.get((stream, text)):
                matching.pop(0)
                self._n["new" if side == "old" else "old"] -= 1
                if not matching:
                    del other[stream, text]
                self.same += 1
                continue
            identity = (stream, values.get(schema.key), values.get(schema.time))
            self._waiting[side].setdefault((stream, text), []).append(Row(side, stream, identity, values, text, position))
            self._n[side] += 1
            if self._n[side] > UNMATCHED_MAX:
                _, rows = self._waiting[side].popitem(last=False)
                self._n[side] -= len(rows)
                self.given_up[side] += len(rows)

    def differences(self):
        """(changed, only): pairs of rows that changed, and rows that only one side has; each in the order of their causes."""
        left = {side: sorted((row for rows in self._waiting[side].values() for row in rows), key=lambda r: r.position) for side in SIDES}
        partners = {}
        for row in left["new"]:
            partners.setdefault(row.identity, []).append(row)
        changed, only = [], []
        for row in left["old"]:
            if row.identity[1:] != (None, None) and partners.get(row.identity):
                changed.append((row, partners[row.identity].pop(0)))
            else:
                only.append(row)
        only += [row for rows in partners.values() for row in rows]
        return changed, sorted(only, key=lambda r: (r.position, r.side == "new"))


def fields_changed(old, new) -> str:
    """In words."""
    said = [f"{name} {old.values.get(name)!r} -> {new.values.get(name)!r}" for name in {**old.values, **new.values}
            if repr(old.values.get(name)) != repr(new.values.get(name)) or (name in old.values) != (name in new.values)]
    return ", ".join(said)
