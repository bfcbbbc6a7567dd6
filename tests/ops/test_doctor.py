"""`tidegate doctor` finds what is wrong in the worlds that it is shown, says what to do, and is silent where all is well."""

import json
import os
from types import SimpleNamespace

import pytest

from gateway import cli
from gateway.doctor import board, broker, certificates, gateway, storage, timekeeping
from gateway.doctor.finding import ERROR, GOOD, NOTE, UNKNOWN, WARNING, WRONG
from written_world import World


def severities(findings):
    return [finding.severity for finding in findings]


def only(findings):
    (finding,) = findings
    assert finding.severity not in WRONG or finding.do, "what is wrong comes with what to do"
    return finding


@pytest.fixture
def root(tmp_path):
    """A fake / : root(path, content) writes a file of sysfs or procfs."""
    def write(path, content):
        place = tmp_path / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content + "\n")
        return str(tmp_path)

    return write


# --- storage


def test_space_is_measured_against_the_quotas():
    gb = 10**9
    assert only(storage.space(10 * gb, gb, 2 * gb)).severity == GOOD
    short = only(storage.space(gb, gb, 3 * gb))
    assert short.severity == WARNING and "1,067 MB too few" in short.what
    assert only(storage.space(10 << 20, gb, None)).severity == ERROR
    assert only(storage.space(gb, 0, None)).severity == GOOD


@pytest.mark.parametrize("kind,options,severity", [("ext4", "rw,noatime", GOOD), ("ext4", "ro,noatime", ERROR), ("tmpfs", "rw", WARNING), ("overlay", "rw", WARNING)])
def test_a_read_only_or_passing_file_system_is_found(root, kind, options, severity):
    at = root("proc/self/mounts", f"proc /proc proc rw 0 0\n/dev/mmcblk0p2 / ext4 rw 0 0\n/dev/mmcblk0p3 /var/lib/tide\\040gate {kind} {options} 0 0\n/dev/x /var/lib/tide ext4 ro 0 0")
    mount = storage.mount_of("/var/lib/tide gate/data", at)
    assert mount[1] == "/var/lib/tide gate" and severity in severities(storage.mounted(mount, at))
    assert storage.mount_of("/home", at)[1] == "/"


def test_errors_that_the_file_system_noted_are_told(root):
    at = root("sys/fs/ext4/mmcblk0p2/errors_count", "3")
    assert severities(storage.mounted(("/dev/mmcblk0p2", "/", "ext4", ["rw"]), at)) == [GOOD, ERROR]
    assert severities(storage.mounted(None, at)) == [UNKNOWN]


def test_the_write_latency_is_measured(tmp_path):
    ticks = iter(range(1000))
    slow = only(storage.syncs(str(tmp_path), fdatasync=lambda fd: None, clock=lambda: next(ticks) * 0.2))
    assert slow.severity == WARNING and "median 200.0 ms" in slow.what
    calls = []
    assert "median" in only(storage.syncs(str(tmp_path), fdatasync=calls.append)).what and len(calls) == storage.SYNCS
    assert os.listdir(tmp_path) == []

    def failing(fd):
        raise OSError(5, "Input/output error")

    assert only(storage.syncs(str(tmp_path), fdatasync=failing)).severity == ERROR and os.listdir(tmp_path) == []
    assert only(storage.syncs(str(tmp_path / "gone"))).severity == ERROR


@pytest.mark.parametrize("life,spare,severity,said", [
    ("0x01 0x02", "0x01", GOOD, "10 to 20 %"), ("0x09 0x01", "0x01", WARNING, "80 to 90 %"), ("0x0b 0x01", "0x01", ERROR, "used up"), ("0x01 0x01", "0x02", WARNING, "spare blocks"),
    ("0x01 0x01", "0x03", ERROR, "90 % of the spare"), (None, None, NOTE, "does not say")])
def test_a_card_that_says_how_worn_it_is_is_believed(root, life, spare, severity, said):
    at = root("sys/block/mmcblk0/device/name", "SD64G")
    if life:
        root("sys/block/mmcblk0/device/life_time", life)
        root("sys/block/mmcblk0/device/pre_eol_info", spare)
    found = only(storage.cards(at))
    assert found.severity == severity and said in found.what and "SD64G" in found.what
    assert list(storage.cards("/nowhere")) == []


# --- board


@pytest.mark.parametrize("bits,found", [("0x0", [GOOD]), ("0x50005", [ERROR, WARNING]), ("0x50000", [WARNING, WARNING]), ("0x2", [WARNING]), ("rubbish", [UNKNOWN])])
def test_under_voltage_and_throttling_are_told(root, bits, found):
    assert severities(board.throttled(root("sys/devices/platform/soc/soc:firmware/get_throttled", bits), lambda: None)) == found
    assert severities(board.throttled("/nowhere", lambda: f"throttled={bits}")) == found
    assert severities(board.throttled("/nowhere", lambda: None)) == [UNKNOWN]


