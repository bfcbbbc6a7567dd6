"""`tidegate rule promote RULE`: its shadow takes over, with the state that it has."""

from gateway import terminal


def add_arguments(parser):
    terminal.add_arguments(parser)
    parser.add_argument("--wait", action="store_true", help="until the swap is done")


def run(arguments):
    return terminal.change(arguments, "rule.promote")
