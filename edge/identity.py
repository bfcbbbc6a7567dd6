"""Identity of a data directory: its epoch, and which number stands for which schema in its logs. One small sealed file (whole.py), replaced whole.

Numbers are never given twice, so a record of last year still says what it is. A file that is damaged is moved aside and a new epoch begun:
its numbers then start behind all that any log may hold.
"""

import json

from edge.columns.schema import Schema
from edge.errors import ConfigError, DiskError
from edge.storage import whole

VERSION = 1
NAME = "identity.json"
NUMBERS_MAX = 65_000


class Identity:
    """epoch: 32 random bits of this directory. number(schema) gives a schema's number. found: False in a new directory."""

    def __init__(self, disk, directory, gateway):
        """Reads or begins the directory's identity. Raises DiskError for a newer format, ConfigError for another gateway's directory."""
        self._disk = disk
        self._path = f"{directory}/{NAME}"
        self._directory = directory
        self._gateway = gateway
        self.found = False
        self.damaged = ""
        self.epoch = int.from_bytes(disk.entropy(4), "little") or 1
        self._base = 1
        self._schemas = []
        self._saved = False
        self._read()

    def _read(self):
        try:
            version, name, epoch, base, schemas = _content(self._disk, self._path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._error("read", error) from error
        except (ValueError, KeyError, TypeError) as error:
            self.damaged = f"{self._path} is damaged ({error}); a new epoch begins, the file is kept as {NAME}.damaged"
            try:
                self._disk.rename(self._path, f"{self._path}.damaged")
            except OSError as error:
                raise self._error("move aside", error) from error
            self._base = NUMBERS_MAX // 2
            return
        if version > VERSION:
            raise DiskError(f"{self._path}: written by a newer version (format {version}, this program knows {VERSION}): install the newer version again")
        if name != self._gateway:
            raise ConfigError(f"{self._path}: this is the data of gateway {name!r}; set gateway.name to it, or gateway.data to another directory")
        self.found = self._saved = True
        self.epoch, self._base, self._schemas = epoch, base, schemas

    def number(self, schema) -> int:
        """The schema's number, a new one if it has none yet; save() before it is used."""
        for i, known in enumerate(self._schemas):
            if known == schema:
                return self._base + i
        self._schemas.append(schema)
        self._saved = False
        if self._base + len(self._schemas) > NUMBERS_MAX:
            raise DiskError(f"{self._path}: {NUMBERS_MAX} schemas were used; begin a new data directory")
        return self._base + len(self._schemas) - 1

    def schemas(self) -> dict:
        """number -> Schema of all that were ever used."""
        return {self._base + i: schema for i, schema in enumerate(self._schemas)}

    def save(self):
        """Write the file, atomically, if it changed, and make sure of its name: an earlier start may have failed to. Raises DiskError."""
        try:
            if not self._saved:
                self._write()
            self._disk.fsync_directory(self._directory)
        except OSError as error:
            raise self._error("write", error) from error
        self._saved = True

    def _write(self):
        content = {"version": VERSION, "gateway": self._gateway, "epoch": self.epoch, "base": self._base, "schemas": [s.to_dict() for s in self._schemas]}
        whole.replace(self._disk, self._path, whole.seal(content))

    def _error(self, what, error):
        return DiskError(f"cannot {what} {self._path}: {error.strerror or error}: check the disk, its free space and the permissions")


def schemas_of(disk, directory) -> dict:
    """number -> Schema of all that were ever used in a data directory; empty when its file is missing, damaged or newer. Changes nothing."""
    try:
        *_, base, schemas = _content(disk, f"{directory}/{NAME}")
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {base + i: schema for i, schema in enumerate(schemas)}


def gateway_of(disk, directory) -> str:
    """The name of the gateway whose data a directory holds; empty where there is none, or it cannot be read. Changes nothing."""
    try:
        return _content(disk, f"{directory}/{NAME}")[1]
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _content(disk, path):
    """(version, gateway, epoch, base, schemas); all but the version are empty for a newer version's file, whose layout is not known."""
    data = whole.read(disk, path, whole.SEALED_BYTES_MAX)
    content = whole.unseal(data) if b"\n" in data else json.loads(data)      # once it was written without a seal
    version = content["version"]
    if version > VERSION:
        return version, "", 0, 0, []
    return version, content["gateway"], int(content["epoch"]), int(content["base"]), [Schema.from_dict(s) for s in content["schemas"]]
