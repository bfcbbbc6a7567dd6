"""Back-up and another card, with the commands that docs/operations.md gives: nothing is lost, nothing comes twice, the ledger balances."""

import re
import shlex
import subprocess
from pathlib import Path

import tidegate_rules
from count_world import HEAD, LANE, LISTENER, PLAIN, STREAM, UPSTREAM, Device

from gateway.manage import remote

PAGE = (Path(__file__).parents[2] / "docs/operations.md").read_text()
RULE = '[rules.hot]\ninput = "env"\nmodule = "threshold"\nparams = { field = "temp", op = ">", value = 25.0 }\n'
DEADLINE_S = 60


def said(section, start):
    """A command of a section of the page, without sudo."""
    text = re.search(rf"^## {section}\n(.+?)(?=^## )", PAGE, re.M | re.S)[1]
    return re.search(rf"^sudo ({re.escape(start)}.*)$", text, re.M)[1]


def do(command, folder, *places):
    """Run it with other places: (of the page, of the test)."""
    for place, there in places:
        assert place in command, command
        command = command.replace(place, str(there))
    subprocess.run(shlex.split(command), cwd=folder, check=True)


def test_the_data_goes_on_on_another_card_as_if_nothing_had_been(site, devices, tmp_path):
    """Rows wait and a rule has state when it is moved. Compiled rules are kept apart, as on a tmpfs."""
    world = site(PLAIN.replace('data = "data"', 'data = "data"\ncache = "run"') + RULE)
    world.start_receiver()
    world.start_gateway()
    device = Device(world.port)
    devices.append(device)
    device.publish(200)
    world.expect(device.settle(DEADLINE_S), timeout_s=DEADLINE_S)
    epoch = world.ask("status")["epoch"]
    assert not (tmp_path / "data/modules").exists() and list((tmp_path / "run").glob("*.cwasm"))
    world.stop("receiver")
    device.publish(200)
    device.settle(DEADLINE_S)
    assert world.stop("gateway") == 0

    (tmp_path / "card").mkdir()
    do(said("Moving to another card", "cp -a /var/lib/tidegate"), tmp_path, ("/media/card/var/lib/", tmp_path / "card"), ("/var/lib/tidegate", tmp_path / "data"))
    (tmp_path / "data").rename(tmp_path / "old")
    (tmp_path / "card/data").rename(tmp_path / "data")
    for path in (tmp_path / "run").iterdir():        # as a boot does
        path.unlink()

    world.start_receiver()
    world.start_gateway()
    device.publish(100)
    world.expect(device.settle(DEADLINE_S), timeout_s=DEADLINE_S)
    assert world.ask("status")["epoch"] == epoch
    assert world.account("rule", "hot")["in"] == world.account("stream", "env")["in"] == 500


def test_a_back_up_brings_configuration_and_pushed_rules_to_an_empty_card(site, devices, tmp_path):
    """Made while the gateway runs. A new epoch begins, so that the receiver takes nothing for a repeat."""
    for card in ("first", "second"):
        (tmp_path / card / "var/lib/tidegate").mkdir(parents=True)
    (tmp_path / "first/etc/tidegate").mkdir(parents=True)
    (tmp_path / "first/etc/tidegate/tidegate.toml").write_text("# of the site\n")
    (tmp_path / "data").symlink_to("first/var/lib/tidegate")
    world = site(HEAD + LISTENER + UPSTREAM + STREAM + LANE)
    world.start_receiver()
    world.start_gateway()
    gateway = remote.connect(str(tmp_path / "data"))
    digest = gateway.push(Path(tidegate_rules.path("threshold")).read_bytes())
    job = gateway.ask({"do": "rule.push", "digest": digest, "rule": "hot", "input": "env", "lanes": ["main"], "params": {"field": "temp", "op": ">", "value": 25.0}})
    assert world.wait_for(lambda: (now := gateway.ask({"do": "job", "id": job["job"]})) and now["state"] in ("done", "failed") and now, "the push")["state"] == "done"
    device = Device(world.port)
    devices.append(device)
    device.publish(100)
    before = device.settle(DEADLINE_S)
    world.expect(before, timeout_s=DEADLINE_S)
    epoch = world.ask("status")["epoch"]

    do(said("Back up", "tar -C / -czf"), tmp_path, ("-C /", f"-C {tmp_path}/first"))
    world.kill()                         # the card is gone
    do(said("Back up", "tar -C / -xzf"), tmp_path, ("-C /", f"-C {tmp_path}/second"))
    assert (tmp_path / "second/etc/tidegate/tidegate.toml").read_text() == "# of the site\n"
    (tmp_path / "data").unlink()
    (tmp_path / "data").symlink_to("second/var/lib/tidegate")
    world.start_gateway()
    device.publish(100)
    world.expect(device.settle(DEADLINE_S), timeout_s=DEADLINE_S)
    world.wait_for(lambda: len(world.numbers("hot")) == 80, "the pushed rule's rows of both cards")
    assert world.ask("status")["epoch"] != epoch and world.account("rule", "hot")["in"] == 100 and world.account("stream", "env")["in"] == 100
