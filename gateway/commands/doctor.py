"""`tidegate doctor`: one line for each thing that is wrong with the gateway or the machine, and what to do. To add a check: a function in gateway/doctor that
takes its source and yields Findings, and a line in checks()."""

import json
import os
import shutil
from types import SimpleNamespace

from edge.errors import ConfigError, TidegateError
from edge.storage.records import DEAD
from gateway import control, links
from gateway.config import reader as config
from gateway.doctor import board, broker, certificates, gateway, storage, timekeeping
from gateway.doctor.finding import ERROR, GOOD, NOTE, UNKNOWN, WARNING, WRONG, Finding
from gateway.inspection.store import Store, add_place, plain

ORDER = (ERROR, WARNING, NOTE, GOOD, UNKNOWN)


def add_arguments(parser):
    add_place(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="also what is good, and what could not be found out")
    parser.add_argument("--json", action="store_true", help="all findings as one JSON object")


def run(arguments):
    found = sorted(findings(arguments), key=lambda finding: ORDER.index(finding.severity))
    wrong = [finding for finding in found if finding.severity in WRONG]
    if arguments.json:
        print(json.dumps({"ok": not wrong, "findings": [finding._asdict() for finding in found]}))
        return int(bool(wrong))
    for finding in found:
        if arguments.verbose or finding.severity not in (GOOD, UNKNOWN):
            print(f"{finding.severity:8} {finding.check:16} {plain(finding.what)}" + (f"\n{'':25} -> {plain(finding.do)}" if finding.do else ""))
    if not wrong:
        print(f"nothing is wrong; {len(found)} things were looked at" + ("" if arguments.verbose else ", -v lists them"))
    return int(bool(wrong))


def findings(arguments):
    """Of all checks. A check that fails tells so, and stops no other."""
    settings = None if arguments.data else config.load(arguments.config)
    directory = arguments.data or settings.gateway.data
    if not os.path.isdir(directory):
        yield Finding(ERROR, "data directory", f"{directory} is not there", "make it, or set gateway.data; the gateway makes it at its first start")
        directory = None
    for name, check in checks(directory, settings):
        try:
            yield from check()
        except (TidegateError, OSError, ValueError, KeyError, AttributeError) as error:
            yield Finding(UNKNOWN, name, f"could not be looked at: {error!r}")


def checks(directory, settings):
    """(name, fn() -> Findings) of all that apply. directory: the data's, or None; settings: the configuration, or None with --data."""
    yield "versions", gateway.versions
    yield "power", board.throttled
    yield "power", board.voltage_alarms
    yield "heat", board.heat
    yield "page size", board.pages
    yield "clock", lambda: timekeeping.synchronised(timekeeping.kernel())
    yield "clock", timekeeping.battery
    yield "card", storage.cards
    if directory:
        yield from _of_directory(directory, settings)
    if settings:
        yield "certificate", lambda: certificates.expiry(certificates.files(settings))
    if settings and settings.broker:
        yield "broker", lambda: _broker(settings)
        yield "broker settings", lambda: broker.settings(settings.broker.host)


def _of_directory(directory, settings):
    quotas = _quotas(settings)
    yield "file system", lambda: storage.mounted(storage.mount_of(directory))
    yield "disk space", lambda: storage.space(shutil.disk_usage(directory).free, storage.bytes_below(directory), sum(quotas.values()) or None)
    yield "write latency", lambda: storage.syncs(directory)
    store = Store(SimpleNamespace(data=directory), settings)
    yield "logs", lambda: gateway.directory(store)
    yield "dead letters", lambda: gateway.letters(_waiting(store))
    try:
        status, why = control.ask(directory, "status"), ""
    except TidegateError as error:
        status, why = None, str(error)
    if status is not None or settings:           # --data may be a copy, on which none runs
        yield "gateway", lambda: gateway.answers(status, why)
    if status is not None:
        yield "ledger", lambda: gateway.books(control.ask(directory, "ledger"))
        yield "rules", lambda: gateway.rules(status)
        yield "logs", lambda: gateway.logs(status, quotas)
        yield "upstream", lambda: gateway.links(status)
        yield "clock", lambda: timekeeping.gateways_clock(status)
        yield "memory limit", lambda: board.memory(gateway.pid(directory))


def _quotas(settings) -> dict:
    if settings is None:
        return {}
    return {"journal": settings.journal.quota, "dead": settings.journal.dead_letters, **{f"outbox/{name}": lane.quota for name, lane in settings.lanes.items()}}


def _waiting(store) -> int:
    if "dead" not in store.names():
        return 0
    reader = store.log("dead")
    known = store.fates(reader)
    return sum(record.kind == DEAD and record.position not in known for record in reader.all(payloads=False))


def _broker(settings):
    spec = settings.broker
    try:
        credentials = links.password("broker", spec), links.client_tls("broker", spec)
    except ConfigError as error:
        return [Finding(ERROR, "broker", str(error), "`tidegate check`")]
    return broker.system(spec, *broker.asked(spec, f"tidegate-{settings.gateway.name}-doctor", *credentials))
