"""`tidegate discover`: listen for a minute, and propose contracts for what was heard: a configuration on standard output, with comments that say what was seen."""

import sys

from edge.errors import ConfigError
from gateway.config import address
from gateway.config import reader as config
from gateway.discover.session import discovered


def add_arguments(parser):
    parser.add_argument("broker", nargs="?", metavar="BROKER", help="mqtt(s)://[USER@]HOST[:PORT] (without it the configuration's broker, else its listener)")
    parser.add_argument("--listen", metavar="[HOST:]PORT", help="or let devices of this machine connect here; nothing is acknowledged, so that they send it again")
    parser.add_argument("-c", "--config", default="tidegate.toml", help="the configuration that says where to listen, if nothing else does (tidegate.toml)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (60; Ctrl-C ends earlier)")
    parser.add_argument("--topic", action="append", metavar="FILTER", help="at a broker: hear only this; more than one may be given (#)")
    parser.add_argument("--password-file", metavar="FILE", help="holds the broker's password in its first line")
    parser.add_argument("--ca", metavar="PEM", help="TLS: trust this authority instead of the system's")
    parser.add_argument("--cert", metavar="PEM", help="TLS: a certificate of one's own")
    parser.add_argument("--key", metavar="PEM", help="TLS: its key")


def run(arguments):
    """Standard output holds the configuration alone. 1: nothing can be proposed."""
    if not arguments.seconds > 0:
        raise ConfigError("--seconds: more than 0")
    proposed = discovered(source(arguments), arguments.seconds, arguments.topic)
    sys.stdout.buffer.write(proposed.whole().encode())       # TOML is UTF-8, whatever the terminal is
    sys.stdout.flush()
    return 0 if proposed.count else 1


def source(arguments):
    """The spec.Broker or spec.Listener that the arguments name. Raises ConfigError."""
    if arguments.broker and arguments.listen:
        raise ConfigError("a broker or --listen: one of them")
    if arguments.listen:
        table = address.listener("--listen", arguments.listen)
        if not address.is_loopback(table):
            raise ConfigError(f"--listen {arguments.listen}: from the network devices come by TLS and with a name: say how in a configuration's [listener], and name that with -c")
        return address.source("listener", table)
    if arguments.broker:
        return address.source("broker", address.link("BROKER", arguments.broker, password_file=arguments.password_file, ca=arguments.ca, cert=arguments.cert, key=arguments.key))
    loaded = config.load(arguments.config)
    return loaded.broker or loaded.listener
