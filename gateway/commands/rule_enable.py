"""`tidegate rule enable RULE`: let it work again; what passed it by meanwhile is not made up for."""

from gateway import terminal


def add_arguments(parser):
    terminal.add_arguments(parser)


def run(arguments):
    return terminal.change(arguments, "rule.enable")