def test_a_voltage_alarm_and_heat_are_told(root):
    at = root("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "0")
    root("sys/class/hwmon/hwmon1/name", "rpi_volt")
    assert list(board.voltage_alarms(at)) == []
    root("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1")
    assert "rpi_volt" in only(board.voltage_alarms(at)).what
    assert list(board.heat(at)) == []
    root("sys/class/thermal/thermal_zone0/temp", "45000")
    assert only(board.heat(at)).severity == GOOD
    root("sys/class/thermal/thermal_zone1/temp", "84000")
    assert only(board.heat(at)).severity == WARNING


def test_the_memory_limit_of_any_group_above_counts(root):
    at = root("proc/7/cgroup", "0::/system.slice/tidegate.service")
    assert only(board.memory(7, at)).what == "none" and only(board.memory(None, at)).severity == UNKNOWN
    root("sys/fs/cgroup/system.slice/memory.max", str(100 << 20))
    root("sys/fs/cgroup/system.slice/memory.current", str(50 << 20))
    assert only(board.memory(7, at)).severity == GOOD
    root("sys/fs/cgroup/system.slice/memory.current", str(95 << 20))
    assert only(board.memory(7, at)).severity == WARNING
    root("sys/fs/cgroup/system.slice/memory.events", "low 0\noom 2\noom_kill 2")
    assert only(board.memory(7, at)).severity == ERROR


def test_large_pages_are_noted():
    assert severities([*board.pages(4096), *board.pages(16384)]) == [GOOD, NOTE]


# --- clock


@pytest.mark.parametrize("kernel,now_s,severity", [((0, 0, 5000), 1.8e9, GOOD), ((5, 0x40, 16_000_000), 1.8e9, WARNING), ((0, 0, 3_000_000), 1.8e9, WARNING), ((0, 0, 0), 60, ERROR), (None, 1.8e9, UNKNOWN)])
def test_a_clock_that_nobody_keeps_is_found(kernel, now_s, severity):
    assert only(timekeeping.synchronised(kernel, int(now_s * 1e9))).severity == severity


def test_the_kernel_answers():
    assert timekeeping.kernel() is None or len(timekeeping.kernel()) == 3


def test_steps_that_the_gateway_saw_are_told(root):
    assert list(timekeeping.gateways_clock({"clock": "trusted", "clock_steps": 1, "clock_step_s": 3.0})) == []
    assert severities(timekeeping.gateways_clock({"clock": "not synchronised", "clock_steps": 4, "clock_step_s": -3.0})) == [WARNING, WARNING]
    assert severities(timekeeping.battery(root("x", ""))) == [NOTE] and list(timekeeping.battery(root("sys/class/rtc/rtc0/name", "ds1307"))) == []


# --- broker


def test_dropped_messages_are_told():
    spec = SimpleNamespace(host="b", port=1883)
    sys = {"$SYS/broker/publish/messages/dropped": "12", "$SYS/broker/clients/connected": "3", "$SYS/broker/version": "mosquitto version 2"}
    assert "dropped 12 messages" in only(broker.system(spec, sys, "")).what
    assert only(broker.system(spec, sys | {"$SYS/broker/publish/messages/dropped": "0"}, "")).severity == GOOD
    assert only(broker.system(spec, {}, "")).severity == UNKNOWN
    assert only(broker.system(spec, {}, "refused")).severity == ERROR


GOOD_CONF = "max_queued_messages 100000\npersistence true\nautosave_interval 30\nmax_inflight_messages 4096"


@pytest.mark.parametrize("conf,found", [(GOOD_CONF, [GOOD]), ("# nothing", [WARNING, WARNING, NOTE]), (GOOD_CONF.replace("30", "1800"), [WARNING]), (GOOD_CONF.replace("4096", "0"), [NOTE]), (GOOD_CONF.replace("4096", "9000"), [NOTE]), ("include_dir /etc/more", [GOOD])])
def test_undersized_settings_are_named(conf, found):
    files = {"/etc/mosquitto/mosquitto.conf": conf, "/etc/more": GOOD_CONF}
    assert severities(broker.settings("localhost", files.get)) == found
    assert list(broker.settings("elsewhere", files.get)) == [] and severities(broker.settings("localhost", {}.get)) == [UNKNOWN]


# --- certificates


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """certificate(days): a PEM file that expires then, from a day ago on."""
    cryptography = pytest.importorskip("cryptography")
    from datetime import datetime, timedelta, timezone

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    assert cryptography
    now, key = datetime.now(timezone.utc), Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway")])

    def make(days, begin=-400):
        made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1).not_valid_before(
            now + timedelta(begin)).not_valid_after(now + timedelta(days)).sign(key, None)
        path = tmp_path_factory.mktemp("cert") / "cert.pem"
        from cryptography.hazmat.primitives.serialization import Encoding

        path.write_bytes(made.public_bytes(Encoding.PEM))
        return str(path)

    return make


