"""A recording: a journal with what it takes to play it again: the meaning of its numbers, the time settings of its streams, the rules that ran.

It is a gateway's data directory with the settings of its configuration, or a slice, which `tidegate buffer export --slice` makes:

    recording.json       {"version": 1, "gateway", "from", "to", "masked": {field: how}, "streams": {name: Spans}, "rules": [Ruled]}
    rules/DIGEST.wasm    the modules that `rules` names
    identity.json, journal/*.seg    as in a data directory (docs/format/log.md)

A slice is read from a directory or from a .tar of it, which is kept in memory. A gateway may be writing to the directory meanwhile.
"""

import os
import tarfile
from typing import Any

import msgpack
import msgspec
from msgspec import Struct

from edge import whole
from edge.disk import Disk
from edge.errors import ConfigError, DiskError, RuleError
from edge.identity import schemas_of
from edge.limits import Limits
from edge.memory import Memory
from edge.module import MODULE_BYTES_MAX, Module
from edge.reading import LogReader
from edge.records import BATCH, SCHEMA, SKIP
from edge.schema import Schema

VERSION = 1
SETTINGS = "recording.json"
SETTINGS_BYTES_MAX = 4 << 20
ARCHIVE_BYTES_MAX = 2 << 30              # of a .tar, unpacked: it is held in memory
DEPLOYMENTS = "rules/deployments.json"


class Spans(Struct, forbid_unknown_fields=True):
    """Of one input stream, as its configuration says."""

    lateness_ns: int = 0
    idle_ns: int = 30 * 10**9
    skew_ns: int = 60 * 10**9
    keys_max: int = 65536


class Ruled(Struct):
    """A rule that ran. module: digest of one under rules/, or the path of a file. limits: arguments of edge.limits.Limits."""

    rule: str
    input: str
    module: str
    params: dict[str, Any] = {}
    limits: dict[str, int] = {}


class Settings(Struct, forbid_unknown_fields=True):
    """Of recording.json. start, stop: "from" and "to", as they were asked for."""

    version: int
    gateway: str
    streams: dict[str, Spans]
    rules: list[Ruled]
    start: str | None = msgspec.field(name="from", default=None)
    stop: str | None = msgspec.field(name="to", default=None)
    masked: dict[str, str] = {}


class Recording:
    """settings: Settings. reader: the journal's LogReader. schemas: number -> Schema, of all that the journal may name."""

    def __init__(self, path, settings=None):
        """path: a slice, or a data directory, whose settings must be given. Raises ConfigError for what is no recording, DiskError as LogReader does."""
        self.path = str(path)
        if os.path.isfile(path):
            self._disk, self._directory = _unpacked(path), "slice"
        elif os.path.isdir(path):
            self._disk, self._directory = Disk(), str(path)
        else:
            raise ConfigError(f"{path}: there is no such directory or archive")
        self.settings = settings or self._settings()
        self.reader = LogReader(self._disk, f"{self._directory}/journal")
        self.schemas = schemas_of(self._disk, self._directory)
        self._survey()

    def module(self, ruled) -> Module:
        """Raises RuleError for one that is not there or damaged."""
        path = ruled.module if os.sep in ruled.module else f"{self._directory}/rules/{ruled.module}.wasm"
        try:
            wasm = whole.read(Disk() if os.sep in ruled.module else self._disk, path, MODULE_BYTES_MAX)
        except OSError as error:
            raise RuleError(f"rule {ruled.rule}: {path}: {error.strerror}", rule=ruled.rule) from None
        module = Module(wasm, f"rule {ruled.rule}")
        if os.sep not in ruled.module and module.digest != ruled.module:
            raise RuleError(f"rule {ruled.rule}: {path}: its bytes are not those that its name says", rule=ruled.rule)
        return module

    def schema(self, stream) -> Schema | None:
        """What a stream held in the end."""
        return self._latest.get(stream)

    def _settings(self):
        try:
            data = whole.read(self._disk, f"{self._directory}/{SETTINGS}", SETTINGS_BYTES_MAX)
        except FileNotFoundError:
            raise ConfigError(f"{self.path}: is no slice: name the gateway's configuration with --config, which says lateness and rules") from None
        except OSError as error:
            raise DiskError(f"{self.path}/{SETTINGS}: {error.strerror}") from None
        return read_settings(data, f"{self.path}/{SETTINGS}")

    def _survey(self):
        """Schemas as the journal has them, the calls that trapped, and the events by stream."""
        self._latest, self.skips, self.events = {}, [], {}
        numbers = dict(self.schemas)
        for record in self.reader.all():
            if record.kind == SCHEMA:
                try:
                    schema = Schema.from_dict(msgpack.unpackb(record.payload))
                except (ValueError, KeyError, TypeError):
                    continue
                numbers[record.stream] = self.schemas[record.stream] = schema
            elif record.kind == SKIP:
                self.skips.append(record)
            elif record.kind == BATCH and record.stream in numbers:
                schema = numbers[record.stream]
                self._latest[schema.stream] = schema
                self.events[schema.stream] = self.events.get(schema.stream, 0) + record.count


