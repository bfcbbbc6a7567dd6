"""The command `firmware-sim`.

Exit codes: 0 fine; 1 verify found something, or a run ended with events that were not acknowledged; 2 it could not be done.
"""

import argparse
import json
import os
import signal
import sys

from . import library
from .errors import SimError

PASSWORD_VARIABLE = "FIRMWARE_SIM_PASSWORD"


def main(argv=None) -> int:
    """Run a command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.command(arguments)
    except SimError as error:
        print(f"firmware-sim: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 2


def _parser():
    parser = argparse.ArgumentParser(prog="firmware-sim", description="A fleet of simulated MQTT devices, and the truth about what they sent.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _run_parser(commands.add_parser("run", help="play a scenario against a broker"))
    _verify_parser(commands.add_parser("verify", help="compare received rows with the truth"))
    _load_parser(commands.add_parser("load", help="offer a steady or full load of one event kind, for benchmarks"))
    listing = commands.add_parser("scenarios", help="list the ready-made scenarios, or print one")
    listing.add_argument("name", nargs="?", help="print this one")
    listing.set_defaults(command=_scenarios)
    return parser


def _broker_arguments(parser):
    parser.add_argument("--host", default="127.0.0.1", help="broker or gateway (default %(default)s)")
    parser.add_argument("--port", type=int, default=1883, help="(default %(default)s)")
    parser.add_argument("--username", help=f"MQTT user; its password comes from the variable {PASSWORD_VARIABLE}")


def _run_parser(parser):
    parser.add_argument("scenario", help="a TOML file, or the name of a ready-made scenario")
    _broker_arguments(parser)
    parser.add_argument("--truth", metavar="FILE", help="write what was sent and acknowledged (JSON lines; an old file is replaced)")
    end = parser.add_mutually_exclusive_group()
    end.add_argument("--seconds", type=_positive, metavar="N", help="stop after N seconds of the scenario's time")
    end.add_argument("--events", type=_whole, metavar="N", help="stop after N events")
    parser.add_argument("--seed", type=int, metavar="S", help="instead of the scenario's")
    parser.add_argument("--speed", type=_speed, metavar="X", help="scenario seconds per second, or max, instead of the scenario's")
    parser.add_argument("--drain-s", type=float, default=10.0, metavar="N", help="wait so long for the last acknowledgements (default %(default)s)")
    parser.add_argument("--check", action="store_true", help="check the scenario and stop")
    parser.add_argument("--json", action="store_true", help="the summary as one JSON line; no progress")
    parser.set_defaults(command=_run)


def _verify_parser(parser):
    parser.add_argument("--truth", required=True, metavar="T", help="truth file of a run")
    parser.add_argument("--received", required=True, metavar="R", help="JSON lines, one object a row; - for standard input")
    parser.add_argument("--stream", help="only rows of this stream")
    parser.add_argument("--group", help="only events of this group of the scenario are expected")
    parser.add_argument("--where", metavar="'FIELD OP VALUE'", help="only events for which this holds are expected")
    parser.add_argument("--fields", metavar="A,B", help="compare exactly these; each row must have them")
    parser.add_argument("--tolerance", type=float, default=0.0, metavar="X", help="relative, for numbers (default: exact)")
    parser.add_argument("--allow-copies", action="store_true", help="a copy that the device sent may arrive: nothing removes duplicates")
    parser.add_argument("--windows", nargs=2, metavar=("FIELD", "LENGTH_S"), help="the rows are tumbling windows over FIELD")
    parser.add_argument("--columns", metavar="NAME=COLUMN,...", help="columns of window rows: device, start or end, count, mean, min, max")
    parser.add_argument("--open-windows", type=int, default=0, metavar="N", help="each device's newest N windows may be absent")
    parser.add_argument("--json", action="store_true", help="the report as one JSON line")
    parser.set_defaults(command=_verify)


def _load_parser(parser):
    _broker_arguments(parser)
    parser.add_argument("--rate", type=float, default=0.0, metavar="N", help="events per second; 0: as many as possible (default)")
    parser.add_argument("--seconds", type=_positive, default=10.0, metavar="N", help="(default %(default)s)")
    parser.add_argument("--connections", type=_whole, default=4, metavar="N", help="at most 64 (default %(default)s)")
    parser.add_argument("--qos", type=int, choices=(0, 1), default=1, help="(default %(default)s)")
    parser.add_argument("--window", type=_whole, default=2000, metavar="N", help="unacknowledged events per connection (default %(default)s)")
    parser.add_argument("--devices", type=_whole, default=100, metavar="N", help="at most 10000 (default %(default)s)")
    parser.add_argument("--site", default="s1", help="part of the topic (default %(default)s)")
    parser.add_argument("--first-seq", type=_whole, default=10_000_000, metavar="N", help="eight digits (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="(default %(default)s)")
    parser.add_argument("--drain-s", type=float, default=10.0, metavar="N", help="wait so long for the last acknowledgements (default %(default)s)")
    parser.add_argument("--stamps", metavar="FILE", help="write when each event was made: u64 first_seq, u64 n, n x u64 CLOCK_MONOTONIC ns")
    parser.add_argument("--latency", action="store_true", help="report the time from making an event to its acknowledgement (qos 1)")
    parser.add_argument("--sink-port", type=int, metavar="P", help="also subscribe there to --sink-topic, and count")
    parser.add_argument("--sink-topic", default="up/#", help="(default %(default)s)")
    parser.add_argument("--capture", metavar="FILE", help="write what the sink received: u64 CLOCK_MONOTONIC ns, u32 size, payload")
    parser.set_defaults(command=_load)


def _run(arguments) -> int:
    from .fleet import Fleet
    from .progress import make_progress
    from .scenario import load_scenario
    from .truth import TruthWriter
    scenario = load_scenario(library.find(arguments.scenario))
    if arguments.check:
        print(f"{scenario.name}: {sum(g.count for g in scenario.group)} devices in {len(scenario.group)} groups")
        return 0
    fleet = Fleet(scenario, arguments.host, arguments.port, truth=TruthWriter(arguments.truth) if arguments.truth else None,
                  seed=arguments.seed, speed=arguments.speed, username=arguments.username, password=_password(arguments))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: fleet.stop())
    show, end = make_progress(arguments.json)
    try:
        summary = fleet.run(seconds=arguments.seconds, events=arguments.events, drain_s=arguments.drain_s, on_progress=show)
    finally:
        end()
    if arguments.json:
        print(json.dumps(summary))
    else:
        for name, value in summary.items():
            print(f"{name:14} {value}")
    open_ = summary["unsent"] + summary["unacknowledged"]
    if open_:
        print(f"firmware-sim: {open_} events unsent or unacknowledged: {fleet.trouble or 'the broker or a slow link needs longer (--drain-s)'}", file=sys.stderr)
    return 1 if open_ else 0


def _verify(arguments) -> int:
    from .condition import parse_condition
    from .index import TruthIndex
    from .verify import read_rows, verify_events
    passes = parse_condition(arguments.where) if arguments.where else None
    rows = read_rows(arguments.received, arguments.stream)
    truth = TruthIndex(arguments.truth, passes, arguments.group)
    if arguments.windows:
        from .windows import parse_columns, verify_windows
        report = verify_windows(truth, rows, field=arguments.windows[0], length_s=_positive(arguments.windows[1]),
                                columns=parse_columns(arguments.columns), tolerance=arguments.tolerance,
                                open_windows=arguments.open_windows)
    else:
        report = verify_events(truth, rows, fields=arguments.fields.split(",") if arguments.fields else None,
                               tolerance=arguments.tolerance, allow_copies=arguments.allow_copies)
    if arguments.json:
        print(json.dumps(report))
    else:
        _print_report(report)
    return 0 if report["ok"] else 1


def _print_report(report):
    for name, value in report.items():
        if isinstance(value, int) and not isinstance(value, bool):
            print(f"{name:14} {value}")
    for kind, examples in report["examples"].items():
        for example in examples:
            print(f"  {kind}: {json.dumps(example)}")
    worst = sorted(report["devices"].items(), key=lambda item: -sum(item[1].values()))
    for device, counts in worst[:10]:
        print(f"  {device}: {', '.join(f'{n} {kind}' for kind, n in counts.items())}")
    if len(worst) > 10:
        print(f"  and {len(worst) - 10} more devices")
    print("OK" if report["ok"] else "NOT OK")


def _load(arguments) -> int:
    from .load import offer_load
    report = offer_load(arguments, _password(arguments))
    print(json.dumps(report), flush=True)
    return 0 if report["complete"] else 1


def _scenarios(arguments) -> int:
    if arguments.name:
        sys.stdout.write(library.find(arguments.name).read_text("utf-8"))
        return 0
    for name in library.names():
        print(f"{name:8} {library.about(name)}")
    return 0


def _password(arguments):
    return os.environ.get(PASSWORD_VARIABLE) if arguments.username is not None else None


def _number(text, kind, what, fine):
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not fine(value):
        raise argparse.ArgumentTypeError(f"'{text}': expected {what}")
    return value


def _positive(text):
    return _number(text, float, "a number greater than 0", lambda x: 0 < x < 1e12)


def _whole(text):
    return _number(text, int, "a whole number from 1", lambda x: x >= 1)


def _speed(text):
    return text if text == "max" else _number(text, float, "max or a number greater than 0", lambda x: 0 < x < 1e12)


if __name__ == "__main__":
    sys.exit(main())
