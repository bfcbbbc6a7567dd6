"""`tidegate rule push FILE.wasm`: upload a module, have it examined, and let it run in the place of what runs under its name."""

from pathlib import Path

from edge.errors import ConfigError
from gateway import terminal
from gateway.manage import remote


def add_arguments(parser):
    parser.add_argument("file", metavar="FILE.wasm | VERSION", help="the module, or a version that the gateway has, such as hot@2")
    parser.add_argument("--rule", metavar="NAME", help="the name it runs under, and that its output has (the manifest's)")
    parser.add_argument("--input", metavar="STREAM", help="the stream or rule that it reads (what the running one reads, or the only stream)")
    parser.add_argument("--param", action="append", metavar="NAME=VALUE", help="changes to the parameters of the running one; null takes one back to its default")
    parser.add_argument("--lane", action="append", metavar="LANE", help="an upstream route for its output; more than one may be given (those of the running one)")
    parser.add_argument("--shadow", action="store_true", help="run it beside the active one and compare: `tidegate rule diff`, `promote`")
    parser.add_argument("--force", action="store_true", help="although the version goes back, or its number was another module's")
    terminal.add_policy(parser)
    terminal.add_arguments(parser, rule=False)


def run(arguments):
    request = {"do": "rule.push", "params": terminal.parameters(arguments.param), "policy": arguments.policy, "shadow": arguments.shadow, "force": arguments.force}
    request |= {name: value for name, value in (("rule", arguments.rule), ("input", arguments.input), ("lanes", arguments.lane), ("horizon", arguments.horizon))
                if value is not None}
    with remote.open_gateway(arguments) as gateway:
        if arguments.file.endswith(".wasm"):
            request["digest"] = gateway.push(_read(arguments.file))
        else:
            request["digest"] = arguments.file
        job = gateway.ask(request)
        return terminal.tell(terminal.follow(gateway, job, arguments.wait), arguments.json)


def _read(file):
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
