"""What stands in a gateway's way when it starts: one clear message (what, where, what to do), exit status 2, no traceback, soon."""

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest

from count_world import HEAD, LANE, LISTENER, PLAIN, STREAM, UPSTREAM, Device
from site_world import free_port

CHECK_S = 30


def run(folder, *command, prefix=()):
    """A command that is expected to end by itself: (status, what it said)."""
    done = subprocess.run([*prefix, sys.executable, "-m", "gateway.cli", *command], cwd=folder, capture_output=True, text=True, timeout=CHECK_S)
    return done.returncode, done.stderr


def refused(world, *words, prefix=()):
    status, said = run(world.folder, "run", prefix=prefix)
    assert status == 2, (status, said)
    clear(said, *words)
    return said


def clear(said, *words):
    assert "Traceback" not in said, said
    assert "tidegate" in said.splitlines()[-1], said
    for word in words:
        assert word in said, f"{word!r} is not in: {said}"


# --- the file

FILES = {
    "not toml": ("[gateway\n", ["is not TOML", "line 1"]),
    "unknown key": (PLAIN.replace("lateness", "latness"), ["streams.env.latness", "did you mean lateness?"]),
    "unknown table": (PLAIN + "[listner]\nport = 1\n", ["listner", "did you mean listener?"]),
    "wrong type": (PLAIN.replace('idle = "2s"', "idle = 2"), ["streams.env.idle", "in quotes"]),
    "missing streams": (HEAD + LISTENER, ["streams", "is missing"]),
    "no source": (HEAD + UPSTREAM + STREAM + LANE, ["[listener]"]),
    "lane without upstream": (HEAD + LISTENER + STREAM + LANE, ["upstream", "is missing"]),
    "lane of an unknown stream": (PLAIN.replace('streams = ["env"]', 'streams = ["enw"]'), ["lanes.main.streams[0]", "did you mean env?"]),
    "key of an unknown field": (PLAIN.replace('key = "device"', 'key = "dev"'), ["env", "key", "dev"]),
    "two names alike": (PLAIN + '[rules.env]\ninput = "env"\nmodule = "dedup"\n', ["rules.env", "take another"]),
    "not utf-8": (b"# \xff\n", ["is not UTF-8"]),
    "empty": ("", ["streams"]),
    "a bad topic filter": (PLAIN.replace("sensors/+/env", "sensors/#/env"), ["env", "#"]),
    "a bad name": (PLAIN.replace('name = "site"', 'name = "si/te"'), ["gateway.name"]),
}


@pytest.mark.parametrize("case", FILES)
def test_a_configuration_that_cannot_be(site, case):
    text, words = FILES[case]
    world = site()
    if isinstance(text, bytes):
        (world.folder / "tidegate.toml").write_bytes(text)
    else:
        world.write("tidegate.toml", text)
    refused(world, *words)
    status, said = run(world.folder, "check")
    assert status == 1 and "Traceback" not in said and all(word in said for word in words), said


def test_no_configuration_at_all(tmp_path):
    for command in (["run"], ["run", "-c", "there/is.none"], ["run", "-c", str(tmp_path)], ["status"], ["ledger"]):
        status, said = run(tmp_path, *command)
        assert status == 2, said
        clear(said, "cannot be read", "-c")


# --- ports and certificates

def test_a_port_in_use(site):
    world = site()
    with socket.create_server(("127.0.0.1", world.port)):
        refused(world, f"127.0.0.1:{world.port}", "another process listens there")


def test_a_metrics_port_in_use(site):
    world = site(PLAIN + "[metrics]\nport = $METRICS\n", METRICS=free_port())
    with socket.create_server(("127.0.0.1", world.words["METRICS"])):
        refused(world, "metrics.port", str(world.words["METRICS"]))


@pytest.mark.parametrize("end", ["listener", "upstream", "broker"])
@pytest.mark.parametrize("what", ["missing", "not pem"])
def test_certificate_files_that_are_not_there(site, end, what):
    tables = {"listener": LISTENER, "upstream": UPSTREAM, "broker": '[broker]\nhost = "127.0.0.1"\n'}
    tables[end] += 'tls = { ca = "ca.pem", cert = "cert.pem", key = "key.pem" }\n'
    tables["listener"] += 'acl_file = "permits"\n' if end == "listener" else ""
    world = site(HEAD + "".join(tables.values()) + STREAM + LANE)
    if what == "not pem":
        for name in ("ca", "cert", "key"):
            world.write(f"{name}.pem", "hello")
    refused(world, f"{end}.tls", "ca.pem")


