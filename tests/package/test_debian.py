"""The Debian package: what is in it, and its whole life on a Debian that is this machine's under a layer of its own: installed, upgraded while devices send, not
downgraded, removed, purged. Nothing is fetched there: it has no network."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import package_build
import pytest

DEBIAN = package_build.ROOT / "release" / "debian"
STREAM = """
[gateway]
name = "box"
checkpoint = "1s"
[listener]
[streams.env]
topics = ["sensors/+/env"]
key = "device"
[streams.env.fields]
device = { type = "str", from = "topic[1]" }
seq = "i64"
temp = "f64"
[streams.rest]
topics = ["#"]
format = "raw"
[streams.rest.fields]
topic = { type = "str", from = "topic" }
[rules.hot]
input = "env"
module = "threshold"
params = { field = "temp", op = ">", value = 30.0 }
"""
WANTED = "etc/systemd/system/multi-user.target.wants"
has = shutil.which
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.skipif(not (has("dpkg-deb") and has("llvm-strip")), reason="needs dpkg-deb and llvm-strip")]


@pytest.fixture(scope="session")
def deb(wheel, tmp_path_factory):
    """For this machine, around the wheel of test_wheel.py."""
    import package

    machine = os.uname().machine
    assert machine in package.ARCHITECTURES
    return package.build(tmp_path_factory.mktemp("deb"), machine, [wheel], version="0.2", level=0)


@pytest.fixture(scope="session")
def again(deb, tmp_path_factory):
    """fn(version, script=(name, old, new)) -> the same package by another version, with one change of a maintainer script."""

    def make(version, script=None):
        folder = tmp_path_factory.mktemp("again")
        subprocess.run(["dpkg-deb", "-R", deb, folder / "root"], check=True)
        control = folder / "root/DEBIAN/control"
        control.write_text(control.read_text().replace("\nVersion: 0.2\n", f"\nVersion: {version}\n"))
        if script:
            path = folder / "root/DEBIAN" / script[0]
            assert script[1] in path.read_text()
            path.write_text(path.read_text().replace(script[1], script[2]))
        subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", folder / "root", folder / f"{version}.deb"], check=True, capture_output=True)
        return folder / f"{version}.deb"

    return make


@pytest.fixture(scope="module")
def content(deb, tmp_path_factory):
    """The package, unpacked."""
    folder = tmp_path_factory.mktemp("content")
    subprocess.run(["dpkg-deb", "-x", deb, folder], check=True)
    return folder


# --- what is in it

def test_the_package_is_for_the_distributions_python_and_knows_its_configuration(deb):
    said = subprocess.run(["dpkg-deb", "-f", deb], capture_output=True, text=True, check=True).stdout
    minor = sys.version_info.minor
    assert f"python3 (>= 3.{minor}~), python3 (<< 3.{minor + 1})" in said
    assert subprocess.run(["dpkg-deb", "-I", deb, "conffiles"], capture_output=True, text=True, check=True).stdout == "/etc/tidegate/tidegate.toml\n"


def test_a_gap_between_pythons_is_left_out():
    import package

    assert package.depends([(3, 11), (3, 13)]) == "python3 (>= 3.11~), python3 (<< 3.12) | python3 (>= 3.13~), python3 (<< 3.14)"


def test_pages_and_completion_know_every_command(content):
    from gateway import cli

    page = subprocess.run(["gzip", "-dc", content / "usr/share/man/man1/tidegate.1.gz"], capture_output=True, text=True, check=True).stdout
    for name in (*cli.COMMANDS, *(f"rule {name}" for name in cli.RULE_COMMANDS)):
        assert name == "rule" or f'"tidegate {name}'.replace("-", r"\-") in page, name
    if has("groff"):
        done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z"], input=page, capture_output=True, text=True)
        assert not done.stderr, done.stderr
    script = f"""source {content}/usr/share/bash-completion/completions/tidegate
        try() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _tidegate; echo "${{COMPREPLY[@]}}"; }}
        try tidegate dea; try tidegate rule pu; try tidegate rule push --policy ''; try tidegate rule push --sh"""
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()
    assert said == ["dead-letters", "push", "auto keep replay fresh", "--shadow"]


def test_scripts_are_sound_shell():
    for name in ("preinst", "postinst", "prerm", "postrm"):
        subprocess.run(["sh", "-n", DEBIAN / name], check=True)
        if has("shellcheck"):
            subprocess.run(["shellcheck", DEBIAN / name], check=True)


def test_the_bill_of_materials_says_what_is_in_it(content):
    """Valid CycloneDX; every distribution with version, licence and a hash of the lock; and what is compiled into wheels."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    import lock

    text = (content / "usr/share/doc/tidegate/tidegate.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    found = {part["name"]: part for part in bill["components"]}
    assert {name: part["version"] for name, part in found.items()} == lock.pinned() and bill["metadata"]["component"]["version"] == "0.2"
    for name, part in found.items():
        (digest,) = part["hashes"]
        assert digest["alg"] == "SHA-256" and f"sha256:{digest['content']}" in lock.LOCK.read_text().partition(f"{name}==")[2].partition("==")[0]
        assert part["licenses"] and part["purl"] == f"pkg:pypi/{name}@{part['version']}"
    embedded = {part["purl"] for whole in bill["components"] for part in whole.get("components", ())}
    assert f"pkg:cargo/wasmtime@{lock.pinned()['wasmtime']}" in embedded and any(purl.startswith("pkg:generic/openssl@") for purl in embedded)


@pytest.mark.skipif(not has("systemd-analyze"), reason="needs systemd-analyze")
@pytest.mark.parametrize("unit", ["release/debian/tidegate.service", "release/debian/tidegate-api.service", "docs/monitoring/tidegate-otlp.service"])
def test_a_unit_is_exposed_by_at_most_2(unit):
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=20", package_build.ROOT / unit], capture_output=True, text=True)
    level = re.search(r"exposure level for \S+ ([\d.]+)", done.stdout)
    assert done.returncode == 0 and float(level[1]) <= 2.0, done.stdout[-300:]


def test_the_lock_satisfies_the_project():
    """Every dependency of the project and of the extras in the package, and of those in turn, is locked in a version that it allows, or left out by name."""
    import tomllib
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    import lock

    text = lock.LOCK.read_text()
    locked = lock.pinned()
    out = set(re.search(r"^#! (.*)$", text, re.M)[1].split())
    project = tomllib.loads((package_build.ROOT / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(r) for r in (*project["dependencies"], *(r for extra in ("tools", "signing", "api") for r in project["optional-dependencies"][extra]))]
    wanted += [Requirement(r) for name in locked for r in requires(name) or []]
    for requirement in wanted:
        name = requirement.name.lower().replace("_", "-")
        if name in out or requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        assert name in locked, f"release/lock.txt lacks {requirement}"
        assert requirement.specifier.contains(locked[name]), f"{requirement}, but {locked[name]} is locked"


# --- its life

class Box:
    """A Debian of its own: this machine's root below a layer in memory, with its own processes' mounts and network."""

    def __init__(self, place):
        self.place = place
        script = (f"mount -t tmpfs tmpfs {place} && mkdir {place}/up {place}/work {place}/root && mount -t overlay -o lowerdir=/,upperdir={place}/up,workdir={place}/work overlay "
                  f"{place}/root && mount -t proc proc {place}/root/proc && mount --bind /dev {place}/root/dev && ip link set lo up && echo ready && exec sleep 900")
        self.holder = subprocess.Popen(["unshare", "-m", "-n", "sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if self.holder.stdout.readline() != "ready\n":
            pytest.skip(f"no layer over the root here: {self.holder.stderr.read()[-300:]}")
        self.root = Path(f"/proc/{self.holder.pid}/root{place}/root")
        subprocess.run(["rm", "-rf", *(self.root / p for p in ("etc/tidegate", "var/lib/tidegate", "opt/tidegate"))], check=True)

    def command(self, *command, user="root"):
        return ["nsenter", "-t", str(self.holder.pid), "-m", "-n", "chroot", f"--userspec={user}", f"{self.place}/root", "env", "-i", "HOME=/tmp", "LC_ALL=C.UTF-8",
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", *command]

    def call(self, *command, status=0, user="root"):
        done = subprocess.run(self.command(*command, user=user), capture_output=True, text=True)
        assert done.returncode == status, f"{command}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        return done.stdout + (done.stderr if status else "")

    def dpkg(self, way, deb, status=0):
        shutil.copy(deb, self.root / "tmp/package.deb")
        return self.call("dpkg", way, "/tmp/package.deb", status=status)

    def start(self):
        """The daemon, by hand: no systemd runs here."""
        daemon = subprocess.Popen(self.command("tidegate", "run", user="tidegate:tidegate"), stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 60
        while subprocess.run(self.command("tidegate", "status", "--json"), capture_output=True).returncode:
            assert daemon.poll() is None and time.monotonic() < until, daemon.stderr.read()
            time.sleep(0.1)
        return daemon

    def stop(self, daemon):
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(60) == 0


@pytest.fixture(scope="module")
def box(tmp_path_factory, deb):
    if os.geteuid():
        pytest.skip("needs root")
    if not subprocess.run(["dpkg", "--verify-format", "rpm", "--verify", "python3"], capture_output=True).returncode == 0 or sys.version_info[:2] != (3, 11):
        pytest.skip("needs a Debian with the Python of the tests")
    box = Box(tmp_path_factory.mktemp("box"))
    yield box
    box.holder.kill()


@pytest.fixture(scope="module")
def installed(box, deb):
    box.said = box.dpkg("-i", deb)
    return box


def test_installed_it_is_ready(installed):
    """User, private data directory, no unit enabled before the gateway has a name, the configuration good, and no more than 35 MB beyond Python and wasmtime."""
    assert installed.call("getent", "passwd", "tidegate").split(":")[5] == "/var/lib/tidegate"
    assert installed.call("stat", "-c", "%U %a", "/var/lib/tidegate") == "tidegate 700\n"
    assert [line for line in installed.said.splitlines() if line.startswith("tidegate: ")] == ["tidegate: now run: sudo tidegate init"]
    assert not any((installed.root / WANTED / unit).is_symlink() for unit in ("tidegate.service", "tidegate-api.service"))
    assert installed.call("tidegate", "check") == "/etc/tidegate/tidegate.toml: ok\n"
    files = [p for p in (installed.root / "opt/tidegate").rglob("*") if p.is_file() and not p.is_symlink()]
    size = sum(p.stat().st_size for p in files if "/site-packages/wasmtime/" not in str(p))
    print(f"{size / 1e6:.1f} MB installed beyond Python and wasmtime")
    assert size <= 35_000_000


def test_init_writes_over_the_conffile_that_nobody_changed_and_says_how_to_start(installed):
    """The configuration, and secrets that the service's user may read and others may not. Who then enables the unit finds it so after an upgrade."""
    said = installed.call("sh", "-c", "echo hush > /tmp/secret; tidegate init --name plant-7 --listen 1884 --upstream mqtt://plant@cloud.example --upstream-password-file /tmp/secret --start "
                          "< /dev/null")
    assert "/etc/tidegate/tidegate.toml: written" in said and said.splitlines()[-1] == "next: sudo systemctl enable --now tidegate"
    assert "name = \"plant-7\"" in (installed.root / "etc/tidegate/tidegate.toml").read_text() and not (installed.root / "etc/tidegate/tidegate.toml.bak").exists()
    assert "--force" in installed.call("tidegate", "init", "--name", "x", "--listen", "1", "--upstream", "none", status=2)
    installed.call("systemctl", "enable", "tidegate")
    assert (installed.root / WANTED / "tidegate.service").is_symlink()


def test_what_is_bundled_can_be_imported(installed):
    """The daemon, SQL, signatures and the API, from the package alone."""
    installed.call("/opt/tidegate/bin/python3", "-I", "-c", "import gateway.daemon, rulec.sql, gateway.deploy.signing, gateway.manage.api, gateway.manage.server; gateway.manage.api.document(); "
                   "from cryptography.hazmat.primitives.asymmetric import ed25519; ed25519.Ed25519PrivateKey.generate()")
    assert "demo" in installed.call("firmware-sim", "scenarios")


def test_the_api_lets_in_whom_the_gateways_user_names(installed):
    assert installed.call("tidegate", "api", "--new-token", "ann", user="tidegate:tidegate").startswith("tg_")
    assert "token:ann read" in (installed.root / "var/lib/tidegate/api.access").read_text()


def test_an_upgrade_while_devices_send_loses_nothing_and_keeps_the_configuration(installed, again):
    path = installed.root / "etc/tidegate/tidegate.toml"
    path.write_text(STREAM)
    daemon = installed.start()
    fleet = subprocess.Popen(installed.command("firmware-sim", "run", "demo", "--seconds", "4", "--drain-s", "60", "--truth", "/tmp/truth", "--json"), stdout=subprocess.PIPE, text=True)
    time.sleep(1.5)
    installed.stop(daemon)               # what prerm does where systemd runs
    installed.dpkg("-i", again("0.3"))
    assert path.read_text() == STREAM and (installed.root / WANTED / "tidegate.service").is_symlink()
    daemon = installed.start()
    sent = json.loads(fleet.communicate(timeout=90)[0])
    assert fleet.returncode == 0, sent
    installed.call("tidegate", "ledger", "--check")
    installed.stop(daemon)
    rows = installed.call("tidegate", "buffer", "export", "journal", "--stream", "env", "--out", "/tmp/rows")
    assert not rows.strip() or "row" in rows
    installed.call("firmware-sim", "verify", "--truth", "/tmp/truth", "--received", "/tmp/rows", "--stream", "env", "--group", "env", "--fields", "temp", "--allow-copies")


def test_a_downgrade_that_cannot_read_the_data_refuses_before_it_touches_it(installed, again):
    before = installed.call("sh", "-c", "find /var/lib/tidegate /opt/tidegate/lib -type f ! -name '*.pyc' -exec md5sum {} + | sort")
    old = again("0.1", ("preinst", "checkpoint=2", "checkpoint=1"))
    assert "written by a newer version (checkpoint of format 2, this version reads up to 1)" in installed.dpkg("-i", old, status=1)
    assert installed.call("dpkg-query", "-W", "-f", "${Version} ${db:Status-Status}", "tidegate") == "0.3 installed"
    assert installed.call("sh", "-c", "find /var/lib/tidegate /opt/tidegate/lib -type f ! -name '*.pyc' -exec md5sum {} + | sort") == before
    assert (installed.root / "opt/tidegate/lib/site-packages/gateway/__pycache__").is_dir()       # as fast a start as before
    installed.stop(installed.start())
    installed.dpkg("-i", again("0.1"))           # one that can read it goes in
    installed.stop(installed.start())


def test_remove_keeps_data_and_configuration_and_what_is_older_still_refuses(installed, again):
    journal = sorted(p.name for p in (installed.root / "var/lib/tidegate/journal").iterdir())
    installed.call("dpkg", "-r", "tidegate")
    assert sorted(p.name for p in (installed.root / "var/lib/tidegate/journal").iterdir()) == journal
    assert (installed.root / "etc/tidegate/tidegate.toml").read_text() == STREAM and not (installed.root / "opt/tidegate").exists()
    installed.dpkg("-i", again("0.0.9", ("preinst", "checkpoint=2", "checkpoint=1")), status=1)


def test_purge_deletes_all(installed, again):
    installed.dpkg("-i", again("0.4"))
    installed.call("dpkg", "-P", "tidegate")
    for name in ("var/lib/tidegate", "etc/tidegate", "opt/tidegate", "usr/bin/tidegate", "etc/systemd/system/multi-user.target.wants/tidegate.service"):
        assert not os.path.lexists(installed.root / name), name
    installed.call("getent", "passwd", "tidegate", status=2)
