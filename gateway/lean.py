"""What the daemon does without: modules that libraries import and that this gateway never uses. Call before anything imports them.

A good part of the resident memory that `make bench` prints for the calm daemon: OpenSSL where no table of the configuration has `tls` or the listener's passwords (hashlib then has Python's own
SHA-256), and the HTTP client that paho imports to look for proxies, which the gateway's own dialing does not use.
"""

import sys
from types import ModuleType


def leave_out_early():
    """Before msgspec is imported: it takes typing_extensions where there is one, and that takes inspect; Python 3.11 has all that is needed of it."""
    sys.modules.setdefault("typing_extensions", None)


def leave_out_openssl():
    """hashlib has SHA-256 without it."""
    for name in ("_ssl", "_hashlib"):
        sys.modules.setdefault(name, None)           # None: importing it raises ImportError (docs of sys.modules)


def leave_out(config):
    """Leave out what a configuration has no use for."""
    asked = config.listener is not None and config.listener.password_file is not None        # scrypt is OpenSSL's
    if not asked and not any(end is not None and end.tls is not None for end in (config.listener, config.broker, config.upstream)):
        leave_out_openssl()
    if "urllib.request" not in sys.modules:
        import urllib

        urllib.request = sys.modules["urllib.request"] = ModuleType("urllib.request", "Left out by gateway.lean.")
        import paho.mqtt.client

        if paho.mqtt.client.ssl is None:             # it names ssl's errors all the same
            from gateway import secure

            paho.mqtt.client.ssl = secure
        del sys.modules["urllib.request"], urllib.request
