"""A recording: a journal with what it takes to play it again: the meaning of its numbers, the time settings of its streams, the rules that ran.

It is a gateway's data directory with the settings of its configuration, or a slice, which `tidegate buffer export --slice` makes:

    recording.json       {"version": 1, "gateway", "whole", "from", "to", "masked": {field: how}, "streams": {name: Spans}, "rules": [Ruled]}
    rules/DIGEST.wasm    the modules that `rules` names
    journal/*.seg        as in a data directory (docs/format/log.md)

A slice is read from a directory or from a .tar of it, which is kept in memory. A gateway may be writing to the directory meanwhile.
"""

import os
import tarfile
import zlib
from typing import Any

import msgpack
import msgspec
from msgspec import Struct

from edge.codec.batches import decode_columns
from edge.columns.schema import Schema
from edge.errors import ConfigError, DiskError, RuleError
from edge.host.limits import Limits
from edge.host.module import MODULE_BYTES_MAX, Module
from edge.identity import schemas_of
from edge.storage import whole
from edge.storage.cipher import is_encrypted
from edge.storage.disk import Disk
from edge.storage.memory import Memory
from edge.storage.reading import LogReader
from edge.storage.records import BATCH, SCHEMA, SKIP, TICK

VERSION = 1
SETTINGS = "recording.json"
SETTINGS_BYTES_MAX = 4 << 20
TIME_NS_LEAST = 10**9                    # of a call for up to 1,024 rows
ARCHIVE_BYTES_MAX = 2 << 30              # of a .tar, unpacked: it is held in memory
DEPLOYMENTS, CATALOGUE = "rules/deployments.json", "rules/catalogue.json"


class Spans(Struct, forbid_unknown_fields=True):
    """Of one input stream, as its configuration says."""

    lateness_ns: int = 0
    idle_ns: int = 30 * 10**9
    skew_ns: int = 60 * 10**9
    keys_max: int = 65536


class Ruled(Struct):
    """A rule that ran. module: digest of one under rules/, or the path of a file. limits: arguments of edge.host.limits.Limits."""

    rule: str
    input: str
    module: str
    params: dict[str, Any] = {}
    limits: dict[str, int] = {}


class Settings(Struct, forbid_unknown_fields=True):
    """Of recording.json. whole: the journal begins with the gateway's first event. start, stop: "from" and "to", as they were asked for."""

    version: int
    gateway: str
    streams: dict[str, Spans]
    rules: list[Ruled]
    whole: bool = True
    start: str | None = msgspec.field(name="from", default=None)
    stop: str | None = msgspec.field(name="to", default=None)
    masked: dict[str, str] = {}


class Recording:
    """name: for people. settings: Settings. reader: the journal's LogReader. schemas: number -> Schema, of all that the journal may name. skips: the
    records of calls that trapped. events: input stream -> how many."""

    def __init__(self, disk, directory, settings, name, cipher=None):
        """cipher: of an encrypted data directory; a slice is plain. Raises DiskError as LogReader does."""
        self.name, self.settings = name, settings
        self._disk, self._directory = disk, directory
        self.reader = LogReader(disk, f"{directory}/journal", cipher)
        self.schemas = schemas_of(disk, directory)
        self._latest, self.skips, self.events = {}, [], {}
        self._survey()

    @property
    def whole(self) -> bool:
        """Rules that begin with its first record have all the state that they had on the gateway."""
        return self.settings.whole and self.reader.tail == 0

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

    def stored(self, text) -> Module | None:
        """The module that name@version, or a digest or its beginning, names in the rule store of a data directory; None when there is none."""
        try:
            entries = whole.unseal(whole.read(self._disk, f"{self._directory}/{CATALOGUE}", whole.SEALED_BYTES_MAX))["entries"]
            found = [e["digest"] for e in entries if text == f"{e['name']}@{e['version']}" or len(text) >= 6 and e["digest"].startswith(text)]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return self.module(Ruled(text, "", found[-1])) if found else None

    def received_ns(self, record) -> int | None:
        """When what a record holds was received; None for one that does not say, or cannot be read."""
        if record.kind == TICK:
            return record.first
        try:
            return decode_columns(record.payload, self.schemas[record.stream]).received_ns if record.kind == BATCH else None
        except (DiskError, KeyError):
            return None

    def schema(self, stream) -> Schema | None:
        """What a stream held in the end."""
        return self._latest.get(stream)

    def _survey(self):
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


def open_recording(path, settings=None) -> Recording:
    """A slice, or a gateway's data directory, whose settings must be given. Raises ConfigError for what is no recording, DiskError."""
    path = str(path)
    if os.path.isfile(path):
        disk, directory = _unpacked(path), "slice"
    elif os.path.isdir(path):
        disk, directory = Disk(), path
    else:
        raise ConfigError(f"{path}: there is no such directory or archive")
    if is_encrypted(disk, directory):
        raise ConfigError(f"{path}: is encrypted: make a slice of it where its key is, by `tidegate buffer export --slice`, and replay that")
    return Recording(disk, directory, settings or read_settings(disk, directory, path), path)


def read_settings(disk, directory, name) -> Settings:
    """Of a slice. Raises ConfigError, DiskError."""
    place = f"{name}/{SETTINGS}"
    try:
        data = whole.read(disk, f"{directory}/{SETTINGS}", SETTINGS_BYTES_MAX)
    except FileNotFoundError:
        raise ConfigError(f"{name}: is no slice; of a gateway's data directory name the configuration, too, by --config: it says lateness and idle") from None
    except OSError as error:
        raise DiskError(f"{place}: {error.strerror}") from None
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
    """Memory and output as they were, and more time, because this is another machine: what ran out of it there is known from the journal."""
    return Limits(**ruled.limits | {"time_ns": max(TIME_NS_LEAST, ruled.limits.get("time_ns", 0))})


# --- archives


def slice_settings(settings) -> bytes:
    """Of recording.json."""
    return msgspec.json.format(msgspec.json.encode(settings), indent=1) + b"\n"


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
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        raise ConfigError(f"{path}: is no archive of a slice: {str(error).partition(chr(10))[0]}") from None
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
