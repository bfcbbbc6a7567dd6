"""What each ready-made rule promises, in plain Python, written from its README. FIELDS is the stream of all tests."""

import math
import struct
from collections import OrderedDict

from rule_harness import FOREVER, LEAST, Answer, dictionary

FIELDS = [("device", "str"), ("at", "time"), ("temp", "f64"), ("n", "i64"), ("tag", "str"), ("on", "bool")]
LIMIT = 1 << 62


class Model:
    """needs: fields without which a row is ignored. State per key, bounded as rules/c/edge_keys.h says."""

    needs = ()

    def __init__(self, key="device", max_keys=10000, **params):
        self.key, self.max_keys, self.keys = key, max_keys, OrderedDict()
        self.setup(**params)

    def process(self, batch):
        self.answer, self.touched = Answer(), set()
        for r, row in enumerate(batch.rows):
            needed = (*self.needs, self.key) if self.key else self.needs
            if any(row.get(f) is None for f in needed):
                self.answer.ignored += 1
                continue
            self.now = row[self.key] if self.key else ""
            when = row.get("at")
            self.use(r, row, batch.received if when is None else when, self.touch(self.now))
        words = dictionary(batch, self.key, batch.watermarks) if self.key else [""]
        for key in words:
            if key in self.keys:
                watermark = batch.watermarks.get(key, LEAST) if self.key else batch.watermark
                if watermark == FOREVER:
                    self.close(key)
                else:
                    self.tell(key, self.keys[key], watermark)
        return self.answer

    def touch(self, key):
        if key not in self.touched:
            if key in self.keys:
                self.keys.move_to_end(key)
            else:
                if len(self.keys) >= self.max_keys:
                    self.close(next(iter(self.keys)))
                self.keys[key] = self.fresh()
            self.touched.add(key)
        return self.keys[key]

    def close(self, key):
        self.tell(key, self.keys[key], FOREVER)
        del self.keys[key]
        self.touched.discard(key)

    def fresh(self):
        return {}

    def tell(self, key, state, watermark):
        pass

    def emit(self, key, **values):
        self.answer.rows.append({self.key: key, **values} if self.key else values)


def nan(v):
    return isinstance(v, float) and math.isnan(v)


class Threshold(Model):
    def setup(self, field, value, op=">", hysteresis=0.0):
        self.field, self.value, self.op, self.hysteresis, self.needs = field, value, op, hysteresis, (field,)
        if not hysteresis:
            self.key = None

    def use(self, r, row, when, state):
        v, limit = float(row[self.field]), self.value
        if state.get("passing"):
            limit += -self.hysteresis if ">" in self.op else self.hysteresis
        table = {">": v > limit, ">=": v >= limit, "<": v < limit, "<=": v <= limit, "==": v == limit, "!=": v != limit}
        state["passing"] = bool(self.hysteresis) and table[self.op]
        if table[self.op]:
            self.answer.selected.append(r)


class Deadband(Model):
    def setup(self, field, change=0.0, every=0):
        self.field, self.change, self.every, self.needs = field, change, every, (field,)

    def use(self, r, row, when, state):
        v = float(row[self.field])
        if nan(v):
            self.answer.ignored += 1
        elif not state or abs(v - state["v"]) > self.change or (self.every and when - state["t"] >= self.every):
            state.update(v=v, t=when)
            self.answer.selected.append(r)


class Rate(Model):
    def setup(self, field, limit=-1.0):
        self.field, self.limit, self.needs = field, limit, (field,)

    def use(self, r, row, when, state):
        v = float(row[self.field])
        if state and when < state["t"]:
            self.answer.late.append(r)
        elif nan(v) or (state and when == state["t"]):
            self.answer.ignored += 1
        else:
            if state:
                rate = (v - state["v"]) / ((when - state["t"]) / 1e9)
                if abs(rate) > self.limit:
                    self.emit(self.now, time=when, **{self.field: v, self.field + "_rate": rate})
            state.update(v=v, t=when)


class Sample(Model):
    def setup(self, nth=0, interval=0):
        self.nth, self.interval = nth, interval

    def use(self, r, row, when, state):
        if self.nth:
            state["n"] = state.get("n", -1) + 1
            take = state["n"] % self.nth == 0
        else:
            number = when // self.interval
            take = "at" not in state or number > state["at"]
            if take:
                state["at"] = number
        if take:
            self.answer.selected.append(r)


class Dedup(Model):
    def setup(self, id, mode="seen", count=1000, within=0, max_ids=50000):
        self.id, self.mode, self.count, self.within, self.max_ids, self.needs = id, mode, count, within, max_ids, (id,)

    def fresh(self):
        return {"ids": OrderedDict()}

    def use(self, r, row, when, state):
        v, ids = row[self.id], state["ids"]
        if self.mode == "sequence":
            new = "last" not in state or v > state["last"] or state["last"] - v >= self.count
            if new:
                state["last"] = v
        else:
            v = struct.pack("<d", v) if isinstance(v, float) else v
            new = v not in ids
            if new:
                while len(ids) >= self.count:
                    ids.popitem(last=False)
                while sum(len(s["ids"]) for s in self.keys.values()) >= self.max_ids:
                    oldest = next(iter(self.keys))
                    if oldest == self.now and ids:
                        ids.popitem(last=False)
                    else:
                        self.close(next(k for k in self.keys if k != self.now))
                ids[v] = when
        if new:
            self.answer.selected.append(r)

    def tell(self, key, state, watermark):
        ids = state["ids"]
        while ids and self.within and watermark - next(iter(ids.values())) > self.within:
            ids.popitem(last=False)


