"""`tidegate rule set RULE NAME=VALUE ...`: other parameters, in a swap of the rule by itself."""

from gateway import terminal


def add_arguments(parser):
    terminal.add_arguments(parser)
    parser.add_argument("params", metavar="NAME=VALUE", nargs="+", help="a parameter's new value; null takes it back to its default; the others stay")
    terminal.add_policy(parser)


def run(arguments):
    fields = {"horizon": arguments.horizon} if arguments.horizon else {}
    return terminal.change(arguments, "rule.set", params=terminal.parameters(arguments.params), policy=arguments.policy, **fields)
