"""A condition on one field: FIELD OP VALUE, with OP one of < <= > >= == !=, and VALUE a number, true, false or a text."""

import operator
import re

import msgspec

from .errors import SimError

_OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne}
_FORM = re.compile(r"\s*([A-Za-z_][\w.-]*)\s*(<=|>=|==|!=|<|>)\s*(.+?)\s*$")


def parse_condition(text):
    """A function of an event's values; false where the field is absent or not comparable. Raises SimError."""
    match = _FORM.match(text)
    if match is None:
        raise SimError(f"--where '{text}': expected FIELD OP VALUE, as in temp > 30; OP is one of {' '.join(_OPERATORS)}")
    field, sign, raw = match.groups()
    compare = _OPERATORS[sign]
    try:
        value = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        value = raw.strip("'")

    def holds(values):
        try:
            return field in values and bool(compare(values[field], value))
        except TypeError:
            return False
    return holds
