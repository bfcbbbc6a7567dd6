"""The cache of machine code: private, verified, and disposable."""

import os
import stat

import pytest

import rule_module as m
from edge.errors import DiskError, RuleError
from edge.host.compile import Cache
from edge.host.rule import Rule


def files(directory):
    return sorted(p.name for p in directory.iterdir())


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """A cache with one module in it, and how often the compiler has run."""
    import edge.host.compile as compile

    runs, run = [], compile._run_child
    monkeypatch.setattr(compile, "_run_child", lambda module: runs.append(module.digest) or run(module))
    cache = Cache(tmp_path / "compiled")
    module = m.checked(m.module())
    cache.load(module)
    return cache, module, runs


def test_a_module_is_compiled_once(compiled):
    cache, module, runs = compiled
    Cache(cache.directory).load(module)
    assert len(runs) == 1 and len(files(cache.directory)) == 2


def test_nobody_else_may_write_machine_code(compiled):
    cache, _, _ = compiled
    assert stat.S_IMODE(cache.directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in cache.directory.iterdir()} == {0o600}


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "no sum", "wrong sum", "other code"])
def test_damaged_code_is_never_mapped_but_compiled_again(compiled, damage):
    cache, module, runs = compiled
    code = next(cache.directory.glob("*.cwasm"))
    good = code.read_bytes()
    if damage == "flip":
        code.write_bytes(good[:5000] + bytes([good[5000] ^ 1]) + good[5001:])
    elif damage == "cut":
        code.write_bytes(good[: len(good) // 2])
    elif damage == "empty":
        code.write_bytes(b"")
    elif damage == "no sum":
        code.with_suffix(".sum").unlink()
    elif damage == "wrong sum":
        code.with_suffix(".sum").write_text("0" * 64)
    else:                                            # of another version, with a right sum
        import hashlib

        other = good.replace(b"50.", b"49.")
        code.write_bytes(other if other != good else b"\x7fELF")
        code.with_suffix(".sum").write_text(hashlib.sha256(code.read_bytes()).hexdigest())
    cache.load(module)
    assert len(runs) == 2 and code.read_bytes() == good


def test_a_disk_that_refuses_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="compiled rules are kept there"):
        Cache(tmp_path / "file" / "compiled")


@pytest.mark.parametrize(("limit", "value"), [("COMPILE_CPU_S", 1), ("COMPILE_BYTES", 200 << 20), ("COMPILE_WALL_S", 0.2)])
def test_a_module_made_to_exhaust_the_compiler_is_refused(tmp_path, monkeypatch, limit, value):
    import edge.host.compile as compile

    monkeypatch.setattr(compile, limit, value)
    module = m.checked(m.module("(func)" * 60_000))
    with pytest.raises(RuleError, match="compiling it took more than") as caught:
        Cache(tmp_path / "compiled").load(module)
    assert caught.value.code == "limit"


def test_the_cache_is_bounded(tmp_path, monkeypatch):
    import edge.host.compile as compile

    monkeypatch.setattr(compile, "KEPT_MAX", 2)
    cache = Cache(tmp_path / "compiled")
    (cache.directory / "abc.cwasm.123").write_bytes(b"left by a crash")
    for i in range(3):
        cache.load(m.checked(m.module(f"(global i32 (i32.const {i}))")))
    assert len(files(cache.directory)) == 4


def test_the_parent_maps_the_code(cache):
    module = m.checked(m.module())
    rule = Rule("probe", module, {}, m.STREAM, cache=cache)
    assert str(cache.directory) in open("/proc/self/maps").read()
    assert rule.process(m.batch()).out_count == 0
    assert os.listdir(cache.directory)
