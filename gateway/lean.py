"""What the daemon does without: modules that libraries import and that this gateway never uses. Call before anything imports them.

A good part of the resident memory that `make bench` prints for the calm daemon: OpenSSL where no table of the configuration has `tls` or the listener's passwords (hashlib then has Python's own
SHA-256); the HTTP client that paho imports to look for proxies, which the gateway's own dialing does not use; logging, of which paho takes four numbers; kinds of values that no table and no
message has (msgspec knows them by their type). A stand-in is there only while the library that asks for it is imported: whoever imports the module later has the module. And one heap for all
threads: those that dial and read files are few and short.
"""

import sys
from contextlib import contextmanager
from types import CodeType, FunctionType, ModuleType

VALUES = {"decimal": {"Decimal": type("Decimal", (), {})}}
M_ARENA_MAX = -8                         # of mallopt(3), malloc.h
OF_PAHO = {"urllib.request": {}, "logging": {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}}


def leave_out_early():
    """Before anything else is imported: what goes here leaves room for what comes."""
    _one_heap()
    sys.modules.setdefault("typing_extensions", None)        # msgspec takes it where there is one, and that takes inspect; Python 3.11 has all that is needed of it
    with _stand_ins(VALUES):
        import msgspec  # noqa: F401


def leave_out_openssl():
    """hashlib has SHA-256 without it."""
    for name in ("ssl", "_ssl", "_hashlib"):
        sys.modules.setdefault(name, None)           # None: importing it raises ImportError (docs of sys.modules)


def leave_out(config):
    """Leave out what a configuration has no use for."""
    asked = config.listener is not None and config.listener.password_file is not None        # scrypt is OpenSSL's
    if not asked and not any(end is not None and end.tls is not None for end in (config.listener, config.broker, config.upstream)):
        leave_out_openssl()
    from gateway.isolation import choice as isolation

    if not isolation.wanted(config.gateway.isolation):
        leave_out_bindings()
    import urllib

    with _stand_ins(OF_PAHO):
        import paho.mqtt.client
    vars(urllib).pop("request", None)
    if paho.mqtt.client.ssl is None:                 # it names ssl's errors all the same
        from gateway import secure

        paho.mqtt.client.ssl = secure


def leave_out_bindings():
    """Of the 760 functions that wasmtime-py declares those that no code of its own names, after edge.host._wasmtime has taken what it wants: all that it offers still works."""
    from wasmtime import _bindings, _ffi

    from edge.host import _wasmtime  # noqa: F401

    named = set()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "wasmtime" and module is not _bindings:
            named |= _names(module.__spec__.loader.get_code(name))
    for name in [name for name, value in vars(_bindings).items() if isinstance(value, FunctionType) and name not in named]:
        for place in (vars(_bindings), vars(_ffi), vars(_ffi.dll)):
            place.pop(name, None)
            place.pop(f"_{name}", None)


def _names(code) -> set[str]:
    """All that a code object names, with those inside it."""
    return set(code.co_names).union(*(_names(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


def _one_heap():
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)        # glibc's
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)


@contextmanager
def _stand_ins(modules):
    """modules: name -> what is asked of it. Those that are there already stay."""
    made = {name: ModuleType(name, "Left out by gateway.lean.") for name in modules if name not in sys.modules}
    for name, module in made.items():
        vars(module).update(modules[name])
    sys.modules.update(made)
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]