def read_settings(data, place) -> Settings:
    """Raises ConfigError."""
    try:
        settings = msgspec.json.decode(data, type=Settings)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{place}: is damaged: {error}") from None
    if settings.version > VERSION:
        raise ConfigError(f"{place}: written by a newer version (format {settings.version}, this program knows {VERSION}): use the newer version's `tidegate`")
    for ruled in settings.rules:
        if os.sep in ruled.module:
            raise ConfigError(f"{place}: rule {ruled.rule}: a slice has its modules under rules/, not at {ruled.module!r}")
    return settings


def deployed(directory) -> list[Ruled] | None:
    """The rules that a gateway on a data directory says are at work; None where it says nothing."""
    try:
        content = whole.unseal(whole.read(Disk(), f"{directory}/{DEPLOYMENTS}", whole.SEALED_BYTES_MAX))
        return [Ruled(d["rule"], d["input"], d["digest"], d.get("params") or {}, d.get("limits") or {})
                for d in content["deployments"] if d["digest"] and d.get("enabled", True)]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def limits_of(ruled) -> Limits:
    """Memory and output as they were; time is not asked for, because this is another machine."""
    kept = {name: value for name, value in ruled.limits.items() if name in ("memory_bytes", "output_bytes")}
    return Limits(time_ns=60 * 10**9, **kept)


# --- archives


def _unpacked(path) -> Memory:
    """A .tar, compressed or not, as files in memory under slice/."""
    files, size = {}, 0
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                parts = [part for part in member.name.split("/") if part not in ("", ".")]
                if not member.isfile() or not parts or ".." in parts:
                    continue
                size += member.size
                if size > ARCHIVE_BYTES_MAX:
                    raise ConfigError(f"{path}: holds more than {ARCHIVE_BYTES_MAX >> 30} GiB: unpack it and name the directory")
                files["/".join(parts)] = archive.extractfile(member).read()
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise ConfigError(f"{path}: is no archive of a slice: {error}") from None
    settings = [name for name in files if name.rpartition("/")[2] == SETTINGS]
    if len(settings) != 1:
        raise ConfigError(f"{path}: is no slice: there is {'no' if not settings else 'more than one'} {SETTINGS} in it")
    root = settings[0][:-len(SETTINGS)]
    return Memory({f"slice/{name[len(root):]}": data for name, data in files.items() if name.startswith(root)})


def pack(directory, path):
    """A slice's directory as a .tar, compressed where its name ends so. The same slice gives the same bytes. Raises OSError."""
    mode = "w:gz" if str(path).endswith(("gz", "tgz")) else "w"
    with tarfile.open(path, mode) as archive:
        for root, _, names in sorted(os.walk(directory)):
            for name in sorted(names):
                full = os.path.join(root, name)
                info = tarfile.TarInfo(os.path.relpath(full, directory))
                info.size = os.path.getsize(full)
                with open(full, "rb") as file:
                    archive.addfile(info, file)
