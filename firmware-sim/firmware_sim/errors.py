"""Errors a person can act on: printed as they are, without a traceback."""


class SimError(Exception):
    """Base: what, where, what to do."""


class ScenarioError(SimError):
    """The scenario asks for something that cannot be. `problems` holds one line each, with its place."""

    def __init__(self, source, problems):
        self.problems = problems
        super().__init__("\n".join(f"{source}: {problem}" for problem in problems))


class BrokerError(SimError):
    """The broker cannot be reached or refuses the devices."""


class TruthError(SimError):
    """A truth file or a file of received rows cannot be read as what it should be."""
