"""Whose fault it is. Each error says what, where and what to do; the type names the party.

A bug is none of these: it is an AssertionError, with its traceback.
"""


class TidegateError(Exception):
    """Base of all expected errors: printed as one line, never with a traceback."""


class ConfigError(TidegateError):
    """The configuration asks for something that cannot be."""


class RuleError(TidegateError):
    """A rule's module is refused, or the rule trapped or answered nonsense.

    code: "refused", "unknown" (no such version), "trap", "limit" (time) or "bad output"; rule: its name; digest: SHA-256 of the module, hexadecimal;
    backtrace: lines, innermost frame first, or None.
    """

    def __init__(self, message, *, code="refused", rule="", digest="", backtrace=None):
        super().__init__(message)
        self.code = code
        self.rule = rule
        self.digest = digest
        self.backtrace = backtrace


class DeviceError(TidegateError):
    """A device or the broker in front of it broke the protocol or its contract."""


class UpstreamError(TidegateError):
    """What arrived upstream, or what upstream answered, is wrong."""


class DiskError(TidegateError):
    """The disk refused, or returned other bytes than were written. number: the system's errno, 0 where it had none."""

    def __init__(self, message, number=0):
        super().__init__(message)
        self.number = number