def test_a_password_file_that_is_not_there(site):
    world = site(PLAIN.replace('host = "127.0.0.1"', 'host = "127.0.0.1"\nusername = "x"\npassword_file = "secret"'))
    refused(world, "upstream.password_file", "secret")


# --- the data directory

def test_a_data_directory_that_is_a_file(site):
    world = site()
    world.write("data", "")
    refused(world, "data", "cannot be used", "gateway.data")


def test_a_data_directory_below_a_file(site):
    world = site(PLAIN.replace('data = "data"', 'data = "tidegate.toml/data"'))
    refused(world, "tidegate.toml/data", "gateway.data")


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="takes root's powers away: needs root and setpriv")
@pytest.mark.parametrize("state", ["new", "used"])
def test_a_data_directory_of_another_user(site, state):
    world = site()
    data = world.folder / "data"
    data.mkdir()
    if state == "used":
        world.start_gateway()
        world.stop("gateway")
    for path in (data, *data.rglob("*")):
        os.chown(path, 65534, 65534)
    refused(world, "data", "Permission denied", prefix=["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"])
    for path in (data, *data.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    refused(world, "data", "Permission denied", prefix=["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"])


@pytest.mark.skipif(os.getuid() != 0, reason="mounts: needs root")
@pytest.mark.parametrize("state", ["new", "used"])
def test_a_read_only_data_directory(site, state):
    world = site()
    (world.folder / "data").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(world.folder / "data")], capture_output=True).returncode:
        pytest.skip("this system mounts no tmpfs")
    try:
        if state == "used":
            world.start_gateway()
            world.stop("gateway")
        subprocess.run(["mount", "-o", "remount,ro", str(world.folder / "data")], check=True)
        refused(world, "data")
    finally:
        subprocess.run(["umount", str(world.folder / "data")], check=True)


def test_a_data_directory_in_use(site):
    world = site()
    world.start_gateway()
    world.write("other.toml", PLAIN.replace("$PORT", str(free_port())))
    status, said = run(world.folder, "run", "-c", "other.toml")
    assert status == 2
    clear(said, "data", "another gateway runs on this directory")
    assert world.ask("status"), "the running gateway must not notice"


def test_a_data_directory_of_another_gateway(site):
    world = site()
    world.start_gateway()
    world.stop("gateway")
    world.write("tidegate.toml", PLAIN.replace('name = "site"', 'name = "else"'))
    refused(world, "identity.json", "'site'", "gateway.name")


def test_a_data_directory_of_a_newer_version(site, devices):
    world = site()
    world.start_gateway()
    devices.append(Device(world.port))
    devices[0].publish(10)
    devices[0].settle()
    world.stop("gateway")
    path = world.folder / "data/identity.json"
    good = path.read_text()
    path.write_text(json.dumps({**json.loads(good.partition("\n")[0]), "version": 99}))
    refused(world, "identity.json", "newer version", "99")
    path.write_text(json.dumps({"version": 99, "all": "else"}))
    refused(world, "identity.json", "newer version", "99")
    path.write_text(good)
    for log in ("journal", "checkpoints", "outbox/main"):
        segment = sorted((world.folder / "data" / log).glob("*.seg"))[-1]
        before = segment.read_bytes()
        segment.write_bytes(newer(before))
        refused(world, segment.name, "version 99", "newer version")
        assert segment.read_bytes() == newer(before), "what a newer version wrote must stay as it is"
        segment.write_bytes(before)
    world.start_gateway()
    world.balanced()


def newer(segment):
    """The segment with format version 99 in its header, and a right checksum."""
    from edge.storage._crc32c import crc32c

    header = bytearray(segment[:28])
    header[8:10] = (99).to_bytes(2, "little")
    return bytes(header) + crc32c(bytes(header)).to_bytes(4, "little") + segment[32:]


