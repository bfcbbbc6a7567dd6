"""From a configuration to the parts that run it. Everything is made here and wired here; nothing is looked up later.

A rule that is refused (its module, its parameters, what it reads) is left out and reported: the rest of the gateway runs.
"""

import os
import ssl
from pathlib import Path

import tidegate_rules
from edge._intake import Intake, Topics
from edge._watermark import Watermarks
from edge.checkpoint import CheckpointStore
from edge.contract import Contract, FieldSource
from edge.disk import Disk
from edge.errors import ConfigError, DiskError, RuleError
from edge.graph import order
from edge.identity import Identity
from edge.log import Log
from edge.outbox import Outbox
from edge.pipeline import Pipeline
from edge.recovery import capture, position_of, restore
from edge.stage import Stage, Stream
from gateway.broker import BrokerSource
from gateway.clock import Clock
from gateway.lane import Lane
from gateway.listener import Listener
from gateway.policy import Policy
from gateway.reactor import Reactor
from gateway.upstream import Upstream
