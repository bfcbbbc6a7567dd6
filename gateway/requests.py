"""The management requests: what may be asked of a gateway, and where each stands in the HTTP API. One table for the API, its client and the mailbox.

A request is {"do": NAME, ...}; Manager.handle (gateway/manage/manager.py) answers it, whichever door it came through.
"""

from collections import namedtuple

from edge.errors import ConfigError, DeviceError, DiskError, RuleError, TidegateError, UpstreamError

CHUNK_BYTES = 32 << 10               # of an upload: its base64 fits a line of the local socket
CHUNK_BYTES_MAX = 64 << 10           # that a door takes

Route = namedtuple("Route", "method path writes")
Route.__doc__ = """method and path (under /v1, with the request's fields in braces) in the HTTP API; other fields are the query of a GET or DELETE, else the
JSON body. writes: whether it changes something, so that it asks for the role and is not done twice."""

ROUTES = {
    "upload.begin": Route("PUT", "/uploads/{digest}", True),
    "upload.chunk": Route("PUT", "/uploads/{digest}", True),
    "rule.push": Route("POST", "/rules", True),
    "job": Route("GET", "/jobs/{id}", False),
    "rule.ls": Route("GET", "/rules", False),
    "rule.show": Route("GET", "/rules/{rule}", False),
    "rule.stats": Route("GET", "/rules/{rule}/stats", False),
    "rule.logs": Route("GET", "/rules/{rule}/logs", False),
    "rule.diff": Route("GET", "/rules/{rule}/diff", False),
    "rule.set": Route("PUT", "/rules/{rule}/params", True),
    "rule.enable": Route("POST", "/rules/{rule}/enable", True),
    "rule.disable": Route("POST", "/rules/{rule}/disable", True),
    "rule.promote": Route("POST", "/rules/{rule}/promote", True),
    "rule.rollback": Route("POST", "/rules/{rule}/rollback", True),
    "rule.rm": Route("DELETE", "/rules/{rule}", True),
    "rule.audit": Route("GET", "/audit", False),
    "tail": Route("GET", "/tail/{stream}", False),
}
WHOLE = {"rule.stats": "/stats", "rule.rm": "/versions/{version}"}      # the path when no rule is named


class Unknown(TidegateError):
    """There is no rule, version, job or stream of that name."""


class NoAnswer(ConfigError):
    """Nobody answers there, or not in time. Whether the request was carried out is not known."""


FAULTS = {"unknown": Unknown, "configuration": ConfigError, "rule": RuleError, "device": DeviceError, "upstream": UpstreamError, "disk": DiskError, "request": TidegateError}


def fault_of(error) -> str:
    """Whose fault an error is, in a word that goes over the wire; "gateway" for a bug."""
    if getattr(error, "code", "") == "unknown":
        return "unknown"
    return getattr(error, "fault", None) or next((name for name, kind in FAULTS.items() if isinstance(error, kind)), "gateway")


def error_of(fault, text) -> TidegateError:
    """The error that an answer tells of, with its `fault`."""
    error = FAULTS.get(fault, TidegateError)(text)
    error.fault = fault
    return error
