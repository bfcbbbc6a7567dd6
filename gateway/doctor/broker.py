"""The broker that the gateway subscribes to: what it dropped, and settings of it that are too small (docs/brokers.md)."""

import os
import re
import time

from gateway.doctor.finding import ERROR, GOOD, NOTE, UNKNOWN, WARNING, Finding

TOPICS = ("$SYS/broker/version", "$SYS/broker/publish/messages/dropped", "$SYS/broker/clients/connected", "$SYS/broker/clients/maximum",
          "$SYS/broker/store/messages/count", "$SYS/broker/messages/stored", "$SYS/broker/uptime")
WAIT_S = 3.0                         # retained values come at once; a broker without $SYS says nothing
QUEUED_LEAST = 10_000
AUTOSAVE_S = 60
IN_FLIGHT = 4096                     # half of what a stream remembers: edge/_repeats.pyx
PLACES = ("/etc/mosquitto/mosquitto.conf", "/usr/local/etc/mosquitto/mosquitto.conf", "/opt/homebrew/etc/mosquitto/mosquitto.conf")
QUEUE = "max_queued_messages 100000 in mosquitto.conf, or let the devices connect to the gateway's listener, which holds them back instead"


def asked(spec, client_id, password, tls, wait_s=WAIT_S) -> tuple[dict, str]:
    """(topic -> text of $SYS, "") with the gateway's own credentials; ({}, why) when the broker is not reached."""
    from paho.mqtt.client import CallbackAPIVersion, Client

    values, refused = {}, []
    client = Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=spec.version)
    client.on_connect = lambda client, data, flags, reason, properties: refused.append(str(reason)) if reason.is_failure else client.subscribe([(t, 0) for t in TOPICS])
    client.on_message = lambda client, data, message: values.__setitem__(message.topic, message.payload[:200].decode("utf-8", "replace"))
    if spec.username is not None:
        client.username_pw_set(spec.username, password)
    if tls is not None:
        client.tls_set_context(tls)
    try:
        client.connect_timeout = wait_s
        client.connect(spec.host, spec.port, keepalive=30)
        until = time.monotonic() + wait_s
        while time.monotonic() < until and not refused and len(values) < len(TOPICS) - 2:
            client.loop(0.1)
        client.disconnect()
    except (OSError, ValueError) as error:
        return {}, str(error)
    return values, refused[0] if refused else ""


def system(spec, values, why):
    """values, why: of asked()."""
    where = f"{spec.host}:{spec.port}"
    if why:
        yield Finding(ERROR, "broker", f"{where} is not reached: {why}", "see that it runs, and [broker]'s host, port, username, password_file and tls")
        return
    numbers = {topic.removeprefix("$SYS/broker/"): int(value) for topic, value in values.items() if value.isdecimal()}
    if "publish/messages/dropped" not in numbers:
        yield Finding(UNKNOWN, "broker", f"{where} shows no $SYS/broker/publish/messages/dropped to this user: whether it drops is not known")
        return
    said = f"{values.get('$SYS/broker/version', 'broker')} at {where}: {numbers.get('clients/connected', '?')} clients connected"
    dropped = numbers["publish/messages/dropped"]
    if dropped:
        yield Finding(WARNING, "broker", f"{said}; it has dropped {dropped:,} messages since its start, though their publishers were acknowledged", QUEUE)
    else:
        yield Finding(GOOD, "broker", f"{said}, none dropped")


def settings(host, read=None):
    """Mosquitto's own configuration, where it runs on this machine. read: path -> text or None, for tests."""
    if host not in ("localhost", "127.0.0.1", "::1"):
        return
    found = _mosquitto_conf(read or _read)
    if found is None:
        yield Finding(UNKNOWN, "broker settings", "no mosquitto.conf is found, or this user may not read it")
        return
    queued, saved = _int(found.get("max_queued_messages"), 1000), _int(found.get("autosave_interval"), 1800)
    in_flight, bad = _int(found.get("max_inflight_messages"), 20), False
    for wrong, severity, what, do in (
            (0 < queued < QUEUED_LEAST, WARNING, f"max_queued_messages is {queued:,}: what comes beyond while the gateway is away or slow is dropped, though acknowledged", QUEUE),
            (found.get("persistence", "false") != "true", WARNING, "persistence is off: a restart of the broker loses what the gateway has not taken", "persistence true"),
            (found.get("persistence") == "true" and saved > AUTOSAVE_S, WARNING, f"autosave_interval is {saved} s: a power cut loses what the broker took since its last save", "autosave_interval 30"),
            (0 < in_flight < 1000, NOTE, f"max_inflight_messages is {in_flight}: at MQTT 3.1.1 the gateway gets no more at a time", f"max_inflight_messages {IN_FLIGHT}"),
            (not 0 < in_flight <= IN_FLIGHT, NOTE, f"max_inflight_messages is {in_flight}: all that was under way comes again after a lost connection, and what is more than 8,192 events of a "
             "stream counts twice", f"max_inflight_messages {IN_FLIGHT}")):
        if wrong:
            bad = True
            yield Finding(severity, "broker settings", what, do)
    if not bad:
        yield Finding(GOOD, "broker settings", "queue, persistence and autosave are as docs/brokers.md asks")


def _mosquitto_conf(read):
    """Its settings, those of include_dir too; None when there is no file."""
    text = next((text for path in PLACES if (text := read(path)) is not None), None)
    if text is None:
        return None
    found = {}
    for folder in re.findall(r"^\s*include_dir\s+(\S+)", text, re.M):
        text += "\n" + (read(folder) or "")
    for line in text.splitlines():
        name, _, value = line.strip().partition(" ")
        if name and not name.startswith("#"):
            found[name] = value.strip()
    return found


def _read(path):
    """A file's text, or that of all .conf files of a folder."""
    try:
        if os.path.isdir(path):
            return "\n".join(filter(None, (_read(os.path.join(path, name)) for name in sorted(os.listdir(path)) if name.endswith(".conf"))))
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return None


def _int(text, default):
    return int(text) if text and text.isdecimal() else default
