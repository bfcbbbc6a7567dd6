"""A rule's linear memory reserves addresses: how many rules fit a board's address space, and that pages of 4, 16 and 64 KiB divide what is reserved."""

import json
import subprocess
import sys

import pytest
import wasmtime

from edge.host.engine import MEMORY_RESERVATION, SETTINGS, engine
from edge.host.limits import Limits

PAGES = (4 << 10, 16 << 10, 64 << 10)        # of ARM64 kernels; a Raspberry Pi 5's has 16 KiB
FILL = """
import json, resource, sys
from edge.columns.schema import Field, Schema
from edge.errors import RuleError
from edge.host.compile import Cache
from edge.host.rule import Rule
from tidegate_rules import path
most, limit, cache = int(sys.argv[1]), int(sys.argv[2]), Cache(sys.argv[3])
schema = Schema("env", (Field("temp", "f64", ""),))
rules = [Rule("r", path("threshold"), {"field": "temp", "op": ">", "value": 1.0}, schema, cache=cache)]
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
said = ""
try:
    while len(rules) < most:
        rules.append(rules[0].another())
except RuleError as error:
    said = str(error)
print(json.dumps([len(rules), said]))
"""


def fitted(tmp_path, most, limit):
    """How many of `most` rules find room in so many bytes of addresses, and what the next one is told."""
    done = subprocess.run([sys.executable, "-c", FILL, str(most), str(limit), str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", ["memory_reservation", "memory_reservation_for_growth", "memory_guard_size"])
def test_what_is_reserved_is_whole_pages(name, page):
    assert SETTINGS[name] and SETTINGS[name] % page == 0


def test_a_rule_with_the_usual_limit_is_never_moved():
    assert Limits().memory_bytes <= MEMORY_RESERVATION


def test_three_hundred_rules_fit_an_address_space_of_39_bits(tmp_path):
    """Of Wasmtime's usual 4 GiB it has room for 125."""
    assert fitted(tmp_path, 300, 1 << 39) == [300, ""]


def test_twenty_rules_fit_512_mib_of_addresses_and_the_next_is_refused_in_words(tmp_path):
    count, said = fitted(tmp_path, 1000, 512 << 20)
    assert 20 <= count < 32 and "cannot be instantiated" in said and "Cannot allocate memory" in said


def test_a_memory_that_outgrows_its_reservation_keeps_what_it_holds():
    module = wasmtime.Module(engine(), wasmtime.wat2wasm('(module (memory (export "memory") 1))'))
    store = wasmtime.Store(engine())
    store.set_epoch_deadline(1)
    memory = wasmtime.Instance(store, module, []).exports(store)["memory"]
    memory.write(store, b"here", 100)
    before = None
    while memory.data_len(store) < 2 * MEMORY_RESERVATION:
        before = memory.data_len(store)
        memory.grow(store, 37)                # no power of two
        memory.write(store, b"there", memory.data_len(store) - 5)
        assert memory.read(store, 100, 104) == b"here" and memory.read(store, before - 5, before) in (b"there", bytes(5))
