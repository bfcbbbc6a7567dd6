"""The rule store: modules by their digest, the catalogue that says which version each is and who brought it, and what is deployed.

    rules/DIGEST.wasm          a module's whole file; DIGEST: SHA-256 of its content (without signature), hexadecimal
    rules/catalogue.json       sealed (whole.py): {"version", "entries": [Version ...]}, oldest first
    rules/deployments.json     sealed: {"version", "generation", "deployments": [...]}
    rules/*.damaged            what was moved aside, the last DAMAGED_MAX

Invariants:
- Each file is replaced whole. A module's file is durable before the catalogue names it, and goes only after a catalogue without it is durable.
- The files are the truth, the catalogue adds to it: a module that it does not name (a cut before it was written, or it rotted) is taken in
  again as the oldest, with what its manifest says. An entry without its file is dropped.
- A file with the content of its name is sound, whatever signature the catalogue knows: a cut may come between the two.
- A module is hashed each time it is read: what is damaged is moved aside, reported in `warnings`, and never stops the start.
"""

import hashlib
import re

import msgspec

from edge.errors import DiskError, RuleError
from edge.host.module import MODULE_BYTES_MAX, Module
from edge.storage import whole

VERSION = 1
CATALOGUE, DEPLOYMENTS = "catalogue.json", "deployments.json"
DAMAGED_MAX = 4
PREFIX_MIN = 6                           # digits that stand for a digest
RECOVERED = "recovered"                  # who brought a module whose entry was lost


