"""A data directory seen from outside: its logs, what their records mean, and dead letters as plain data. Reads only, beside a running gateway too."""

import json
import os
from functools import cached_property

import msgpack

from edge.codec.batches import decode_columns, json_rows
from edge.columns.schema import Schema
from edge.errors import ConfigError, DiskError
from edge.fates import fate, learn
from edge.identity import schemas_of
from edge.storage.cipher import cipher_of
from edge.storage.disk import Disk
from edge.storage.reading import LogReader
from edge.storage.records import BATCH, DEAD, FATE, SCHEMA, TICK, read_letter
from edge.times import timestamp
from gateway.config import reader as config
from gateway.keys import encryption_key


def add_place(parser):
    """The arguments that name a data directory."""
    place = parser.add_mutually_exclusive_group()
    place.add_argument("-c", "--config", default="tidegate.toml", help="the configuration, which names the data directory (tidegate.toml)")
    place.add_argument("--data", metavar="DIR", help="the data directory itself")


class Store:
    """A data directory. schemas: number -> Schema, from identity.json and from the SCHEMA records met so far."""

    def __init__(self, arguments, settings=None):
        """arguments: what add_place() gave; settings: the configuration, if it is loaded already. Raises ConfigError when there is no such directory."""
        self._settings = config.load(arguments.config) if settings is None and not arguments.data else settings
        self.directory = arguments.data or self._settings.gateway.data
        if not os.path.isdir(self.directory):
            raise ConfigError(f"{self.directory}: there is no data directory; name it with --data, or the configuration with -c")
        self._disk = Disk()
        self.schemas = schemas_of(self._disk, self.directory)

    @cached_property
    def cipher(self):
        """Of encrypted logs; None without a configuration: then their headers can be read, and no more. Raises ConfigError for a key that is not theirs."""
        return cipher_of(self._disk, self.directory, encryption_key(self._settings)) if self._settings else None

    def names(self) -> list[str]:
        """The logs that are there: "journal", "outbox/LANE", "dead", "checkpoints"."""
        lanes = os.path.join(self.directory, "outbox")
        outboxes = sorted(f"outbox/{name}" for name in os.listdir(lanes)) if os.path.isdir(lanes) else []
        names = ["journal", *outboxes, "dead", "checkpoints"]
        return [name for name in names if os.path.isdir(os.path.join(self.directory, name))]

    def log(self, name) -> LogReader:
        """Raises ConfigError for a log that is not there, DiskError as LogReader does."""
        known = self.names()
        if name not in known:
            raise ConfigError(f"{self.directory}: there is no log {name!r}; there are {', '.join(known) or 'none'}")
        return LogReader(self._disk, f"{self.directory}/{name}", self.cipher)

    # --- what records mean

    def learn(self, record):
        """Take over what a SCHEMA record says. Raises DiskError."""
        try:
            self.schemas[record.stream] = Schema.from_dict(msgpack.unpackb(record.payload))
        except (ValueError, KeyError, TypeError) as error:
            raise DiskError(f"a schema record cannot be decoded: {error}") from None

    def stream(self, number) -> str:
        """The name of a stream; "#NUMBER" when no schema tells it."""
        return self.schemas[number].stream if number in self.schemas else f"#{number}"

    def batch(self, number, columns):
        """A stored batch. Raises DiskError, also when its schema is not known."""
        if number not in self.schemas:
            raise DiskError(f"stream #{number}: no schema of it is left")
        return decode_columns(columns, self.schemas[number])

    def check(self, record):
        """Decode a record to the end. Raises DiskError."""
        if record.kind == SCHEMA:
            self.learn(record)
        elif record.kind == BATCH:
            batch = self.batch(record.stream, record.payload)
            if (len(batch), batch.first_sequence) != (record.count, record.first):
                raise DiskError(f"stream {self.stream(record.stream)}: a batch holds other rows than its record says")
        elif record.kind == DEAD:
            content = letter(record)
            if "columns" in content:
                self.batch(record.stream, content["columns"])
        elif record.kind == FATE:
            fate(record)

    def received_ns(self, record) -> int | None:
        """When what the record holds was received; None for a record that does not say. Raises DiskError."""
        if record.kind == BATCH:
            return self.batch(record.stream, record.payload).received_ns
        if record.kind == TICK:
            return record.first
        return letter(record)["received_ns"] if record.kind == DEAD else None

    # --- dead letters

    def fates(self, reader) -> dict:
        """What became of the letters of the dead log: number -> state; those that wait are not in it."""
        known = {}
        for record in reader.all():
            try:
                if record.kind == FATE:
                    learn(known, fate(record))
            except DiskError:
                continue                 # `tidegate buffer verify` says it
        return known

    def letter(self, record, rows_max=None) -> dict:
        """A dead letter as data for JSON; `number` is its position. rows_max: of the batch that a rule trapped on. Raises DiskError."""
        content = letter(record)
        out = {"number": record.position, "received": timestamp(content["received_ns"]), "reason": content["reason"],
               "stream": self.stream(record.stream) if record.stream else None, "journal_position": record.first, "events": record.count}
        out |= {name: content[name] for name in ("topic", "rule", "module", "backtrace", "size", "withheld") if name in content}
        if "payload" in content:
            try:
                out["payload"] = content["payload"].decode()
            except UnicodeDecodeError:
                out["payload_hex"] = content["payload"].hex()
        if "columns" in content and rows_max != 0:
            out["rows"] = rows_of(self.batch(record.stream, content["columns"]), rows_max)
        return out


def letter(record) -> dict:
    """What a DEAD record holds. Raises DiskError."""
    try:
        content = read_letter(record.payload)
        content["reason"], timestamp(content["received_ns"])
        return content
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise DiskError(f"dead letter {record.position} cannot be decoded: {error!r}") from None


def rows_of(batch, rows_max=None) -> list[dict]:
    """Rows as data for JSON, each with its sequence."""
    count = len(batch) if rows_max is None else min(rows_max, len(batch))
    rows = json_rows(batch.select(range(count)) if count < len(batch) else batch)
    return [{"sequence": batch.first_sequence + i, **json.loads(row)} for i, row in enumerate(rows)]


# --- text


def plain(text) -> str:
    """Text for a terminal: what devices sent must not steer it."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(text))
