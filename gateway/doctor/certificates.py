"""Certificates that end: all that the configuration names."""

import ssl
import time

from gateway.doctor.finding import ERROR, GOOD, UNKNOWN, WARNING, Finding

WARN_S = 30 * 86400


def files(config) -> list[tuple[str, str]]:
    """(place in the configuration, path) of certificates and authorities."""
    found = []
    for place, tls in (("listener", config.listener and config.listener.tls), ("broker", config.broker and config.broker.tls),
                       ("upstream", config.upstream and config.upstream.tls), ("api", config.api.tls)):
        found += [(f"{place}.tls.{name}", getattr(tls, name)) for name in ("cert", "ca") if tls and getattr(tls, name)]
    return found


def expiry(named, now_s=None):
    """named: of files()."""
    now_s = time.time() if now_s is None else now_s
    for place, path in named:
        try:
            spans = _spans(path)
        except (OSError, ValueError, ssl.SSLError) as error:
            yield Finding(ERROR, "certificate", f"{place}: {path} cannot be read: {error}", "name a PEM file that the gateway's user may read")
            continue
        if not spans:
            yield Finding(UNKNOWN, "certificate", f"{place}: {path} holds no certificate")
            continue
        begin, end = max(b for b, _ in spans), min(e for _, e in spans)
        day = time.strftime("%Y-%m-%d", time.gmtime(end))
        if end < now_s:
            yield Finding(ERROR, "certificate", f"{place}: {path} has expired on {day}", "renew it; connections with it are refused")
        elif begin > now_s:
            yield Finding(ERROR, "certificate", f"{place}: {path} is not valid before {time.strftime('%Y-%m-%d', time.gmtime(begin))}", "look at the clock first")
        elif end - now_s < WARN_S:
            yield Finding(WARNING, "certificate", f"{place}: {path} expires on {day}, in {(end - now_s) / 86400:.0f} days", "renew it")
        else:
            yield Finding(GOOD, "certificate", f"{place}: until {day}")


def _spans(path) -> list[tuple[float, float]]:
    """(from, to) of each certificate of a PEM file; of the first alone where the package `cryptography` is not installed. Raises OSError, ValueError."""
    try:
        from cryptography import x509
    except ImportError:
        data = ssl._ssl._test_decode_cert(path)
        return [(ssl.cert_time_to_seconds(data["notBefore"]), ssl.cert_time_to_seconds(data["notAfter"]))]
    with open(path, "rb") as file:
        return [(c.not_valid_before_utc.timestamp(), c.not_valid_after_utc.timestamp()) for c in x509.load_pem_x509_certificates(file.read())]
