"""The scenario: what the fleet is, what it sends and what goes wrong. Typed; this file is its reference."""

import csv
import datetime
import functools
import gzip
import string
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from .errors import ScenarioError
from .problems import find_problems

Meta = msgspec.Meta
MALFORMED_KINDS = ("truncated", "garbage", "empty", "wrong_type", "not_utf8", "array")


def _is(kind, what, **limits):
    return Annotated[kind, Meta(description=what, **limits)]


def _chance(what):
    return _is(float, what + " (probability per event)", ge=0, le=1)


Name = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$", max_length=64)]
Decimals = _is(int, "digits after the point", ge=0, le=9)
Seconds = Annotated[float, Meta(ge=0, le=1e9)]


class _Table(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    pass


class _Sensor(_Table, tag_field="kind"):
    name: _is(Name, "the field's name; with format json-nested a dot makes an object of it")


class Constant(_Sensor, tag="constant"):
    """Always the same value."""
    value: _is(float | int | str | bool, "a number, a text or a boolean")


class Walk(_Sensor, tag="walk"):
    """Random walk between two bounds."""
    start: _is(float, "first value") = 20.0
    step: _is(float, "largest change per event", ge=0) = 0.1
    low: _is(float, "lowest value") = -1e9
    high: _is(float, "highest value") = 1e9
    decimals: Decimals = 2


class Sine(_Sensor, tag="sine"):
    """A daily (or other) wave over the scenario's time."""
    mean: _is(float, "middle") = 20.0
    amplitude: _is(float, "half the swing") = 5.0
    period_s: _is(float, "length of a wave", gt=0) = 86400.0
    phase_s: _is(float, "how far into the wave the scenario starts") = 0.0
    noise: _is(float, "uniform noise, plus or minus", ge=0) = 0.0
    decimals: Decimals = 2


class Spikes(_Sensor, tag="spikes"):
    """A quiet value with rare peaks."""
    base: _is(float, "the quiet value") = 20.0
    noise: _is(float, "uniform noise, plus or minus", ge=0) = 0.5
    height: _is(float, "a peak's largest height over the base; its smallest is half of it") = 20.0
    chance: _chance("a peak") = 0.01
    decimals: Decimals = 2


class Counter(_Sensor, tag="counter"):
    """An integer that grows, and wraps."""
    start: _is(int, "first value") = 0
    step: _is(int, "largest growth per event; each event adds 1 to step", ge=1) = 1
    wrap: _is(int, "first value that is 0 again", ge=2) = 1 << 32


class States(_Sensor, tag="states"):
    """A state machine: one of some texts."""
    states: _is(list[Annotated[str, Meta(min_length=1, max_length=64)]], "the texts; the first one is the start", min_length=1)
    change: _chance("leave for another state") = 0.05


class Replay(_Sensor, tag="replay"):
    """A column of a CSV file (.csv or .csv.gz, first line names the columns), a row per event, from the start again at the end."""
    file: _is(str, "path; a relative one starts at the scenario's directory", min_length=1)
    column: _is(str, "the column's name", min_length=1)
    spread: _is(int, "device k starts k x spread rows into the file", ge=0) = 0


Sensor = Constant | Walk | Sine | Spikes | Counter | States | Replay


class Step(_Table):
    """Clocks that are set."""
    at_s: _is(Seconds, "when, in scenario seconds")
    by_s: _is(float, "by how much; negative: back")
    devices: _is(int | None, "how many, chosen by the seed; all when absent") = None


class Storm(_Table):
    """Devices that lose their connection at once."""
    at_s: _is(Seconds, "when, in scenario seconds")
    devices: _is(int, "how many, chosen by the seed", ge=1)
    for_s: _is(Seconds, "how long they stay away; they buffer meanwhile and send all at reconnect") = 5.0


class HalfOpen(_Table):
    """Connections that die silently: the old one stays open, unread, while the device comes back on a new one."""
    at_s: _is(Seconds, "when, in scenario seconds")
    devices: _is(int, "how many, chosen by the seed", ge=1)
    for_s: _is(Seconds, "how long the dead connection stays open, in wall-clock seconds") = 30.0


class SlowLink(_Table):
    """Devices behind a thin link."""
    devices: _is(int, "how many, chosen by the seed", ge=1)
    bytes_per_s: _is(float, "what the link carries, in bytes per wall-clock second", ge=1)


class Faults(_Table):
    """What goes wrong. All off unless asked for."""
    duplicates: _chance("the event is published twice, as a new packet") = 0.0
    disorder: _chance("the event is held back behind the next ones") = 0.0
    disorder_depth: _is(int, "how many events overtake it", ge=1, le=1000) = 3
    drops: _chance("the device never sends the event; its sequence number is used up, the truth does not hold it") = 0.0
    malformed: _chance("the payload is broken: a dead letter is expected") = 0.0
    malformed_kinds: _is(list[Literal[MALFORMED_KINDS]], "which ways of being broken", min_length=1) = msgspec.field(default_factory=lambda: list(MALFORMED_KINDS))
    lost_acks: _chance("the connection is lost before the acknowledgement is read; the packet is sent again with DUP") = 0.0
    offline: _chance("the device goes away for offline_s, buffers, and sends all at reconnect") = 0.0
    offline_s: _is(Seconds, "how long, in scenario seconds") = 10.0
    skew_s: _is(Seconds, "each device's clock is off by up to this, plus or minus") = 0.0
    drift_ppm: _is(float, "each device's clock runs fast or slow by up to this many millionths", ge=0, le=1e5) = 0.0
    steps: _is(list[Step], "clock steps") = []
    storms: _is(list[Storm], "disconnect storms") = []
    half_open: _is(list[HalfOpen], "half-open connections") = []
    slow_link: _is(SlowLink | None, "slow links") = None


class Group(_Table):
    """Devices of one kind."""
    name: _is(Name, "the group's name, unique")
    sensors: _is(list[Sensor], "what it measures", min_length=1)
    count: _is(int, "how many devices", ge=1, le=100_000) = 1
    id: _is(str, "device id; {n} is the device's number from 0 (formats as in {n:03}), {group} the group's name", min_length=1) = "{group}-{n:04}"
    topic: _is(str, "topic; {device}, {n} and {group} are filled in", min_length=1) = "sensors/{group}/{device}"
    qos: _is(Literal[0, 1, 2], "MQTT quality of service") = 1
    mqtt: _is(Literal["3.1.1", "5"], "MQTT version") = "3.1.1"
    format: _is(Literal["json", "json-nested", "msgpack", "raw"], "payload; raw is `device,seq,time,value,...` as text") = "json"
    rate: _is(float, "events per second and device", gt=0, le=1e6) = 1.0
    jitter: _is(float, "each event comes late by up to this part of the period", ge=0, le=1) = 0.0
    first_seq: _is(int, "sequence number of a device's first event", ge=0, le=1 << 52) = 0
    device_field: _is(Name, "field that carries the device id") = "device"
    seq_field: _is(Name, "field that carries the device's sequence number") = "seq"
    time_field: _is(Name, "field that carries the device's time") = "ts"
    time_unit: _is(Literal["s", "ms", "us", "ns", "iso"], "unit of it since 1970; iso is RFC 3339 text") = "ms"
    window: _is(int, "unacknowledged packets per device", ge=1, le=65535) = 20
    buffer_max: _is(int, "events a device holds while it cannot send; then the oldest are given up (and are not in the truth)", ge=1) = 10_000
    keepalive_s: _is(int, "MQTT keep-alive", ge=1, le=65535) = 60
    faults: _is(Faults, "what goes wrong") = Faults()


class Scenario(_Table):
    """A fleet."""
    name: _is(Name, "for people")
    group: _is(list[Group], "the fleet", min_length=1)
    seed: _is(int, "the same seed, start and scenario send the same bytes") = 1
    start: _is(datetime.datetime | None, "scenario time begins here (TOML date-time; UTC when it names no zone); now when absent") = None
    speed: _is(float | Literal["max"], "scenario seconds per wall-clock second; max: as fast as the broker takes it") = 1.0


def load_scenario(path) -> Scenario:
    """Read and check a TOML scenario. Replay paths become absolute. Raises ScenarioError with all problems."""
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ScenarioError(path, [f"cannot be read: {error.strerror}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(path, [f"is not TOML: {error}"]) from None
    problems = find_problems(raw, Scenario)
    if problems:
        raise ScenarioError(path, problems)
    _resolve_replays(raw, path.parent)
    scenario = msgspec.convert(raw, Scenario)
    problems = list(_contradictions(scenario))
    if problems:
        raise ScenarioError(path, problems)
    return scenario


@functools.lru_cache(maxsize=64)
def replay_column(path, column) -> tuple:
    """The column's values: int or float where the text is one, else str. Raises OSError, KeyError, ValueError."""
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        index = {name: i for i, name in enumerate(next(rows, []))}[column]
        values = tuple(_plain(row[index]) for row in rows if len(row) > index)
    if not values:
        raise ValueError("no rows")
    return values


def _plain(text):
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if abs(value) < 1 << 63 else text     # also refuses inf; nan compares false
    return text


def _resolve_replays(raw, directory):
    for group in raw["group"]:
        for sensor in group["sensors"]:
            if sensor["kind"] == "replay":
                sensor["file"] = str((directory / sensor["file"]).resolve())


def _contradictions(scenario):
    seen = {}
    for i, group in enumerate(scenario.group):
        at = f"group[{i}]"
        if group.name in seen:
            yield f"{at}.name: '{group.name}' is group[{seen[group.name]}] already"
        seen.setdefault(group.name, i)
        yield from (f"{at}.{p}" for p in _identity_problems(group))
        yield from (f"{at}.{p}" for p in _field_problems(group))
        yield from (f"{at}.faults.{p}" for p in _fault_problems(group))
        for k, sensor in enumerate(group.sensors):
            yield from (f"{at}.sensors[{k}].{p}" for p in _sensor_problems(sensor))
    if scenario.speed != "max" and scenario.speed <= 0:
        yield "speed: must be greater than 0"


def _identity_problems(group):
    fine = True
    for key, template, known in (("id", group.id, {"n", "group"}), ("topic", group.topic, {"n", "group", "device"})):
        try:
            names = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
            unknown = sorted(names - known)
            text = template.format(n=0, group=group.name, device="d") if not unknown else ""
        except (ValueError, IndexError, KeyError, AttributeError) as error:
            yield f"{key}: '{template}' is no pattern: {error}"
            fine = False
            continue
        if unknown:
            yield f"{key}: '{{{unknown[0]}}}' is not one of {', '.join('{%s}' % k for k in sorted(known))}"
            fine = False
        elif not text.isprintable() or any(c in text for c in ("+#" if key == "topic" else "\"\\")) or len(text.encode()) > 1024:
            yield f"{key}: must be printable, without {'+ and #' if key == 'topic' else 'quotes and backslashes'}, 1024 bytes at most"
            fine = False
    if fine and group.count > 1 and group.id.format(n=0, group="g") == group.id.format(n=1, group="g"):
        yield "id: needs {n}: the group has more than one device"


def _field_problems(group):
    names = [group.device_field, group.seq_field, group.time_field] + [s.name for s in group.sensors]
    for name in sorted({n for n in names if names.count(n) > 1}):
        yield f"sensors: two fields are called '{name}'"
    if group.format == "json-nested":
        for name in names:
            if any(other.startswith(name + ".") for other in names):
                yield f"sensors: '{name}' cannot be a value and an object at once"
            if "" in name.split("."):
                yield f"sensors: '{name}' has an empty part"


def _fault_problems(group):
    faults = group.faults
    if faults.lost_acks and not group.qos:
        yield "lost_acks: qos 0 has no acknowledgements; set qos = 1 or 2"
    if faults.malformed and group.format == "raw":
        yield "malformed: a raw payload has no form to break; use another format"
    selections = [(f"{key}[{i}]", item) for key in ("steps", "storms", "half_open") for i, item in enumerate(getattr(faults, key))]
    if faults.slow_link:
        selections.append(("slow_link", faults.slow_link))
    for at, item in selections:
        if item.devices is not None and not 1 <= item.devices <= group.count:
            yield f"{at}.devices: {item.devices} of a group of {group.count}"


def _sensor_problems(sensor):
    if isinstance(sensor, Walk) and not sensor.low <= sensor.start <= sensor.high:
        yield f"start: {sensor.start} is not between low {sensor.low} and high {sensor.high}"
    if isinstance(sensor, Replay):
        try:
            replay_column(sensor.file, sensor.column)
        except OSError as error:
            yield f"file: {sensor.file}: {error.strerror or error}"
        except KeyError:
            yield f"column: {sensor.file} has no column '{sensor.column}'"
        except (ValueError, EOFError, csv.Error) as error:
            yield f"file: {sensor.file}: {error}"
