"""`tidegate rule rollback RULE`: back to the version before, with its parameters, limits and input stream."""

from gateway import terminal


def add_arguments(parser):
    terminal.add_arguments(parser)
    parser.add_argument("--wait", action="store_true", help="until the swap is done")


def run(arguments):
    return terminal.change(arguments, "rule.rollback")
