"""A slice of the journal is all that a replay on another machine needs, and holds nothing that was masked."""

import json
import os
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_world import START, S, modules
from test_rule_replay import at_work, replay, rows, site, tidegate

from edge.errors import TidegateError
from edge.rehearsal.recording import open_recording
from edge.rehearsal.replay import Player
from edge.times import timestamp

__all__ = ["modules", "site", "tidegate"]


def export(folder, path, *arguments):
    return ["buffer", "export", "-c", folder / "tidegate.toml", "--slice", path, *arguments]


def test_a_replay_of_a_slice_is_one_of_the_data_directory(site, tidegate, tmp_path):
    _, folder = site
    whole = tidegate(*replay(folder))[1]
    for name in ("slice", "slice.tar", "slice.tar.gz"):
        status, out, err = tidegate(*export(folder, tmp_path / name))
        assert status == 0 and "from the gateway's first event on" in out, err
        assert tidegate("rule", "replay", "--journal", tmp_path / name) [:2] == (0, whole)
    assert tidegate("buffer", "verify", "journal", "--data", tmp_path / "slice")[0] == 0
    assert len(os.listdir(tmp_path)) == 3


def test_a_slice_of_an_encrypted_directory_is_plain_and_replays_the_same(site, modules, tidegate, tmp_path):
    folder = tmp_path / "sealed"
    folder.mkdir()
    (folder / "key").write_text("5a" * 32)
    at_work(folder, modules, f'\nencryption_key_file = "{folder}/key"').close()
    status, _, err = tidegate(*export(folder, tmp_path / "slice"))
    assert status == 0, err
    assert tidegate("rule", "replay", "--journal", tmp_path / "slice")[:2] == (0, tidegate(*replay(site[1]))[1])
    status, _, err = tidegate(*replay(folder))
    assert status == 2 and "is encrypted" in err and "tidegate buffer export --slice" in err


def test_a_part_says_that_rules_begin_without_state(site, tidegate, tmp_path):
    _, folder = site
    start, stop = timestamp(START + 30 * S), timestamp(START + 120 * S)
    _, out, _ = tidegate(*export(folder, tmp_path / "part", "--from", start, "--to", stop))
    status, out, err = tidegate("rule", "replay", "--journal", tmp_path / "part")
    assert status == 0 and "begin without state" in err and "missing" not in err
    assert {start <= json.loads(line)["received"] < stop for line in out.splitlines()} == {True}
    events = tidegate("buffer", "export", "journal", "--data", tmp_path / "part")[1].splitlines()
    assert events == tidegate("buffer", "export", "journal", "--data", folder / "data", "--from", start, "--to", stop)[1].splitlines() != []


def test_masks_leave_no_value_and_equal_stays_equal(site, tidegate, tmp_path):
    _, folder = site
    (tmp_path / "key").write_text("secret")
    masks = ["--mask", "device=hash", "env.temp=truncate:0", "--mask-key", tmp_path / "key"]
    assert tidegate(*export(folder, tmp_path / "a", *masks))[0] == tidegate(*export(folder, tmp_path / "b", *masks))[0] == 0
    assert tidegate(*export(folder, tmp_path / "c", "--mask", "device=hash", "temp=drop"))[0] == 0
    plain, a, b, c = ([json.loads(line) for line in tidegate("buffer", "export", "journal", "--data", data)[1].splitlines()]
                      for data in (folder / "data", *(tmp_path / name for name in "abc")))
    assert a == b and len({row["device"] for row in a}) == len({row["device"] for row in plain}) == 3
    assert {row["device"] for row in a}.isdisjoint({row["device"] for row in c}) and all(len(row["device"]) == 16 for row in a)
    assert [row["temp"] for row in a] == [float(int(row["temp"])) for row in plain] and {row["temp"] for row in c} == {None}
    assert [{k: v for k, v in row.items() if k not in ("device", "temp")} for row in a] == [{k: v for k, v in row.items() if k not in ("device", "temp")} for row in plain]
    status, out, err = tidegate("rule", "replay", "--journal", tmp_path / "c", "--rule", "gone")
    assert status == 0 and "device is masked: hash, by a random key that is not kept" in err and len(out.splitlines()) > 3


@pytest.mark.parametrize("arguments, says", [
    (["--mask", "device"], "write FIELD=drop"),
    (["--mask", "seq=hash"], "the field is i64"),
    (["outbox/alerts"], "takes the whole journal"),
])
def test_a_slice_that_cannot_be_made_leaves_nothing(site, tidegate, tmp_path, arguments, says):
    command = export(site[1], tmp_path / "slice", *arguments)
    status, _, err = tidegate(*(command if "--mask" in arguments else [*command[:2], *arguments, *command[2:-1]]))
    assert status == 2 and says in err and os.listdir(tmp_path) == []


def test_a_mask_for_no_field_is_told_and_a_path_that_is_there_is_kept(site, tidegate, tmp_path):
    assert "no event in the slice has such a field" in tidegate(*export(site[1], tmp_path / "slice", "--mask", "temperature=drop"))[2]
    assert "is there already" in tidegate(*export(site[1], tmp_path / "slice"))[2]


@pytest.fixture(scope="module")
def archive(site, tmp_path_factory):
    from gateway.cli import main

    path = tmp_path_factory.mktemp("archive") / "slice.tar"
    assert main([*map(str, export(site[1], path, "--to", "20"))]) == 0
    return path.read_bytes()


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, 1 << 20), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_archive_is_a_recording_or_one_line(archive, tmp_path_factory, at, byte, cut):
    data = bytearray(archive)
    data[at % len(data)] = byte
    path = tmp_path_factory.getbasetemp() / "damaged.tar"
    path.write_bytes(data[:at % len(data)] if cut else data)
    try:
        recording = open_recording(path)
        player = Player(recording, [], None, None)
        for record in recording.reader.all():
            player.play(record)
    except TidegateError as error:
        assert "\n" not in str(error)


def test_an_archive_of_something_else_is_refused(tmp_path):
    (tmp_path / "x").write_text("x")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tmp_path / "x", "x")
    with pytest.raises(TidegateError, match="there is no recording.json in it"):
        open_recording(tmp_path / "x.tar")
