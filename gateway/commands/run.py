"""`tidegate run -c FILE`: the daemon."""

from gateway import lean

lean.leave_out_early()

from gateway import config  # noqa: E402


def add_arguments(parser):
    parser.add_argument("-c", "--config", default="tidegate.toml", help="the configuration (tidegate.toml)")
    parser.add_argument("--log-format", choices=["text", "json"], help="overrides gateway.log_format")


def run(arguments):
    loaded = config.load(arguments.config)
    if arguments.log_format:
        loaded.gateway.log_format = arguments.log_format
    lean.leave_out(loaded)
    from gateway import isolation

    worker = isolation.begin(loaded.gateway.isolation)       # it comes up while the daemon is imported
    from gateway.daemon import Daemon
    from gateway.machine import Machine

    return Daemon(loaded, Machine(worker)).run()
