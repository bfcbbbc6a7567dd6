"""A deployment: what runs under a rule's name. Committed with the state of the rules, so that version and state never disagree."""

from typing import Any

import msgspec
from msgspec import Struct

from edge.errors import DiskError
from edge.host.limits import Limits


class Deployment(Struct, frozen=True):
    """rule: its name, also the output stream's. input: the stream it reads. digest: of its module; "" for a configured rule that was removed.
    limits: arguments of edge.host.limits.Limits, None for its defaults. lanes: that take its output, beside those whose table names it.
    previous: {"digest", "params", "input", "limits"} of the version before, or None. shadow: {"digest", "params"} of one that runs beside it, or None.
    configured: fingerprint of the configuration's entry that it was made over, "" for a rule that was pushed."""

    rule: str
    input: str
    digest: str
    params: dict[str, Any] = {}
    limits: dict[str, int] | None = None
    lanes: list[str] = []
    enabled: bool = True
    previous: dict[str, Any] | None = None
    shadow: dict[str, Any] | None = None
    configured: str = ""

    @property
    def version(self) -> dict:
        """What makes it another version, so that the one before is kept."""
        return {"digest": self.digest, "params": self.params}

    @property
    def kept(self) -> dict:
        """What a later deployment keeps of this one as `previous`: all that it needs to run as it did."""
        return self.version | {"input": self.input, "limits": self.limits}

    def before(self) -> "Deployment":
        """The version before, in its place. There is one."""
        known = {name: self.previous[name] for name in ("digest", "params", "input", "limits") if name in self.previous}      # an older program kept two of them
        return msgspec.structs.replace(self, **known, previous=None)

    @property
    def bounds(self) -> Limits:
        """Raises ConfigError for limits out of bounds."""
        return Limits(**(self.limits or {}))

    def digests(self) -> set[str]:
        """Of the modules that it may need."""
        return {self.digest, *(v["digest"] for v in (self.previous, self.shadow) if v)} - {""}

    def to_dict(self) -> dict:
        """Plain data; from_dict reads it back."""
        return msgspec.to_builtins(self)

    @classmethod
    def from_dict(cls, data) -> "Deployment":
        """Raises DiskError for anything that is no deployment."""
        try:
            return msgspec.convert(data, cls)
        except msgspec.ValidationError as error:
            raise DiskError(f"a stored deployment is damaged: {error}") from None