class Missing(Model):
    def setup(self, after):
        self.after = after

    def use(self, r, row, when, state):
        if state.get("silent") and when > state["seen"]:
            self.emit(self.now, time=when, last_seen=state["seen"], silent=False)
            state["silent"] = False
        state["seen"] = max(when, state.get("seen", LEAST))

    def tell(self, key, state, watermark):
        if not state.get("silent") and watermark - state["seen"] >= self.after:
            self.emit(key, time=min(state["seen"] + self.after, FOREVER), last_seen=state["seen"], silent=True)
            state["silent"] = True


class Window(Model):
    def setup(self, length, hop=0, fields=(), functions=("count", "mean"), decimals=None, max_windows=20000):
        self.length, self.hop, self.fields, self.functions = length, hop or length, fields, functions
        self.decimals, self.max_windows = decimals, max_windows
        self.order = [f for f in ("sum", "min", "max", "mean", "stddev", "first", "last") if f in functions]

    def fresh(self):
        return {"open": {}, "closed": None}

    def use(self, r, row, when, state):
        values = {f: float(row[f]) for f in self.fields if row.get(f) is not None and not nan(row[f])}
        newest = max(state["open"], default=None)
        known = self.hop == self.length and newest is not None and newest <= when < newest + self.length
        if (self.fields and not values) or not (known or -LIMIT <= when <= LIMIT):
            self.answer.ignored += 1
            return
        per_event = (self.length - 1) // self.hop + 1
        while not known and sum(len(s["open"]) for s in self.keys.values()) + per_event > self.max_windows:
            oldest = next(iter(self.keys))
            if oldest != self.now or not state["open"]:
                self.close(next(k for k in self.keys if k != self.now))
            else:
                self.tell(oldest, state, min(state["open"]) + self.length)
        start, added = when // self.hop * self.hop, False
        while start > when - self.length:
            if state["closed"] is None or start + self.length > state["closed"]:
                state["open"].setdefault(start, []).append((when, values))
                added = True
            start -= self.hop
        if not added:
            self.answer.late.append(r)

    def tell(self, key, state, watermark):
        for start in sorted(s for s in state["open"] if s + self.length <= watermark):
            self.emit(key, **self.summary(start, state["open"].pop(start)))
        state["closed"] = watermark if state["closed"] is None else max(watermark, state["closed"])

    def summary(self, start, events):
        out = {"window_start": start, "window_end": start + self.length}
        if "count" in self.functions:
            out["count"] = len(events)
        for f in self.fields:
            got = self.statistics([(t, v[f]) for t, v in events if f in v])
            out |= {f"{f}_{name}": self.rounded(got.get(name)) for name in self.order}
        return out

    def rounded(self, v):
        if v is None or math.isnan(v):
            return None
        if self.decimals is None or math.isinf(v) or math.isinf(v * 10.0**self.decimals):
            return v
        k = round(v * 10.0**self.decimals)
        if abs(k) >= 2**53:
            return v
        return math.copysign(k / 10.0**self.decimals, v)

    @staticmethod
    def statistics(pairs):
        if not pairs:
            return {}
        total = mean = m2 = 0.0
        for i, (_, v) in enumerate(pairs):
            total = total + v if i else v
            delta = v - mean
            m2 = m2 + delta * (v - (mean + delta / (i + 1))) if i else 0.0
            mean = mean + delta / (i + 1) if i else v
        values = [v for _, v in pairs]
        low = high = values[0]
        for v in values:
            low, high = (v if v < low else low), (v if v > high else high)
        last = max(t for t, _ in pairs)
        return {
            "sum": total,
            "mean": total / len(pairs),
            "min": low,
            "max": high,
            "stddev": math.sqrt(m2 / (len(pairs) - 1)) if len(pairs) > 1 and not math.isnan(m2) else None,
            "first": next(v for t, v in pairs if t == min(t for t, _ in pairs)),
            "last": [v for t, v in pairs if t == last][-1],
        }


class Project(Model):
    """columns: (field, factor, offset, name) of what `keep` says; factor None copies."""

    def setup(self, keep, columns):
        self.columns = columns

    def process(self, batch):
        answer = Answer()
        for row in batch.rows:
            out = {self.key: row.get(self.key)} if self.key else {}
            out["at"] = batch.received if row.get("at") is None else row["at"]
            for field, factor, offset, name in self.columns:
                v = row.get(field)
                out[name] = v if v is None or factor is None else float(v) * factor + offset
            answer.rows.append(out)
        return answer
