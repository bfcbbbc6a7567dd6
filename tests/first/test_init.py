"""`tidegate init`: by flags without a terminal, and by a dialogue at one. What it writes passes `check`, or nothing is written."""

import os
import pwd
import re
import select
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge.identity import Identity
from edge.storage.disk import Disk
from gateway import cli
from gateway.commands import init
from gateway.config import reader as config
from gateway.ingest import passwords
from gateway.init import placing, questions

sys.path.insert(0, str(Path(__file__).parents[1] / "mqtt"))
LEAST = ["--name", "p7", "--listen", "0", "--upstream", "none"]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """run(*flags) -> (exit status, standard output, standard error) in an empty folder, without a terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(placing, "service_user", lambda: None)
    monkeypatch.setattr(config, "INSTALLED", tmp_path / "none/tidegate.toml")

    def run(*flags, command="init"):
        capsys.readouterr()
        status = cli.main([command, *flags])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_what_is_missing_is_an_error_that_names_every_flag_and_nothing_is_asked(run, tmp_path):
    status, _, err = run()
    assert status == 2 and err.count("is missing") == 3
    for flag in ("--name", "--broker URL or --listen", "--upstream URL or --upstream none"):
        assert flag in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flags, holds", [
    (["--listen", "1884", "--upstream", "none"], lambda c: (c.listener.port, c.listener.host, c.upstream) == (1884, "127.0.0.1", None)),
    (["--broker", "mqtt://ann@broker.local", "--upstream", "none"], lambda c: (c.broker.host, c.broker.port, c.broker.username, c.listener) == ("broker.local", 1883, "ann", None)),
    (["--listen", "0", "--upstream", "mqtts://cloud.example"], lambda c: (c.upstream.port, c.upstream.tls.ca, c.lanes["telemetry"].streams) == (8883, None, ["env"])),
    (["--listen", "[::1]:0", "--upstream", "none", "--data", "elsewhere", "--disk", "1GiB"],
     lambda c: (c.listener.host, c.gateway.data[-9:], c.journal.quota >> 20, c.journal.dead_letters >> 20) == ("::1", "elsewhere", 614, 102)),
], ids=["listener", "broker", "upstream", "sizes"])
def test_flags_make_a_configuration_that_check_accepts(run, flags, holds):
    status, out, err = run("--name", "plant-7", *flags)
    assert status == 0, err
    assert "next: tidegate run -c tidegate.toml" in out
    assert run("-c", "tidegate.toml", command="check")[0] == 0
    loaded = config.load("tidegate.toml")
    assert loaded.gateway.name == "plant-7" and holds(loaded)


@pytest.mark.parametrize("flags, says", [
    (["--name", "a b"], "--name 'a b'"),
    (["--listen", "no"], "--listen no: not an address"),
    (["--listen", "70000"], "--listen 70000"),
    (["--listen", "0.0.0.0:8883"], "--listen-cert and --listen-key"),
    (["--broker", "mqtt://x", "--listen", "1"], "--broker or --listen"),
    (["--upstream", "mqtt://ann:secret@x"], "--upstream-password-file"),
    (["--upstream", "http://x"], "--upstream http://x: not a broker's address"),
    (["--upstream", "mqtt://x", "--upstream-ca", "ca.pem"], "mqtts://"),
    (["--upstream", "mqtts://x", "--upstream-cert", "c.pem"], "--upstream-key"),
    (["--upstream", "mqtts://x", "--upstream-ca", "missing.pem"], "upstream.tls"),
    (["--upstream", "mqtt://x", "--upstream-password-file", "missing"], "upstream.password_file"),
    (["--broker-ca", "x.pem"], "--broker-ca needs --broker"),
    (["--disk", "1MiB"], "at least 64MiB"),
    (["--discover", "-1"], "--discover"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_flags_that_do_not_fit_are_refused_and_nothing_is_written(run, tmp_path, flags, says):
    given = [*flags, *(word for pair in zip(LEAST[::2], LEAST[1::2]) for word in pair if pair[0] not in flags and not (pair[0] == "--listen" and "--broker" in flags))]
    status, _, err = run(*given)
    assert status == 2 and says in err and "secret" not in err, err
    assert not list(tmp_path.iterdir())


def test_an_existing_configuration_is_kept_unless_forced_and_then_as_bak(run, tmp_path):
    mine = "# mine\n"
    (tmp_path / "tidegate.toml").write_text(mine)
    (tmp_path / "tidegate.toml").chmod(0o640)
    status, _, err = run(*LEAST)
    assert status == 2 and "--force" in err and (tmp_path / "tidegate.toml").read_text() == mine
    status, out, err = run(*LEAST, "--force")
    assert status == 0 and "tidegate.toml.bak" in out, err
    assert (tmp_path / "tidegate.toml.bak").read_text() == mine and config.load(tmp_path / "tidegate.toml").gateway.name == "p7"
    assert stat.S_IMODE((tmp_path / "tidegate.toml").stat().st_mode) == 0o640
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tidegate.toml", "tidegate.toml.bak"]


def test_a_write_that_fails_leaves_what_was_there(run, tmp_path, monkeypatch):
    (tmp_path / "tidegate.toml").write_text("# mine\n")

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(placing.os, "fdatasync", full)
    status, _, err = run(*LEAST, "--force")
    assert status == 2 and "No space left" in err and (tmp_path / "tidegate.toml").read_text() == "# mine\n"


def test_the_packages_own_conffile_is_written_over_without_force(run, tmp_path, monkeypatch):
    installed, pristine = tmp_path / "etc/tidegate.toml", tmp_path / "opt.toml"
    installed.parent.mkdir()
    for path in (installed, pristine):
        path.write_text("# as it came\n")
    monkeypatch.setattr(config, "INSTALLED", installed)
    monkeypatch.setattr(placing, "PRISTINE", pristine)
    monkeypatch.setattr(placing, "SYSTEMD", tmp_path / "none")
    status, out, err = run(*LEAST, "--data", str(tmp_path / "data"), "--start")
    assert status == 0 and out.endswith("next: sudo systemctl enable --now tidegate\n"), err
    assert not Path(f"{installed}.bak").exists() and config.load(installed).gateway.name == "p7"
    assert "--force" in run(*LEAST)[2]               # now it is somebody's work


def test_start_enables_the_unit_and_starts_again_one_that_runs(run, tmp_path, monkeypatch):
    tools, calls = tmp_path / "bin", tmp_path / "calls"
    tools.mkdir()
    (tools / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    (tools / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setattr(config, "INSTALLED", tmp_path / "etc/tidegate.toml")
    monkeypatch.setattr(placing, "SYSTEMD", tmp_path)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/tidegate.toml").write_text("# old\n")
    status, out, err = run(*LEAST, "--data", str(tmp_path / "data"), "--start", "--force")
    assert status == 0 and "next: sudo tidegate status" in out, err
    assert calls.read_text().splitlines() == ["--quiet is-active tidegate", "enable --now tidegate", "restart tidegate"]


def test_a_directory_of_another_gateways_data_is_not_taken(run, tmp_path):
    (tmp_path / "data").mkdir()
    Identity(Disk(), str(tmp_path / "data"), "old-name").save()
    status, _, err = run(*LEAST, "--data", "data")
    assert status == 2 and "holds the data of gateway 'old-name'" in err
    assert run("--name", "old-name", *LEAST[2:], "--data", "data")[0] == 0


def test_a_small_disk_needs_a_size(run, monkeypatch):
    monkeypatch.setattr(init, "_free", lambda folder: 300 << 20)
    status, _, err = run(*LEAST)
    assert status == 2 and "--disk SIZE is missing" in err and "300 MiB are free" in err
    assert run(*LEAST, "--disk", "200MiB")[0] == 0


def test_a_listener_for_the_network_has_tls_names_and_permits(run, tmp_path):
    pytest.importorskip("cryptography", reason="the test's authority is made with `cryptography`")
    from authority import Authority

    authority = Authority(tmp_path)
    cert, key = authority.issue("localhost")
    passwords.put(tmp_path / "users", "press-7", passwords.hashed(b"x"))
    status, out, err = run("--name", "p7", "--listen", "0.0.0.0:8883", "--listen-cert", str(cert), "--listen-key", str(key), "--listen-passwords", "users", "--upstream", "none")
    assert status == 0, err
    loaded = config.load("tidegate.toml")
    assert (loaded.listener.tls.cert, loaded.listener.password_file, loaded.listener.anonymous) == (str(cert), str(tmp_path / "users"), False)
    permits = (tmp_path / "acl").read_text()
    assert "pattern write sensors/%u/env" in permits and f"{tmp_path}/acl: written" in out
    assert stat.S_IMODE((tmp_path / "acl").stat().st_mode) == 0o600


def test_what_the_services_user_cannot_read_is_said(tmp_path, monkeypatch):
    tmp_path.chmod(0o755)
    monkeypatch.setattr(placing, "service_user", lambda: pwd.getpwnam("nobody"))
    good, bad = tmp_path / "good.pem", tmp_path / "bad.pem"
    for path, mode in ((good, 0o644), (bad, 0o600)):
        path.touch()
        path.chmod(mode)
    said = placing.unreadable([good, bad, tmp_path / "missing"])
    assert str(bad) in said and str(tmp_path / "missing") in said


# --- at a terminal

class Terminal:
    """A process at a pseudo-terminal."""

    def __init__(self, folder, *flags):
        self.master, slave = os.openpty()
        environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1]), "TERM": "dumb"}
        self.process = subprocess.Popen([sys.executable, "-m", "gateway.cli", "init", "-c", str(folder / "t.toml"), *flags], cwd=folder, env=environment, stdin=slave,
                                        stdout=slave, stderr=slave, start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        os.close(slave)
        self.said = ""

    def expect(self, pattern, answer=None):
        """Wait until it says this, from where the last expectation ended; then type an answer."""
        until = time.monotonic() + 60
        while not (match := re.search(pattern, self.said)):
            assert time.monotonic() < until and self._read(), f"no {pattern!r} in {self.said!r}"
        self.said = self.said[match.end():]
        if answer is not None:
            os.write(self.master, answer.encode() + b"\n")

    def _read(self):
        if not select.select([self.master], [], [], 1)[0]:
            return True
        try:
            data = os.read(self.master, 4096)
        except OSError:                              # the other end is closed
            return False
        self.said += data.decode("utf-8", "replace")
        return bool(data)

    def interrupt(self):
        """SIGINT until it ends: one between the prompt and the read that waits is seen after that read only."""
        for _ in range(120):
            self.process.send_signal(signal.SIGINT)
            try:
                return self.process.wait(0.5)
            except subprocess.TimeoutExpired:
                pass

    def end(self):
        until = time.monotonic() + 60
        while self._read():
            assert time.monotonic() < until
        return self.process.wait(60)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)


@pytest.fixture
def terminal(tmp_path):
    made = []

    def start(*flags):
        made.append(Terminal(tmp_path, *flags))
        return made[-1]

    yield start
    for one in made:
        one.close()


def test_a_dialogue_makes_a_configuration_and_keeps_the_password_out_of_it(terminal, tmp_path):
    at = terminal("--data", str(tmp_path / "data"))
    at.expect(r"gateway's name.*\]: ", "no name")
    at.expect("a name has letters")                  # asked again
    at.expect(r"gateway's name.*\]: ", "plant-7")
    at.expect(r"events come from.*\[1883\]: ", "")
    at.expect(r"results go.*\[none\]: ", "mqtt://cloud.example:1884")
    at.expect(r"User name there.*: ", "plant-7")
    at.expect(r"Password of plant-7.*: ", "hush hush")
    at.expect(r"propose streams.*\[yes\]: ", "n")
    at.expect("next: tidegate run")
    assert at.end() == 0
    loaded = config.load(tmp_path / "t.toml")
    assert (loaded.gateway.name, loaded.listener.port, loaded.upstream.port, loaded.upstream.username) == ("plant-7", 1883, 1884, "plant-7")
    secret = tmp_path / "secrets/upstream-password"
    assert loaded.upstream.password_file == str(secret) and secret.read_text() == "hush hush\n" and "hush" not in (tmp_path / "t.toml").read_text() + at.said
    assert not secret.stat().st_mode & 0o027
    assert cli.main(["check", "-c", str(tmp_path / "t.toml")]) == 0


@pytest.mark.parametrize("how", ["end of input", "interrupt"])
def test_a_dialogue_that_ends_early_writes_nothing(terminal, tmp_path, how):
    at = terminal()
    at.expect(r"gateway's name.*\]: ", "plant-7")
    at.expect(r"\[1883\]: ")
    if how == "interrupt":
        at.interrupt()
    else:
        os.write(at.master, b"\x04")
    assert at.end() == (130 if how == "interrupt" else 2)
    assert "Traceback" not in at.said and not list(tmp_path.iterdir())


def test_what_a_flag_says_is_not_asked(terminal, tmp_path):
    at = terminal(*LEAST, "--discover", "0", "--data", str(tmp_path / "data"))
    at.expect("next: tidegate run")
    assert at.end() == 0 and (tmp_path / "t.toml").exists()


def test_too_many_bad_answers_end_it(monkeypatch):
    asker = questions.Asker()
    asker.terminal = True
    monkeypatch.setattr("builtins.input", lambda prompt: "?")
    with pytest.raises(questions.ConfigError, match="often enough"):
        asker.yes("Sure")
