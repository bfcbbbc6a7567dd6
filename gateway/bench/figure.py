"""A figure: what was measured, what is demanded, beside what."""

import json
from dataclasses import dataclass


@dataclass
class Figure:
    """`value` in `unit`; met when it is at most `demand` (at least, with more=True). `baseline` names what `ratio` compares with."""

    figure: str
    value: float
    unit: str
    demand: float | None = None
    more: bool = False
    baseline: str | None = None
    ratio: float | None = None
    note: str = ""

    @property
    def met(self):
        if self.demand is None:
            return None
        return self.value >= self.demand if self.more else self.value <= self.demand

    def to_json(self) -> str:
        data = {"figure": self.figure, "value": _rounded(self.value), "unit": self.unit, "demand": self.demand, "met": self.met,
                "baseline": self.baseline, "ratio": _rounded(self.ratio)}
        return json.dumps(data | ({"note": self.note} if self.note else {}))

    def to_text(self) -> str:
        verdict = "" if self.met is None else "met" if self.met else "NOT MET"
        demand = "" if self.demand is None else f"demand {'>=' if self.more else '<='} {self.demand:g}"
        ratio = "" if self.ratio is None else f"{self.ratio:.3g} x {self.baseline}"
        return f"{self.figure:44} {_rounded(self.value):>12} {self.unit:14} {demand:18} {verdict:8} {ratio} {self.note}".rstrip()


def _rounded(value):
    return value if value is None or isinstance(value, int) else float(f"{value:.4g}")