# --- rules: a broken one is left out and reported; the others go on

GOOD = '[rules.good]\ninput = "env"\nmodule = "threshold"\nparams = { field = "temp", op = ">", value = 25.0 }\n'
RULES = {
    "a module that is not wasm": ('module = "text.wasm"', ["text.wasm"]),
    "a truncated module": ('module = "cut.wasm"', ["cut.wasm"]),
    "a module that is not there": ('module = "none.wasm"', ["none.wasm", "No such file"]),
    "a module that is a directory": ('module = "folder.wasm"', ["folder.wasm"]),
    "an unknown ready-made rule": ('module = "threshhold"', ["threshhold", "threshold"]),
    "a module that asks for imports": ('module = "imports.wasm"', ["imports.wasm", "import"]),
    "a wasm module that is no rule": ('module = "no_rule.wasm"', ["no_rule.wasm"]),
    "an unknown parameter": ('module = "threshold"\nparams = { field = "temp", op = ">", valeu = 1.0 }', ["valeu", "did you mean value?"]),
    "a missing parameter": ('module = "threshold"\nparams = { field = "temp", op = ">" }', ["value"]),
    "a parameter out of bounds": ('module = "window"\nparams = { length = "0s", fields = ["temp"], functions = ["count"] }', ["length"]),
    "a parameter of the wrong type": ('module = "threshold"\nparams = { field = "temp", op = ">", value = "hot" }', ["value"]),
    "a field that is not there": ('module = "threshold"\nparams = { field = "tmp", op = ">", value = 1.0 }', ["tmp", "temp"]),
    "too little memory": ('module = "dedup"\nparams = { id = "seq" }\nlimits = { memory = "64KiB" }', ["tg_open"]),
}


def rule_files(folder):
    import tidegate_rules

    (folder / "text.wasm").write_text("hello")
    with open(tidegate_rules.path("dedup"), "rb") as module:
        (folder / "cut.wasm").write_bytes(module.read()[:1000])
    (folder / "folder.wasm").mkdir()
    import wasmtime

    (folder / "imports.wasm").write_bytes(bytes(wasmtime.wat2wasm('(module (import "wasi_snapshot_preview1" "fd_write" (func (param i32) (result i32))) (memory (export "memory") 1))')))
    (folder / "no_rule.wasm").write_bytes(bytes(wasmtime.wat2wasm("(module)")))


def test_broken_rules_are_told_by_check_and_left_out_by_run(site, devices):
    text = HEAD + LISTENER + UPSTREAM + STREAM + GOOD + LANE.replace('["env"]', '["env", "good", "r0"]')
    for i, (rule, _) in enumerate(RULES.values()):
        text += f'[rules.r{i}]\ninput = "env"\n{rule}\n'
    text += '[rules.after]\ninput = "r0"\nmodule = "dedup"\nparams = { id = "seq" }\n'
    world = site(text)
    rule_files(world.folder)
    status, said = run(world.folder, "check")
    assert status == 1 and "Traceback" not in said
    for i, (case, (_, words)) in enumerate(RULES.items()):
        lines = [line for line in said.splitlines() if f"rules.r{i}:" in line]
        assert len(lines) == 1 and all(word in lines[0] for word in words), (case, words, lines)
    assert "rules.after:" in said and "r0" in said and "rules.good" not in said
    world.start_receiver()
    world.start_gateway()
    log = world.log()
    assert "Traceback" not in log
    for name in (*(f"r{i}" for i in range(len(RULES))), "after"):
        assert f"{name} is left out" in log or "held_back" in log, (name, log)
        assert world.ask("status")["rules"][name]["state"].startswith("refused: ")
    devices.append(Device(world.port))
    devices[0].publish(100)
    world.expect(devices[0].settle())
    world.expect([e for e in devices[0].settle() if 20 + e[1] % 10 > 25], "good")


def test_rules_in_a_circle(site):
    world = site(PLAIN + '[rules.a]\ninput = "b"\nmodule = "dedup"\n[rules.b]\ninput = "a"\nmodule = "dedup"\n')
    refused(world, "circle", "a", "b")
    status, said = run(world.folder, "check")
    assert status == 1 and "circle" in said
