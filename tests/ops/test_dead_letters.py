"""`tidegate dead-letters` shows what could not be processed, of every kind, and harms no terminal."""

import pytest

from edge.storage.records import LETTER_BYTES_MAX
from edge.times import timestamp
from written_world import START_NS, STEP_NS, World, answer, tidegate

TRAP = [(b"env/d1", b'{"temp": 20}'), (b"env/d2", b'{"temp": 95.5}')]


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path / "data")
    made.turn((b"env/d1", b'{"temp": "warm"}'))
    made.turn((b"nowhere", b"\x00\xff\x01"))
    made.turn((b"door", b"{" + b" " * LETTER_BYTES_MAX + b"}"))
    made.turn(*TRAP)
    made.turn((b"env/\x1b[2J", b"\x1b]0;owned\x07 no JSON"))
    yield made
    made.close()


def letters(capfdbinary, world, *options):
    return answer(capfdbinary, "dead-letters", "ls", *options, data=world.data)


def show(capfdbinary, world, number, *options):
    return answer(capfdbinary, "dead-letters", "show", str(number), *options, data=world.data)


def test_all_kinds_are_listed_newest_first(world, capfdbinary):
    found = letters(capfdbinary, world)
    assert [item["received"] for item in found["letters"]] == [timestamp(START_NS + n * STEP_NS) for n in (5, 4, 3, 2, 1)] and not found["more"]
    assert [item["stream"] for item in found["letters"]] == ["env", "env", "door", None, "env"]
    numbers = [item["number"] for item in found["letters"]]
    assert numbers == sorted(numbers, reverse=True)
    text = tidegate(capfdbinary, "dead-letters", "ls", data=world.data)[1]
    assert len(text.splitlines()) == 6 and "rule fragile, 2 events" in text and "no stream takes this topic" in text


def test_an_event_is_shown_with_topic_and_payload(world, capfdbinary):
    *_, large, unrouted, warm = (item["number"] for item in letters(capfdbinary, world)["letters"])
    item = show(capfdbinary, world, warm)
    assert (item["topic"], item["payload"], item["stream"]) == ("env/d1", '{"temp": "warm"}', "env") and "temp" in item["reason"]
    item = show(capfdbinary, world, unrouted)
    assert (item["topic"], item["payload_hex"], item["stream"]) == ("nowhere", "00ff01", None) and "payload" not in item
    item = show(capfdbinary, world, large)
    assert item["size"] == LETTER_BYTES_MAX + 2 and len(item["payload"]) == LETTER_BYTES_MAX
    assert f"of which the first {LETTER_BYTES_MAX:,}" in tidegate(capfdbinary, "dead-letters", "show", str(large), data=world.data)[1]


def test_a_trap_is_shown_with_module_backtrace_and_rows(world, capfdbinary):
    number = letters(capfdbinary, world, "--reason", "UNREACHABLE")["letters"][0]["number"]
    item = show(capfdbinary, world, number)
    assert (item["rule"], item["module"], item["events"]) == ("fragile", "ab" * 32, 2)
    assert item["backtrace"] == ["on_batch + 0x12", "edge_process + 0x3"]
    assert item["rows"] == [{"sequence": 0, "device": "d1", "temp": 20.0}, {"sequence": 1, "device": "d2", "temp": 95.5}]
    assert len(show(capfdbinary, world, number, "--limit", "1")["rows"]) == 1
    text = tidegate(capfdbinary, "dead-letters", "show", str(number), "--limit", "1", data=world.data)[1]
    assert "at on_batch + 0x12" in text and '"device": "d1"' in text and "and 1 more" in text and "d2" not in text


def test_what_a_device_sent_does_not_steer_the_terminal(world, capfdbinary):
    number = letters(capfdbinary, world)["letters"][0]["number"]
    for command in (("ls",), ("show", str(number))):
        text = tidegate(capfdbinary, "dead-letters", *command, data=world.data)[1]
        assert "\x1b" not in text and "\x07" not in text and "\\x1b" in text


def test_lists_are_filtered_and_bounded(world, capfdbinary):
    assert [item["stream"] for item in letters(capfdbinary, world, "--stream", "door")["letters"]] == ["door"]
    first = letters(capfdbinary, world, "--limit", "2")
    assert len(first["letters"]) == 2 and first["more"]
    assert "there are older ones" in tidegate(capfdbinary, "dead-letters", "ls", "--limit", "4", data=world.data)[1]
    assert letters(capfdbinary, world, "--reason", "no such thing") == {"data": world.data, "letters": [], "more": False}
    assert tidegate(capfdbinary, "dead-letters", "ls", "--limit", "0", data=world.data)[0] == 2


def test_the_newest_come_first_across_segments(world, capfdbinary):
    for n in range(120):
        world.turn((b"nowhere", b"%d" % n))
    assert len(world.logs["dead"]._segments) > 2
    numbers = [item["number"] for item in letters(capfdbinary, world, "--limit", "90")["letters"]]
    assert [show(capfdbinary, world, n)["payload"] for n in (numbers[0], numbers[50], numbers[-1])] == ["119", "69", "30"]


def test_a_number_that_is_no_letter_is_a_clear_error(world, capfdbinary):
    for number in ("0", "999"):
        status, _, err = tidegate(capfdbinary, "dead-letters", "show", number, data=world.data)
        assert status == 2 and f"no dead letter {number}" in err


def test_a_damaged_letter_hides_no_other(world, capfdbinary):
    world.logs["dead"].append(6, 1, 0, 1, b"\xc1 not MessagePack")
    world.logs["dead"].append(6, 1, 0, 1, b"\x90")
    world.logs["dead"].sync()
    assert len(letters(capfdbinary, world)["letters"]) == 5
    status, out, _ = tidegate(capfdbinary, "buffer", "verify", "dead", data=world.data)
    assert status == 1 and out.count("cannot be decoded") == 2
