"""What a rule may use."""

from msgspec import Struct

from edge.errors import ConfigError

PAGE = 65536
ROWS_PER_TIME = 1024
MEMORY_BYTES_MAX = 1 << 30
OUTPUT_BYTES_MAX = 256 << 20


class Limits(Struct, frozen=True):
    """time_ns: CPU time of a call for up to 1,024 rows, in proportion beyond. memory_bytes: linear memory. output_bytes: what one call puts out."""

    time_ns: int = 10_000_000
    memory_bytes: int = 16 << 20
    output_bytes: int = 4 << 20
    table_elements: int = 1024

    def __post_init__(self):
        for name, least, most in (("time_ns", 1_000_000, 60 * 10**9), ("memory_bytes", PAGE, MEMORY_BYTES_MAX), ("output_bytes", 1, OUTPUT_BYTES_MAX)):
            if not least <= getattr(self, name) <= most:
                raise ConfigError(f"limits: {name} is {getattr(self, name)}, must be between {least} and {most}")

    def lowered(self, manifest) -> "Limits":
        """These, or what the module's manifest says it can do with where that is less."""
        def least(mine, theirs, floor):
            return mine if theirs is None else min(mine, max(theirs, floor))

        return Limits(least(self.time_ns, None if manifest.time_ms is None else manifest.time_ms * 1_000_000, 1_000_000),
                      least(self.memory_bytes, manifest.memory_bytes, PAGE), least(self.output_bytes, manifest.output_bytes, 1), self.table_elements)

    def allow(self, given, rule) -> dict | None:
        """The limits of a rule that asks for `given` (names of these fields, or None for the defaults), where these are the most: what to ask for instead.
        Raises ConfigError."""
        given = given or {}
        if unknown := set(given) - {"time_ns", "memory_bytes", "output_bytes"}:
            raise ConfigError(f"rule {rule}: limits has no {', '.join(sorted(unknown))}; it has time_ns, memory_bytes, output_bytes")
        for name, value in given.items():
            if not isinstance(value, int) or value > getattr(self, name):
                raise ConfigError(f"rule {rule}: limits: {name} is {value!r}, this gateway allows {getattr(self, name)} at most (rules_limits)")
        lower = {name: getattr(self, name) for name in ("time_ns", "memory_bytes", "output_bytes") if getattr(self, name) < getattr(Limits(), name)}
        return lower | given or None
