"""Slices: a part of a gateway's journal to take along, with all that a replay needs (edge/rehearsal/recording.py), and fields masked on request.

A mask is FIELD=HOW or STREAM.FIELD=HOW, HOW one of
    drop          the value is null
    hash          a text becomes 16 hexadecimal digits of its HMAC-SHA256: equal texts stay equal, and nobody without the key finds them out by trying
    truncate:N    a text is cut to its first N characters, an f64 to N decimals
A mask counts for every row of the slice. The rules then see masked values, so what they put out may differ from what they put out on the gateway.
"""

import hashlib
import hmac
import math
import os
import re
import tempfile

from edge.codec.batches import encode_columns
from edge.columns._batch import Batch
from edge.errors import ConfigError, DiskError
from edge.rehearsal.recording import SETTINGS, VERSION, Recording, Ruled, Settings, Spans, deployed, pack, slice_settings
from edge.storage import whole
from edge.storage.disk import Disk
from edge.storage.log import Log
from edge.storage.records import BATCH, CLOCK, SCHEMA, SKIP, TICK
from gateway.deploy.lineup import Lineup

NO_QUOTA = 1 << 50
RANDOM_KEY = os.urandom(32)


class Mask:
    """One --mask. key: of its hash, bytes, None for one that nobody knows. found: there was such a field."""

    def __init__(self, text, key):
        """Raises ConfigError."""
        self.text = text
        match = re.fullmatch(r"(?:([^.=]+)\.)?([^=]+)=(drop|hash|truncate:(\d{1,3}))", text)
        if not match:
            raise ConfigError(f"--mask {text}: write FIELD=drop, FIELD=hash or FIELD=truncate:N, or STREAM.FIELD for one stream's field")
        self.stream, self.field, self.how = match[1], match[2], match[3]
        self._n, self.found = int(match[4] or 0), False
        self._key = key or RANDOM_KEY
        self.name = f"{self.stream}.{self.field}" if self.stream else self.field
        self.said = self.how if self.how != "hash" else "hash, by a given key" if key else "hash, by a random key that is not kept"

    def value(self, value, kind):
        """Raises ConfigError where the field's kind has no such mask."""
        if value is None or self.how == "drop":
            return None
        if kind == "str":
            return value[:self._n] if self.how != "hash" else hmac.new(self._key, value.encode(), hashlib.sha256).hexdigest()[:16]
        if kind == "f64" and self.how != "hash":
            return float(f"{math.copysign(math.floor(abs(value) * 10**self._n) / 10**self._n, value):.{self._n}f}") if math.isfinite(value) else value
        raise ConfigError(f"--mask {self.field}={self.how}: the field is {kind}; hash takes texts, truncate texts and f64, drop any")


class Slice:
    """store: gateway.inspection.store.Store of a data directory. config: its gateway's. records, events: written. whole: nothing was left out before them."""

    def __init__(self, store, config, masks):
        """Raises ConfigError, DiskError."""
        self.records, self.events, self.whole = 0, 0, True
        self._store, self._config, self._masks = store, config, masks
        spans = {name: Spans(*map(int, (s.lateness, s.idle, s.skew, s.keys_max))) for name, s in config.streams.items()}
        self._settings = Settings(VERSION, config.gateway.name, spans, [])
        self._recording = Recording(Disk(), store.directory, self._settings, store.directory, store.cipher)
        self._schemas = {}               # number -> payload of its SCHEMA record, for each segment's beginning

    def write(self, path, start, stop):
        """The slice, as a directory, or as a .tar where the path ends so. start, stop: (text as asked for, fn(position, received ns or None) -> whether
        that is reached), or None. The path appears whole or not at all. Raises ConfigError, DiskError."""
        if os.path.exists(path):
            raise ConfigError(f"{path}: is there already; remove it, or take another name")
        archive = path.endswith((".tar", ".tar.gz", ".tgz"))
        try:
            with tempfile.TemporaryDirectory(prefix=".slice-", dir=os.path.dirname(os.path.abspath(path))) as scratch:
                made = f"{scratch}/slice"
                self._journal(made, start, stop)
                self._rules(made)
                self._finish(made, start, stop)
                if archive:
                    pack(made, made := f"{scratch}/{os.path.basename(path)}")
                os.rename(made, path)
        except OSError as error:
            raise DiskError(f"{path}: cannot be written: {error.strerror or error}") from None
        wrong = [mask for mask in self._masks if not mask.found]
        return [f"--mask {mask.text}: no event in the slice has such a field" for mask in wrong]

    # --- parts

    def _journal(self, directory, start, stop):
        disk, reader = Disk(), self._recording.reader
        self.whole = reader.tail == 0
        log = Log(disk, f"{directory}/journal", quota_bytes_max=NO_QUOTA, preamble=lambda: [(SCHEMA, n, payload) for n, payload in self._schemas.items()])
        inside = start is None
        try:
            for record in reader.all():
                ns = self._recording.received_ns(record) if (start or stop) else None
                if stop and stop[1](record.position, ns):
                    break
                inside = inside or start[1](record.position, ns)
                if record.kind == SCHEMA:
                    self._learn(record, log)
                elif inside:
                    self._take(record, log)
                elif record.kind == BATCH:
                    self.whole = False
            log.sync()
        finally:
            log.close()

    def _learn(self, record, log):
        self._store.learn(record)
        if self._schemas.get(record.stream) != record.payload:
            self._schemas[record.stream] = record.payload
            if self.records:
                log.append(SCHEMA, record.stream, record.first, record.count, record.payload)

    def _take(self, record, log):
        if record.kind == BATCH:
            self.events += record.count
            log.append(BATCH, record.stream, record.first, record.count, self._masked(record))
        elif record.kind in (TICK, CLOCK, SKIP):
            log.append(record.kind, record.stream, record.first, record.count, record.payload)
        else:
            return
        self.records += 1

    def _masked(self, record):
        name = self._store.stream(record.stream)
        schema = self._store.schemas.get(record.stream)
        kinds = {f.name: f.kind for f in schema.fields} if schema else {}
        masks = {m.field: m for m in self._masks if m.stream in (None, name) and m.field in kinds}
        if not masks:
            return record.payload
        batch = self._store.batch(record.stream, record.payload)
        rows = [{n: masks[n].value(v, kinds[n]) if n in masks else v for n, v in row.items()} for row in batch.rows()]
        made = Batch.from_rows(schema, rows, first_sequence=batch.first_sequence, received_ns=batch.received_ns)
        made.clock = batch.clock
        for mask in masks.values():
            mask.found = True
        return encode_columns(made)

    def _rules(self, directory):
        """What ran: as the rule store says; of a gateway that never started with one, as the configuration says."""
        disk = Disk()
        disk.mkdir(f"{directory}/rules")
        running = deployed(self._store.directory)
        if running is None:
            lineup = Lineup(self._config)
            running = [Ruled(name, d.input, d.digest, d.params, d.limits or {}) for name, (d, *_) in lineup.choices.items()]
            modules = {ruled.module: lineup.module(ruled.module, None) for ruled in running}
        else:
            modules = {ruled.module: self._recording.module(ruled) for ruled in running}
        for digest, module in modules.items():
            whole.replace(disk, f"{directory}/rules/{digest}.wasm", module.content)
        self._settings.rules = running

    def _finish(self, directory, start, stop):
        settings = self._settings
        settings.whole, settings.start, settings.stop = self.whole, start and start[0], stop and stop[0]
        settings.masked = {mask.name: mask.said for mask in self._masks}
        whole.replace(Disk(), f"{directory}/{SETTINGS}", slice_settings(settings))
