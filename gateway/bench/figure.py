"""A figure: what was measured, what is demanded, beside what."""

import json
from dataclasses import dataclass


@dataclass
class Figure:
    """`value` in `unit`, None when it could not be measured and `note` says why; met when it is at most `demand` (at least, with more=True).

    ratio: value / that of `baseline`, in words.
    """

    figure: str
    value: float | None
    unit: str
    demand: float | None = None
    more: bool = False
    baseline: str | None = None
    ratio: float | None = None
    note: str = ""

    @property
    def met(self):
        if self.demand is None or self.value is None:
            return None
        return self.value >= self.demand if self.more else self.value <= self.demand

    def to_json(self) -> str:
        data = {"figure": self.figure, "value": _rounded(self.value), "unit": self.unit, "demand": self.demand, "met": self.met,
                "baseline": self.baseline, "ratio": _rounded(self.ratio)}
        return json.dumps(data | ({"note": self.note} if self.note else {}))

    def to_text(self) -> str:
        value = "-" if self.value is None else f"{_rounded(self.value):,}"
        verdict = ("" if self.demand is None else "not measured") if self.met is None else "met" if self.met else "NOT MET"
        demand = "" if self.demand is None else f"{'>=' if self.more else '<='} {self.demand:,g}"
        ratio = "" if self.ratio is None else f"{self.ratio:.3g} x {self.baseline}"
        words = "; ".join(filter(None, (ratio, self.note)))
        return f"{self.figure:46} {value:>10} {self.unit:12} {demand:>10} {verdict:12} {words}".rstrip()


def _rounded(value):
    return value if value is None or isinstance(value, int) else float(f"{value:.4g}")
