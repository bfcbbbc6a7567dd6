"""Clients of other languages against the listener: `make interop`. Each is fetched from its registry into a folder that is thrown away (mqtt.js by npm, Go and Java by
their own tools), so this is no part of `make test`.

    python interop_run.py [--paho FOLDER]      FOLDER: a checkout of eclipse/paho.mqtt.testing, whose suite is run, too

A client comes in a session and with a will; publishes 300 messages, the i-th at QoS i % 3 on d/(i % 3), and one of 200,000 bytes at QoS 2; subscribes to the status, which it
hears, and to a/#, which is refused; is silent for 2.5 s, longer than 1.5 times its keep-alive, so it has to ping; goes with a goodbye, comes back to its session, and
goes without. It prints what it saw as JSON. Here is judged that, and what came: each message once, in order at its QoS, and one will.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

import paho_suite
from gate import Gate

JS, GO, JAVA = "mqtt", "github.com/eclipse/paho.mqtt.golang", "org.eclipse.paho:org.eclipse.paho.client.mqttv3:1.2.5"
DEADLINE_S = 300


class Missing(Exception):
    """A tool or a registry is not there."""


def call(*command, cwd, deadline_s=DEADLINE_S):
    """Its output. Missing, when it fails."""
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=deadline_s, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise Missing(f"{' '.join(map(str, command[:3]))}: {str(getattr(error, 'stderr', None) or error).strip()[-200:]}") from None
    return done.stdout.strip()


def javascript(folder):
    """(name and version, [(client id, version, command)])."""
    call("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder, JS, cwd=folder)
    shutil.copy(HERE / "interop/client.mjs", folder)
    version = json.loads((folder / "node_modules/mqtt/package.json").read_text())["version"]
    return f"mqtt.js {version}, Node.js {call('node', '--version', cwd=folder)}", [(f"js-{v}", v, ["node", "client.mjs"]) for v in (4, 5)]


def go(folder):
    shutil.copy(HERE / "interop/client.go", folder)
    call("go", "mod", "init", "interop", cwd=folder)
    call("go", "get", f"{GO}@latest", cwd=folder)
    call("go", "mod", "tidy", cwd=folder)
    call("go", "build", "-o", "client", ".", cwd=folder)
    version = call("go", "list", "-m", GO, cwd=folder).split()[1]
    return f"paho.mqtt.golang {version}, {call('go', 'version', cwd=folder).split()[2]}", [("go-4", 4, ["./client"])]


def java(folder):
    shutil.copy(HERE / "interop/Client.java", folder)
    call("mvn", "-q", "-B", "dependency:copy", f"-Dartifact={JAVA}", f"-DoutputDirectory={folder}", cwd=folder)
    jar = next(folder.glob("*.jar"))
    call("javac", "-cp", jar, "Client.java", cwd=folder)
    version = subprocess.run(["java", "-version"], capture_output=True, text=True).stderr.split('"')[1]
    return f"Eclipse Paho Java (mqttv3) {JAVA.rpartition(':')[2]}, Java {version}", [("java-4", 4, ["java", "-cp", f"{jar}:.", "Client"])]


def judge(client_id, version, command, folder):
    """What is wrong with one client's visit: [words]."""
    gate = Gate(status=lambda: b"well")
    try:
        said = json.loads(call(*command, str(gate.listener.port), str(version), cwd=folder))
        until = time.monotonic() + 60
        while gate.listener.connected and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(0.2)
        wrong = [] if said["present"] == [False, True] else [f"session present: {said['present']}"]
        wrong += [f"{name}: {said[name]}" for name, wanted in (("acknowledged", 300), ("heard", "well"), ("alive", True)) if said[name] != wanted]
        if said["refused"] in (0, 1, 2):
            wrong.append(f"a/# was granted: {said['refused']}")
        for qos in range(3):
            came = [payload for topic, payload, _, flags in gate.events if topic == b"d/%d" % qos and flags & 3 == qos]
            if came != [b"%d" % i for i in range(300) if i % 3 == qos]:
                wrong.append(f"QoS {qos}: {len(came)} messages came, or not in order")
        wrong += _counts(gate, client_id)
        return wrong
    except (Missing, ValueError) as error:
        return [str(error)]
    finally:
        gate.close()


def _counts(gate, client_id):
    found = [(topic, payload) for topic, payload, *_ in gate.events]
    counts = {"the large message": found.count((b"d/large", b"x" * 200_000)), "the will": found.count((f"gone/{client_id}".encode(), b"bye"))}
    return [f"{name}: {n} times" for name, n in counts.items() if n != 1] + ([f"malformed: {gate.listener.malformed}"] if gate.listener.malformed else [])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--paho", help="a checkout of eclipse/paho.mqtt.testing")
    arguments = parser.parse_args()
    failed = 0
    for clients in (javascript, go, java):
        with tempfile.TemporaryDirectory(prefix="tidegate-interop-") as name:
            folder, began = Path(name), time.monotonic()
            try:
                title, visits = clients(folder)
            except Missing as error:
                print(f"{clients.__name__}: skipped: {error}", flush=True)
                continue
            print(f"{title} (fetched and built in {time.monotonic() - began:.0f} s)", flush=True)
            for client_id, version, command in visits:
                wrong = judge(client_id, version, command, folder)
                failed += bool(wrong)
                print(f"  MQTT {'5.0' if version == 5 else '3.1.1'}: {'; '.join(wrong) or 'served'}", flush=True)
    if arguments.paho:
        print("Eclipse Paho interoperability tests", flush=True)
        failed += sum(verdict == "failed" for _, _, verdict, _ in paho_suite.run(arguments.paho))
    else:
        print("Eclipse Paho interoperability tests: skipped: PAHO=FOLDER names a checkout of eclipse/paho.mqtt.testing")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
