"""`tidegate rule disable RULE`: events pass it by, and are counted; its state stays."""

from gateway import terminal


def add_arguments(parser):
    terminal.add_arguments(parser)


def run(arguments):
    return terminal.change(arguments, "rule.disable")