@pytest.mark.parametrize("days,begin,severity", [(90, -1, GOOD), (20, -1, WARNING), (-1, -9, ERROR), (90, 2, ERROR)])
def test_certificates_that_end_are_told_in_time(certificate, days, begin, severity, monkeypatch):
    path = certificate(days, begin)
    found = only(certificates.expiry([("broker.tls.cert", path)]))
    assert found.severity == severity and "broker.tls.cert" in found.what
    monkeypatch.setitem(__import__("sys").modules, "cryptography", None)           # not installed: the first one of the file is looked at
    assert only(certificates.expiry([("broker.tls.cert", path)])).severity == severity


def test_a_certificate_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / "c.pem").write_text("no PEM")
    assert severities(certificates.expiry([("a", str(tmp_path / "c.pem")), ("b", "/nowhere")])) == [ERROR, ERROR]


# --- the gateway


STATUS = {"gateway": "g", "blocked": "", "blocks": 0, "last_block": "", "uptime_s": 5.0, "memory_mb": 30, "rules": {"hot": {"state": "active"}},
          "journal": {"bytes": 10, "damaged": 0}, "dead_letters": {"bytes": 1, "damaged": 0},
          "lanes": {"main": {"outbox": {"bytes": 10, "damaged": 0}, "refusal": "", "oldest_s": None}}, "upstream": {"connection": "connected", "where": "u", "error": ""}}


def test_a_gateway_that_is_well_gives_no_warning():
    quotas = {"journal": 100, "dead": 100, "outbox/main": 100}
    found = [*gateway.answers(STATUS, ""), *gateway.rules(STATUS), *gateway.logs(STATUS, quotas), *gateway.links(STATUS), *gateway.books({"problems": []}), *gateway.versions([])]
    assert set(severities(found)) == {GOOD}


def test_what_is_wrong_with_a_gateway_is_told():
    assert only(gateway.answers(None, "no")).severity == WARNING and only(gateway.answers(STATUS | {"blocked": "disk full"}, "")).severity == ERROR
    assert severities(gateway.answers(STATUS | {"blocks": 2, "last_block": "disk full"}, "")) == [WARNING, GOOD]
    assert only(gateway.books({"problems": ["stream env: 3 in, 2 accounted for"]})).severity == ERROR
    rules = {"a": {"state": "quarantined"}, "b": {"state": "refused: no"}, "c": {"state": "waits for CPU", "lag_ns": 10**9}, "d": {"state": "disabled"}}
    assert severities(gateway.rules(STATUS | {"rules": rules})) == [ERROR, ERROR, WARNING, NOTE]
    lanes = {"main": {"outbox": {"bytes": 90, "damaged": 1}, "refusal": "not authorized", "oldest_s": None}}
    assert severities(gateway.logs(STATUS | {"lanes": lanes}, {"outbox/main": 100})) == [WARNING, WARNING]
    assert severities(gateway.links(STATUS | {"lanes": lanes, "upstream": {"connection": "waiting", "where": "u", "error": "refused"}})) == [WARNING, WARNING]
    assert only(gateway.versions([("wasmtime", "0.0.1")])).severity == ERROR


# --- the command


def test_the_command_on_a_directory(tmp_path, capsys):
    world = World(tmp_path / "data")
    world.fill(20)
    world.turn((b"nowhere", b"x"))
    world.close()
    cli.main(["doctor", "--data", str(tmp_path / "data"), "--json"])
    found = json.loads(capsys.readouterr().out)
    kinds = {(f["check"], f["severity"]) for f in found["findings"]}
    assert {("logs", "good"), ("dead letters", "note"), ("versions", "good")} <= kinds and not any(check == "gateway" for check, _ in kinds)
    assert found["ok"] == (not any(f["severity"] in WRONG for f in found["findings"]))
    path = next((tmp_path / "data" / "journal").glob("*.seg"))
    path.write_bytes(b"\xff" * 2000)
    path.with_suffix(".idx").unlink()
    assert cli.main(["doctor", "--data", str(tmp_path / "data")]) == 1
    said = capsys.readouterr().out
    assert "journal is damaged" in said and "buffer repair journal" in said
    assert cli.main(["doctor", "--data", str(tmp_path / "gone")]) == 1 and "is not there" in capsys.readouterr().out


def test_a_check_that_fails_stops_no_other(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(board, "throttled", lambda: (_ for _ in ()).throw(OSError("odd sysfs")))
    (tmp_path / "data").mkdir()
    cli.main(["doctor", "--data", str(tmp_path / "data"), "-v"])
    said = capsys.readouterr().out
    assert "odd sysfs" in said and "versions" in said
