"""verify: clean on a clean run, and each way of being unclean is told."""

import json

import pytest

from firmware_sim.cli import main
from firmware_sim.condition import parse_condition
from firmware_sim.errors import SimError
from firmware_sim.index import TruthIndex
from firmware_sim.truth import TruthError

START = 1767225600 * 10**9


def _truth(path, *, qos=1, count=20, unacked=(), malformed=(), copies=(), torn=b""):
    """Two devices, an event a second each, temp 20..29 by seq."""
    lines = [{"run": {"version": 1, "groups": {"g": {"first_seq": 0, "device": "device", "seq": "seq", "time": "ts"}}}}]
    for n in range(2 * count):
        seq = n // 2
        event = {"n": n, "sent": START, "device": f"d{n % 2}", "group": "g", "qos": qos, "seq": seq, "time": START + seq * 10**9,
                 "values": {"temp": 20.0 + seq % 10, "mode": "on"}}
        if n in malformed:
            event["malformed"] = "empty"
        lines.append(event)
    lines.append({"acked": [n for n in range(2 * count) if n not in unacked] if qos else [], "at": START})
    lines.append({"copies": list(copies), "dup": True, "at": START})
    path.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in lines) + torn)


def _rows(count=20, **extra):
    return [{"stream": "s", "device": f"d{n % 2}", "seq": n // 2, "temp": 20.0 + n // 2 % 10, "mode": "on", "ts": START + n // 2 * 10**9, **extra}
            for n in range(2 * count)]


@pytest.fixture
def verify(tmp_path, capsys):
    def run(rows, *options, **truth):
        _truth(tmp_path / "t", **truth)
        (tmp_path / "r").write_text("".join(json.dumps(row) + "\n" for row in rows))
        code = main(["verify", "--truth", str(tmp_path / "t"), "--received", str(tmp_path / "r"), "--json", *options])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else err
    return run


def _edit(**change):
    return lambda rows: [{**rows[0], **change}, *rows[1:]]


FINDINGS = {
    "missing": (lambda rows: rows[1:], {"missing": 1}),
    "doubled": (lambda rows: [*rows, rows[5], rows[5]], {"doubled": 2}),
    "wrong number": (_edit(temp=20.1), {"wrong": 1}),
    "wrong text": (_edit(mode="off"), {"wrong": 1}),
    "wrong type": (_edit(temp="20.0"), {"wrong": 1}),
    "null": (_edit(temp=None), {"wrong": 1}),
    "wrong time": (_edit(ts=START + 1), {"wrong": 1}),
    "unknown seq": (lambda rows: [*rows, {**rows[0], "seq": 20}], {"unexpected": 1}),
    "negative seq": (lambda rows: [*rows, {**rows[0], "seq": -1}], {"unexpected": 1}),
    "unknown device": (lambda rows: [*rows, {**rows[0], "device": "d9"}], {"unexpected": 1}),
    "no identity": (lambda rows: [*rows, {"stream": "s", "temp": 1}], {"unexpected": 1}),
    "all at once": (lambda rows: [rows[1], rows[1], {**rows[2], "temp": 0}, {**rows[3], "seq": 99}, *rows[4:]],
                    {"missing": 2, "doubled": 1, "wrong": 1, "unexpected": 1}),
}


@pytest.mark.parametrize("name", FINDINGS)
def test_each_finding_is_told(verify, name):
    edit, expected = FINDINGS[name]
    code, report = verify(edit(_rows()))
    assert code == 1 and not report["ok"]
    assert {k: report[k] for k in ("missing", "doubled", "wrong", "unexpected") if report[k]} == expected
    assert sum(sum(d.values()) for d in report["devices"].values()) == sum(expected.values())
    assert set(report["examples"]) == set(expected)


def test_clean_run_passes(verify):
    code, report = verify(_rows(extra="ignored"))
    assert code == 0 and report["ok"] and report["expected"] == report["rows"] == 40 and report["devices"] == {}


def test_unacknowledged_and_qos_0_may_be_missing_but_not_doubled(verify):
    rows = _rows()
    assert verify(rows[1:], unacked=[0])[0] == 0
    assert verify([], qos=0)[0] == 0
    assert verify([*rows, rows[0]], qos=0)[1]["doubled"] == 1


def test_malformed_is_expected_as_a_dead_letter(verify):
    rows = _rows()
    code, report = verify(rows[1:], malformed=[0])
    assert code == 0 and report["dead_letters"] == 1
    assert verify(rows, malformed=[0])[1]["examples"]["unexpected"][0]["why"] == "malformed"


def test_copies_are_doubled_unless_allowed(verify):
    rows = _rows()
    assert verify([*rows, rows[0]], copies=[0])[0] == 1
    assert verify([*rows, rows[0]], "--allow-copies", copies=[0])[0] == 0
    assert verify([*rows, rows[0], rows[0]], "--allow-copies", copies=[0])[0] == 1


def test_where_expects_a_part(verify):
    rows = [r for r in _rows() if r["temp"] > 25]
    assert verify(rows, "--where", "temp > 25")[0] == 0
    assert verify(rows[1:], "--where", "temp > 25")[1]["missing"] == 1
    assert verify(_rows(), "--where", "temp > 25")[1]["unexpected"] == 24


def test_fields_must_be_there(verify):
    rows = [{k: v for k, v in r.items() if k != "temp"} for r in _rows()]
    assert verify(rows)[0] == 0
    assert verify(rows, "--fields", "temp")[1]["wrong"] == 40


def test_tolerance_is_relative(verify):
    rows = [{**r, "temp": r["temp"] * (1 + 1e-7)} for r in _rows()]
    assert verify(rows)[1]["wrong"] == 40
    assert verify(rows, "--tolerance", "1e-6")[0] == 0


def test_rows_of_two_streams_need_a_choice(verify):
    rows = [*_rows(), {"stream": "other", "x": 1}]
    code, error = verify(rows)
    assert code == 2 and "--stream" in error
    assert verify(rows, "--stream", "s")[0] == 0


def _windows():
    rows = []
    for device in ("d0", "d1"):
        for start in range(0, 20, 4):
            temps = [20.0 + seq % 10 for seq in range(start, start + 4)]
            rows.append({"stream": "w", "device": device, "start": START + start * 10**9, "count": 4, "mean": sum(temps) / 4, "low": min(temps)})
    return rows


WINDOWS = {
    "missing": (lambda rows: rows[1:], {"missing": 1}),
    "doubled": (lambda rows: [*rows, rows[0]], {"doubled": 1}),
    "count": (_edit(count=3), {"wrong": 1}),
    "mean": (_edit(mean=21.500001), {"wrong": 1}),
    "minimum": (_edit(low=19.0), {"wrong": 1}),
    "unexpected": (_edit(start=START + 10**9), {"missing": 1, "unexpected": 1}),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_each_finding_of_windows_is_told(verify, name):
    edit, expected = WINDOWS[name]
    code, report = verify(edit(_windows()), "--windows", "temp", "4", "--columns", "min=low")
    assert code == 1 and {k: report[k] for k in ("missing", "doubled", "wrong", "unexpected") if report[k]} == expected


def test_windows_that_agree_pass(verify):
    assert verify(_windows(), "--windows", "temp", "4", "--columns", "min=low")[0] == 0
    ends = [{"device": w["device"], "t": w["start"] + 4 * 10**9, "n": w["count"], "mean": w["mean"]} for w in _windows()]
    assert verify(ends, "--windows", "temp", "4", "--columns", "end=t,count=n")[0] == 0


def test_windows_with_unacknowledged_events_have_a_range(verify):
    rows = _windows()
    short = [{**rows[0], "count": 3, "mean": 22.0}, *rows[1:]]
    assert verify(rows, "--windows", "temp", "4", unacked=[0])[0] == 0
    assert verify(short, "--windows", "temp", "4", unacked=[0])[0] == 0
    assert verify([{**rows[0], "count": 2}, *rows[1:]], "--windows", "temp", "4", unacked=[0])[1]["wrong"] == 1


def test_open_windows_may_be_absent(verify):
    rows = [w for w in _windows() if w["start"] < START + 16 * 10**9]
    assert verify(rows, "--windows", "temp", "4")[1]["missing"] == 2
    assert verify(rows, "--windows", "temp", "4", "--open-windows", "1")[0] == 0


def test_torn_last_lines_are_left_out(verify, tmp_path):
    assert verify(_rows(), torn=b'{"n":40,"sent":17')[0] == 0
    _truth(tmp_path / "t")
    (tmp_path / "r").write_text("".join(json.dumps(r) + "\n" for r in _rows()) + '{"device":')
    assert main(["verify", "--truth", str(tmp_path / "t"), "--received", str(tmp_path / "r")]) == 0


@pytest.mark.parametrize("content", [b"", b"{}\n", b"hello\n", b'{"n":0}\n', b'{"run":{"version":1,"groups":{}}}\n{"acked":[7],"at":1}\n',
                                     b'{"run":{"version":1,"groups":{}}}\n{"n":0,"device":"d","group":"g","seq":0,"values":{}}\n'])
def test_other_files_are_no_truth(tmp_path, content):
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(TruthError, match=str(tmp_path / "t")):
        TruthIndex(tmp_path / "t")


@pytest.mark.parametrize("text, values, holds", [
    ("temp > 30", {"temp": 31}, True), ("temp > 30", {"temp": 30}, False), ("temp>=30", {"temp": 30}, True), ("mode == on", {"mode": "on"}, True),
    ("mode != 'on'", {"mode": "on"}, False), ('mode == "on"', {"mode": "on"}, True), ("ok == true", {"ok": True}, True),
    ("temp > 30", {"temp": "hot"}, False), ("temp > 30", {}, False), ("a.b < -1.5e3", {"a.b": -1501}, True)])
def test_conditions(text, values, holds):
    assert parse_condition(text)(values) is holds


@pytest.mark.parametrize("text", ["", "temp", "temp >", "> 3", "temp = 3", "temp > 3 and x < 2 or"[:4]])
def test_conditions_that_are_none(text):
    with pytest.raises(SimError, match="FIELD OP VALUE"):
        parse_condition(text)
