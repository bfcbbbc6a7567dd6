"""A simulated world has its own time in modules that real ones use, too: each test gives it back."""

import random

import paho.mqtt.client as paho
import pytest

from gateway import daemon
from gateway.deploy import shadows, swap
from gateway.forward import lane, track, upstream

CLOCKS = [(paho, "time_func"), (daemon, "gc"), *((module, "perf_counter") for module in (lane, shadows, swap, track, upstream))]


@pytest.fixture(autouse=True)
def real_time_afterwards():
    before, state = [(module, name, getattr(module, name)) for module, name in CLOCKS], random.getstate()
    yield
    for module, name, clock in before:
        setattr(module, name, clock)
    random.setstate(state)
