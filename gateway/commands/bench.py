"""`tidegate bench`: measures speed and size on this machine, each figure beside its baseline in the same run.

Exit status 0 also when a demand is not met: the line says so.
"""

import os
import sys
import tempfile
from pathlib import Path

from edge.errors import ConfigError
from gateway.bench.suite import MEASUREMENTS


def add_arguments(parser):
    parser.add_argument("--json", action="store_true", help="a JSON object a figure and line")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"of these: {', '.join(MEASUREMENTS)}")
    parser.add_argument("--quick", action="store_true", help="shorter runs: shows that it works, not how fast")
    parser.add_argument("--folder", default=".", help="on the disk that is to be measured; a directory in it is made and removed (default: here)")


def run(arguments):
    names = arguments.only or list(MEASUREMENTS)
    unknown = [name for name in names if name not in MEASUREMENTS]
    if unknown:
        raise ConfigError(f"--only: there is no measurement {', '.join(unknown)}; known are {', '.join(MEASUREMENTS)}")
    busy = os.getloadavg()[0]
    if busy > 0.5:
        print(f"tidegate: other work is on this machine (load {busy:.1f}): the figures are worse for it", file=sys.stderr)
    for name in names:
        with tempfile.TemporaryDirectory(prefix="tidegate-bench-", dir=arguments.folder) as folder:
            for figure in MEASUREMENTS[name](Path(folder).resolve(), arguments.quick):
                print(figure.to_json() if arguments.json else figure.to_text(), flush=True)
