"""All problems of a table at once: unknown keys, missing keys and wrong values, each with its place."""

import difflib
import types
import typing

import msgspec


def find_problems(raw, hint, place="") -> list[str]:
    """Compare plain data with a type made of msgspec Structs, lists and leaves; one line a problem, "place: what"."""
    problems = []
    _check(raw, hint, place, problems)
    return problems


def bare(hint):
    """The type without Annotated."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def structs_of(hint) -> dict:
    """tag -> Struct of a tagged union; empty for other types."""
    hint = bare(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        options = typing.get_args(hint)
        if all(isinstance(o, type) and issubclass(o, msgspec.Struct) for o in options):
            return {o.__struct_config__.tag: o for o in options}
    return {}


def near(word, known) -> str:
    """A hint for a misspelt word, or the list of what there is."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"


def _check(raw, hint, place, problems):
    kind = bare(hint)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        _check_table(raw, kind, place, problems)
    elif typing.get_origin(kind) is list and isinstance(raw, list):
        for i, item in enumerate(raw):
            _check(item, typing.get_args(kind)[0], f"{place}[{i}]", problems)
        _check_leaf([], hint, place, problems) if not raw else None
    elif structs_of(kind):
        _check_tagged(raw, structs_of(kind), place, problems)
    else:
        _check_leaf(raw, hint, place, problems)


def _check_leaf(raw, hint, place, problems):
    try:
        msgspec.convert(raw, hint)
    except msgspec.ValidationError as error:
        what = str(error).split(" - at ")[0]
        problems.append(f"{place}: {what[0].lower()}{what[1:]}")


def _check_table(raw, struct, place, problems, tag=None):
    if not isinstance(raw, dict):
        problems.append(f"{place}: expected a table")
        return
    fields = {f.encode_name: f for f in msgspec.structs.fields(struct)}
    known = list(fields) + ([tag] if tag else [])
    at = f"{place}." if place else ""
    for key in raw:
        if key not in known:
            problems.append(f"{at}{key}: unknown key; {near(key, known)}")
    for name, field in fields.items():
        if name in raw:
            _check(raw[name], field.type, at + name, problems)
        elif field.required:
            problems.append(f"{at}{name}: missing")


def _check_tagged(raw, options, place, problems):
    tag = next(iter(options.values())).__struct_config__.tag_field
    if not isinstance(raw, dict):
        problems.append(f"{place}: expected a table")
    elif tag not in raw:
        problems.append(f"{place}.{tag}: missing; known: {', '.join(options)}")
    elif raw[tag] not in options:
        problems.append(f"{place}.{tag}: unknown {tag} '{raw[tag]}'; {near(str(raw[tag]), list(options))}")
    else:
        _check_table(raw, options[raw[tag]], place, problems, tag)
