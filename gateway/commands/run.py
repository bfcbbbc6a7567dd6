"""`tidegate run -c FILE`: the daemon."""

from types import SimpleNamespace

from gateway import lean

lean.leave_out_early()

from gateway.config import reader as config  # noqa: E402

DEFAULT = "tidegate.toml"


def plain_arguments(argv):
    """The arguments, where they are none or -c FILE; None: argparse reads them."""
    if argv and not (len(argv) == 2 and argv[0] in ("-c", "--config") and not argv[1].startswith("-")):
        return None
    return SimpleNamespace(config=argv[1] if argv else DEFAULT, log_format=None)


def add_arguments(parser):
    parser.add_argument("-c", "--config", default=DEFAULT, help="the configuration (tidegate.toml)")
    parser.add_argument("--log-format", choices=["text", "json"], help="overrides gateway.log_format")


def run(arguments):
    loaded = config.load(arguments.config)
    if arguments.log_format:
        loaded.gateway.log_format = arguments.log_format
    from gateway.isolation import choice as isolation

    worker = isolation.begin(loaded.gateway.isolation)       # it comes up while the daemon is imported
    lean.leave_out(loaded)
    from gateway.daemon import Daemon
    from gateway.machine import Machine

    return Daemon(loaded, Machine(worker)).run()