class Version(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stored module. digest: of its content; file: SHA-256 of its file, signature included; size: of the file, bytes.
    who, when_ns: brought it, when (0: not known any more); signed_by: name of the key that signed it, or ""."""

    name: str
    version: int
    digest: str
    file: str
    size: int
    who: str
    when_ns: int
    signed_by: str = ""
    summary: str = ""

    @property
    def label(self) -> str:
        return f"{self.name}@{self.version}"


class Catalogue(msgspec.Struct, forbid_unknown_fields=True):
    """Of catalogue.json."""

    version: int
    entries: list[Version]


class Deployments(msgspec.Struct, forbid_unknown_fields=True):
    """Of deployments.json. What a deployment holds is its reader's concern."""

    version: int
    generation: int
    deployments: list[dict]


class RuleStore:
    """Modules on a disk, bounded: count_max of them, bytes_max in all. What the saved deployments or `protected()` name is never evicted.

    protected: fn() -> digests in use, set by the owner. warnings: what was found damaged since the last take_warnings().
    """

    def __init__(self, disk, directory, *, count_max=64, bytes_max=32 << 20):
        """Takes up what is there. Raises DiskError when the disk refuses, or a newer version wrote there."""
        self._disk, self._directory = disk, directory
        self._count_max, self._bytes_max = count_max, bytes_max
        self._entries = {}               # digest -> Version, oldest first
        self._generation, self._deployments = 0, []
        self.protected = lambda: ()
        self.warnings = []
        try:
            disk.mkdir(directory)
            disk.fsync_directory(directory.rpartition("/")[0] or ".")
            self._recover()
        except OSError as error:
            raise self._error("read", error) from error

    # --- modules

    def put(self, wasm: bytes, *, who, when_ns, signed_by="", force=False) -> Version:
        """Keep a module; durable on return, and nothing new if it is there. Evicts the oldest to make room.

        force: a name@version may be given to another module than before; the name then means the new one.
        Raises RuleError for what is no module, a version that is taken, or a store whose every version is in use; DiskError.
        """
        module = Module(wasm)
        manifest = module.manifest
        entry = Version(manifest.name, manifest.version, module.digest, hashlib.sha256(wasm).hexdigest(), len(wasm), who, when_ns, signed_by, manifest.summary)
        known = self._entries.get(entry.digest)
        if known is not None and (known.signed_by or not signed_by) and self._content(known) is not None:
            return known
        if not force:
            self.check(entry.label, entry.digest)
        evicted = self._evicted_for(entry)
        kept = {digest: v for digest, v in self._entries.items() if digest not in evicted} | {entry.digest: entry}
        try:
            whole.replace(self._disk, self.path(entry.digest), wasm)
            self._save(kept)
            self._unlink(evicted)
        except OSError as error:
            raise self._error("write", error) from error
        return entry

    def check(self, label, digest):
        """Raises RuleError when a name@version is another module's."""
        taken = [v for v in self._entries.values() if v.label == label and v.digest != digest]
        if taken:
            raise RuleError(f"{label} is in the store with another content ({taken[-1].digest[:12]}, brought by {taken[-1].who}): raise the version in the "
                            "manifest, or force it", digest=digest)

    def _evicted_for(self, entry) -> list:
        """Digests that make room for one more: the oldest that nothing names. Raises RuleError when that is not enough."""
        others = {digest: v for digest, v in self._entries.items() if digest != entry.digest}
        size, count, evicted, in_use = sum(v.size for v in others.values()) + entry.size, len(others) + 1, [], self._in_use()
        for digest, version in others.items():
            if size <= self._bytes_max and count <= self._count_max:
                break
            if digest not in in_use:
                evicted.append(digest)
                size, count = size - version.size, count - 1
        if size > self._bytes_max or count > self._count_max:
            raise RuleError(f"the rule store is full ({self._count_max} versions, {self._bytes_max >> 20} MiB) and all in it are in use: remove a rule, "
                            "or a version that no rule needs, with `tidegate rule rm`", rule=entry.name, digest=entry.digest)
        return evicted

    def _in_use(self) -> set:
        named = [part for d in self._deployments for part in (d, d.get("previous"), d.get("shadow")) if part]
        return {part.get("digest") for part in named} | set(self.protected())

    def module(self, digest) -> Module:
        """Raises RuleError when it is missing or damaged."""
        version = self._entries.get(digest)
        if version is None:
            raise RuleError(f"the rule store has no module {digest[:12]}: push it again", digest=digest)
        wasm = self._content(version)
        if wasm is None:
            raise RuleError(f"{version.label}: its file was damaged and is moved aside: push it again", rule=version.name, digest=digest)
        return Module(wasm, version.label)

    def path(self, digest) -> str:
        """Where a module's file is: for a process that reads it."""
        return f"{self._directory}/{digest}.wasm"

    def _content(self, version) -> bytes | None:
        """The file's bytes; None when it is damaged, and then it is moved aside and forgotten."""
        try:
            wasm = whole.read(self._disk, self.path(version.digest), MODULE_BYTES_MAX)
            file = hashlib.sha256(wasm).hexdigest()
            if file == version.file:
                return wasm
            if _digest(wasm) == version.digest:          # a cut between its file and the catalogue: the same content with another signature
                self._entries[version.digest] = msgspec.structs.replace(version, file=file, size=len(wasm), signed_by="")
                return wasm
            why = "its bytes are not those that were written"
        except OSError as error:
            why = error.strerror or str(error)
        self._set_aside(f"{version.digest}.wasm", f"{version.label}: {why}")
        try:
            self._save({digest: v for digest, v in self._entries.items() if digest != version.digest})
        except OSError:
            self._entries.pop(version.digest, None)  # the file is gone: the next start says so too
        return None

    def versions(self, name=None) -> list[Version]:
        """All versions, or those of a name; the newest last."""
        return [v for v in self._entries.values() if name is None or v.name == name]

    def find(self, digest) -> Version | None:
        """The version with this digest, of content or of file."""
        return self._entries.get(digest) or next((v for v in self._entries.values() if v.file == digest), None)

    def resolve(self, text) -> Version:
        """The version that "name@3", "name" (its highest) or a digest or the beginning of one says. Raises RuleError."""
        name, _, number = text.partition("@")
        named = [v for v in self._entries.values() if v.name == name and (not number or str(v.version) == number)]
        if named:
            return max(named, key=lambda v: v.version) if not number else named[-1]
        matching = [v for v in self._entries.values() if v.digest.startswith(text)] if re.fullmatch(f"[0-9a-f]{{{PREFIX_MIN},64}}", text) else []
        if len(matching) == 1:
            return matching[0]
        if matching:
            raise RuleError(f"{text} is the beginning of {len(matching)} digests: give more of it")
        known = ", ".join(v.label for v in self.versions()[-8:]) or "nothing"
        raise RuleError(f"the rule store has no {text!r}; it has {known}", code="unknown")

    def remove(self, digest):
        """Forget a version. Durable on return. Raises RuleError when it is not there or in use, DiskError."""
        version = self._entries.get(digest)
        if version is None:
            raise RuleError(f"the rule store has no module {digest[:12]}", digest=digest)
        if digest in self._in_use():
            raise RuleError(f"{version.label} is in use, as the active, previous or shadow version of a rule: remove the rule first", rule=version.name)
        try:
            self._save({d: v for d, v in self._entries.items() if d != digest})
            self._unlink([digest])
        except OSError as error:
            raise self._error("write", error) from error

    # --- deployments

    def deployments(self) -> tuple[int, list[dict]]:
        """(generation, deployments) as they were saved last; (0, []) when there are none, or the file was damaged."""
        return self._generation, self._deployments

    def save_deployments(self, generation, deployments):
        """Replace them. Durable on return. Raises DiskError; then the old or the new ones are there."""
        content = {"version": VERSION, "generation": generation, "deployments": deployments}
        try:
            whole.replace(self._disk, f"{self._directory}/{DEPLOYMENTS}", whole.seal(content))
        except OSError as error:
            raise self._error("write", error) from error
        self._generation, self._deployments = generation, deployments

    def take_warnings(self) -> list[str]:
        """What was found damaged since the last call."""
        warnings, self.warnings = self.warnings, []
        return warnings

    # --- recovery

    def _recover(self):
        names = set(self._disk.listdir(self._directory))
        for name in names:
            if name.endswith(whole.FRESH):
                self._disk.unlink(f"{self._directory}/{name}")
        saved = self._sealed(DEPLOYMENTS, names, Deployments)
        if saved is not None:
            self._generation, self._deployments = saved.generation, saved.deployments
        catalogue = self._sealed(CATALOGUE, names, Catalogue)
        entries = {v.digest: v for v in catalogue.entries} if catalogue else {}
        files = {name[:-5] for name in names if re.fullmatch(r"[0-9a-f]{64}\.wasm", name)}
        for digest in sorted(entries.keys() - files):
            self.warnings.append(f"{entries[digest].label}: its file is gone; push it again")
        found = self._adopted(sorted(files - entries.keys()))
        self._entries = {v.digest: v for v in found} | {digest: v for digest, v in entries.items() if digest in files}
        if found or entries.keys() - files:
            try:
                self._save(self._entries)
            except OSError:
                pass                     # as good as it was; the next change writes it

    def _sealed(self, name, names, kind):
        """A sealed file's content; None when there is none, or it is damaged: then it is moved aside. Raises DiskError for a newer version's."""
        if name not in names:
            return None
        path = f"{self._directory}/{name}"
        try:
            content = whole.unseal(whole.read(self._disk, path, whole.SEALED_BYTES_MAX))
            if isinstance(content, dict) and isinstance(content.get("version"), int) and content["version"] > VERSION:
                raise DiskError(f"{path}: written by a newer version (format {content['version']}, this program knows {VERSION}): install the newer version again")
            return msgspec.convert(content, kind)
        except (OSError, ValueError) as error:
            self._set_aside(name, f"{path}: {error}")
            return None

    def _adopted(self, digests) -> list[Version]:
        """Entries for modules that no catalogue names; what is no sound module is moved aside."""
        found = []
        for digest in digests:
            try:
                wasm = whole.read(self._disk, self.path(digest), MODULE_BYTES_MAX)
                module = Module(wasm)
            except (OSError, RuleError) as error:
                self._set_aside(f"{digest}.wasm", f"{digest[:12]}: {error}")
                continue
            if module.digest != digest:
                self._set_aside(f"{digest}.wasm", f"{digest[:12]}: its bytes are not those that were written")
                continue
            manifest = module.manifest
            found.append(Version(manifest.name, manifest.version, digest, hashlib.sha256(wasm).hexdigest(), len(wasm), RECOVERED, 0, "", manifest.summary))
            self.warnings.append(f"{found[-1].label} ({digest[:12]}) was not in the catalogue and is taken in again")
        return found

    # --- files

    def _save(self, entries):
        content = {"version": VERSION, "entries": [msgspec.structs.asdict(v) for v in entries.values()]}
        whole.replace(self._disk, f"{self._directory}/{CATALOGUE}", whole.seal(content))
        self._entries = entries

    def _unlink(self, digests):
        for digest in digests:
            self._disk.unlink(self.path(digest))
        if digests:
            self._disk.fsync_directory(self._directory)

    def _set_aside(self, name, why):
        """Keep what is damaged for a look at it, the last DAMAGED_MAX; a disk that refuses even this leaves it where it is."""
        self.warnings.append(f"{why}; kept as {name}.damaged")
        try:
            self._disk.rename(f"{self._directory}/{name}", f"{self._directory}/{name}.damaged")
            aside = sorted(n for n in self._disk.listdir(self._directory) if n.endswith(".damaged") and n != f"{name}.damaged")
            for old in aside[:max(0, len(aside) + 1 - DAMAGED_MAX)]:
                self._disk.unlink(f"{self._directory}/{old}")
        except OSError:
            pass

    def _error(self, what, error):
        return DiskError(f"cannot {what} {self._directory}: {error.strerror or error}: check the disk, its free space and the permissions")


def _digest(wasm) -> str:
    """Of a module's content; "" when it is no module."""
    try:
        return Module(wasm).digest
    except RuleError:
        return ""
