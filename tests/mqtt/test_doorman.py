"""Who may connect to the listener and what each may publish: by raw packets, and by mosquitto_pub and paho over TLS."""

import shutil
import ssl
import struct
import subprocess
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_client import Raw, payloads, publish

from edge.errors import ConfigError
from edge.mqtt import packets as mqtt
from gateway.client import Client
from gateway.ingest import passwords
from gateway.ingest.doorman import Doorman
from gateway.ingest.permits import Permits
from gateway.ingest.verifier import FAILURES_MAX, WAITING_MAX, Verifier

needs_mosquitto_pub = pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="mosquitto_pub is not installed")
SECRETS = {user: passwords.hashed(word.encode()) for user, word in (("ann", "apple"), ("bob", "bread"))}


def connect(client_id, user=None, word=None, version=4, will=None):
    flags = 2 | (0x80 if user is not None else 0) | (0x40 if word is not None else 0) | (4 if will else 0)
    empty = b"\0" if version == 5 else b""
    body = b"\x00\x04MQTT" + bytes([version, flags]) + struct.pack(">H", 0) + empty + mqtt._text(client_id)
    body += empty + mqtt._text(will) + mqtt._text("gone") if will else b""
    return mqtt._packet(0x10, body + b"".join(mqtt._text(text) for text in (user, word) if text is not None))


@pytest.fixture
def permits(tmp_path):
    def permits(text):
        (tmp_path / "acl").write_text(text)
        return Permits(tmp_path / "acl")

    return permits


@pytest.fixture
def guarded(world, make):
    def guarded(tls=None, **settings):
        return make(tls=tls, doorman=Doorman(world.reactor, **settings))

    return guarded


def tls_of(authority, cert, key, ca=True):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    if ca:
        context.load_verify_locations(authority.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture
def authority(tmp_path):
    pytest.importorskip("cryptography", reason="the TLS tests make a CA with `cryptography`")
    from authority import Authority

    return Authority(tmp_path)


# --- passwords

@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("user, word, reason_4, reason_5", [
    ("ann", "apple", 0, 0), ("ann", "bread", 4, 0x86), ("eve", "apple", 4, 0x86), ("ann", "", 4, 0x86), ("ann", None, 5, 0x86), (None, None, 5, 0x86)])
def test_only_the_right_password_lets_in(world, guarded, version, user, word, reason_4, reason_5):
    listener = guarded(users=SECRETS)
    client = Raw(world, connect("d", user, word, version))
    assert client.connack[3] == (reason_4 if version == 4 else reason_5)
    assert listener.connected == (reason_4 == 0) and listener.refused == (reason_4 != 0)


def test_what_a_device_sends_behind_its_connect_waits_for_the_password(world, guarded):
    guarded(users=SECRETS)
    right = Raw(world, connect("d", "ann", "apple") + publish(b"1", 1, 1) + publish(b"2", 1, 2))
    right.expect(b"\x40\x02\x00\x01\x40\x02\x00\x02")
    wrong = Raw(world, connect("e", "ann", "wrong") + publish(b"3", 1, 1))
    wrong.expect_end()
    world.for_s(0.05)
    assert payloads(world) == [b"1", b"2"]


def test_others_are_served_while_a_password_is_checked(world, guarded):
    listener = guarded(users=SECRETS)
    served = Raw(world, connect("d", "ann", "apple"))
    slow = []
    listener.doorman._verifier._verify = lambda password, secret: slow.append(1) or __import__("time").sleep(0.5) or True
    waiting = Raw(world, connect=None)
    waiting.send(connect("e", "bob", "bread"))
    world.until(lambda: slow)
    served.send(publish(b"now", 1, 9))
    served.expect(b"\x40\x02\x00\x09")
    assert waiting.read() == b"" and listener.connected == 1
    world.until(lambda: waiting.read()[:4] == b"\x20\x02\x00\x00")


def test_a_fleet_that_comes_back_pays_once(world, guarded):
    listener = guarded(users=SECRETS)
    for i in range(20):
        assert Raw(world, connect(f"d{i}", "ann", "apple")).connack[3] == 0
        assert Raw(world, connect(f"e{i}", "ann", "guess")).connack[3] == 4
    assert listener.doorman._verifier.computed == 2


def test_a_device_that_gives_up_waiting_finds_the_answer_next_time(world, guarded):
    listener = guarded(users=SECRETS)
    hasty = Raw(world, connect=None)
    hasty.send(connect("d", "ann", "apple"))
    world.turn()
    hasty.socket.close()
    world.until(lambda: listener.doorman._verifier.computed == 1)
    world.for_s(0.05)
    assert listener.connected == 0
    assert Raw(world, connect("d", "ann", "apple")).connack[3] == 0 and listener.doorman._verifier.computed == 1


def test_who_guesses_too_often_is_not_checked_any_more(world, guarded):
    listener = guarded(users=SECRETS)
    listener.doorman._verifier._verify = lambda password, secret: False
    answers = [Raw(world, connect("d", "ann", f"guess {i}")).connack[3] for i in range(FAILURES_MAX + 5)]
    assert answers == [4] * FAILURES_MAX + [3] * 5 and listener.doorman._verifier.computed == FAILURES_MAX


def test_the_line_for_the_check_is_bounded(world):
    verifier = Verifier(world.reactor, verify=lambda password, secret: True)
    verifier._asked = type("Kept", (), {"put": lambda self, question: None})()      # nobody works
    verifier._thread = True
    answers = [verifier.ask("u", b"%d" % i, "h", f"10.0.0.{i}", print) for i in range(WAITING_MAX + 3)]
    assert answers == [None] * WAITING_MAX + ["busy"] * 3


def test_a_password_that_is_changed_or_taken_away_ends_its_connections(world, guarded):
    listener = guarded(users=SECRETS)
    ann, bob = Raw(world, connect("a", "ann", "apple", 5)), Raw(world, connect("b", "bob", "bread", 5))
    listener.doorman.renew(listener.devices, users={"bob": SECRETS["bob"]})
    ann.expect_end()
    assert ann.received == b"\xe0\x01\x87" and listener.connected == 1
    assert Raw(world, connect("a", "ann", "apple", 5)).connack[3] == 0x86      # the answer of before is of no use
    bob.send(b"\xc0\x00")
    bob.expect(b"\xd0\x00")


def test_anonymous_lets_in_who_shows_no_name_but_no_wrong_password(world, guarded):
    guarded(users=SECRETS, anonymous=True)
    assert Raw(world, connect("d")).connack[3] == 0
    assert Raw(world, connect("d", "ann", "wrong")).connack[3] == 4


def test_no_other_user_takes_a_client_id_over(world, guarded):
    listener = guarded(users=SECRETS)
    ann = Raw(world, connect("d", "ann", "apple", 5))
    assert Raw(world, connect("d", "bob", "bread", 5)).connack[3] == 0x85 and listener.take_overs == 0
    assert Raw(world, connect("d", "ann", "apple", 5)).connack[3] == 0 and listener.take_overs == 1
    ann.expect_end()


# --- permits

ACL = "pattern write sensors/%c/#\npattern own/%u/+\ntopic write open/x\nuser ann\ntopic readwrite plant/+/data\ntopic read secret/#\n"


def test_the_file_says_who_may_publish_where(permits):
    ann = permits(ACL).permission("d1", "ann")
    allowed = [b"sensors/d1", b"sensors/d1/a/b", b"own/ann/x", b"plant/7/data"]
    denied = [b"sensors/d2/a", b"sensors/d11", b"own/bob/x", b"own/ann/x/y", b"plant/7/data/x", b"plant/data", b"open/x", b"secret/a", b"sensors", b"$SYS/x", b"sensors/d1/\x07"]
    assert all(ann.may(topic) for topic in allowed) and not any(ann.may(topic) for topic in denied)
    nobody = permits(ACL).permission("d1", None)
    assert nobody.may(b"open/x") and nobody.may(b"sensors/d1/x") and not nobody.may(b"own//x") and not nobody.may(b"plant/7/data")


@pytest.mark.parametrize("qos, answer", [(0, b""), (1, b"\x40\x03\x00\x05\x87"), (2, b"\x50\x03\x00\x05\x87")])
def test_mqtt_5_hears_that_a_topic_is_not_its_own(world, guarded, permits, qos, answer):
    listener = guarded(permits=permits(ACL))
    client = Raw(world, connect("d1", version=5))
    client.send(publish(b"mine", 1, 4, "sensors/d1/t", v5=True) + publish(b"no", qos, 5, "sensors/d2/t", v5=True) + publish(b"too", 1, 6, "sensors/d1", v5=True))
    client.expect(b"\x40\x02\x00\x04" + answer + b"\x40\x02\x00\x06")
    assert payloads(world) == [b"mine", b"too"] and listener.denied == 1 and "'sensors/d2/t'" in world.named("denied")[0]
    client.send(publish(b"no", 1, 7, "sensors/d2/t", v5=True))                 # no event waits for the disk: it hears at once
    world.committing = False
    client.expect(b"\x40\x03\x00\x07\x87")
    assert len(world.named("denied")) == 1 and listener.denied == 2             # said once a minute


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_mqtt_3_is_never_told_that_a_message_was_taken_which_was_not(world, guarded, permits, qos):
    listener = guarded(permits=permits(ACL))
    client = Raw(world, connect("d1"))
    client.send(publish(b"no", qos, 5, "sensors/d2/t"))
    if qos:
        client.expect_end()
        assert client.received == b""
    else:
        client.send(publish(b"yes", 1, 6, "sensors/d1/t"))
        client.expect(b"\x40\x02\x00\x06")
    assert listener.denied == 1 and b"no" not in payloads(world)


@pytest.mark.parametrize("topic", ["$SYS/x", "$tidegate/status", "a/\x01b", "a\x7f", "a/\u0085b"])
@pytest.mark.parametrize("ruled", [False, True])
def test_no_device_has_a_right_to_these_topics(world, make, guarded, permits, topic, ruled):
    listener = guarded(permits=permits("pattern #\n")) if ruled else make()
    client = Raw(world, connect("d", version=5))
    client.send(publish(b"no", 1, 5, topic, v5=True))
    client.expect(b"\x40\x03\x00\x05\x87")
    assert listener.denied == 1 and not world.events
    ill = Raw(world, connect("e", version=5, will="$SYS/x"))
    ill.socket.close()
    world.until(lambda: listener.connected == 1)
    world.for_s(0.05)
    assert not world.events and listener.wills == 0


def test_a_will_needs_the_permission_of_a_message(world, guarded, permits):
    listener = guarded(permits=permits(ACL))
    assert Raw(world, connect("d1", version=5, will="sensors/d2/gone")).connack[3] == 0x87
    good = Raw(world, connect("d1", version=5, will="sensors/d1/gone"))
    listener.doorman.renew(listener.devices, permits=permits("pattern other/%c\n"))
    good.socket.close()                              # the permission of now counts
    world.until(lambda: listener.connected == 0)
    world.for_s(0.05)
    assert not world.events and listener.denied == 1


def test_new_permits_hold_for_open_connections(world, guarded, permits):
    listener = guarded(permits=permits(ACL))
    client = Raw(world, connect("d1", version=5))
    client.send(publish(b"1", 1, 1, "sensors/d1/t", v5=True))
    client.expect(b"\x40\x02\x00\x01")
    listener.doorman.renew(listener.devices, permits=permits("pattern other/%c/#\n"))
    client.send(publish(b"2", 1, 2, "sensors/d1/t", v5=True) + publish(b"3", 1, 3, "other/d1/t", v5=True))
    client.expect(b"\x40\x03\x00\x02\x87\x40\x02\x00\x03")


@pytest.mark.parametrize("client_id, user", [("+", None), ("a/b", None), ("#", None), ("%u", None), ("d", "a/b"), ("d", "+")])
def test_a_name_cannot_widen_a_pattern(world, guarded, permits, client_id, user):
    guarded(permits=permits(ACL))
    assert Raw(world, connect(client_id, user, "x" if user else None, 5)).connack[3] == 0x85


def test_refused_messages_count_for_the_rate(world, make, permits):
    listener = make(rate_per_client=10, doorman=Doorman(world.reactor, permits=permits(ACL)))
    client = Raw(world, connect("d1", version=5))
    client.send(publish(b"no", 0, 0, "x", v5=True) * 100)
    world.until(lambda: listener.denied == 100)
    client.send(publish(b"yes", 1, 6, "sensors/d1", v5=True))
    world.for_s(0.3)
    assert client.read() == b"" and not world.events


# --- certificates

@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("client_id, names, taken", [("dev-1", ["dev-1"], True), ("dev-2", ["dev-1"], False), ("", ["dev-1"], True), ("a", ["a", "b"], False), ("", [], False)])
def test_the_client_id_is_the_name_in_the_certificate(world, guarded, authority, version, client_id, names, taken):
    listener = guarded(tls=tls_of(authority, *authority.issue("gateway")), certificates=True)
    device = authority.issue("device", names=names)
    context = ssl.create_default_context(cafile=authority.ca)
    context.load_cert_chain(*device)
    got = []
    client = Client(world.reactor, host="localhost", port=listener.port, client_id=client_id, version=version, tls=context, clean_session=True,
                    on_published=lambda mid, failure: got.append(failure))
    client.start()
    world.until(lambda: client.connected or client.failures or client.last_error)
    assert client.connected is taken and listener.connected == int(taken)
    if taken:
        assert [device.client_id for device in listener.devices] == [client_id or names[0]]
    client.stop()


def test_a_certificate_of_another_authority_or_none_is_refused(world, guarded, authority, tmp_path):
    from authority import Authority

    listener = guarded(tls=tls_of(authority, *authority.issue("gateway")), certificates=True)
    for cert in (Authority(tmp_path, "other CA").issue("dev-1"), None):
        context = ssl.create_default_context(cafile=authority.ca)
        if cert:
            context.load_cert_chain(*cert)
        client = Client(world.reactor, host="localhost", port=listener.port, client_id="dev-1", version=5, tls=context)
        client.start()
        world.until(lambda: client.last_error)
        client.stop()
    world.until(lambda: listener.refused == 2)
    assert listener.connections == 0


@needs_mosquitto_pub
@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
def test_mosquitto_pub_with_certificate_password_and_permits(world, guarded, authority, permits, version):
    listener = guarded(tls=tls_of(authority, *authority.issue("gateway")), certificates=True, users=SECRETS, permits=permits(ACL))
    cert, key = authority.issue("dev-1")

    def run(user, word, topic):
        process = subprocess.Popen(["mosquitto_pub", "-h", "localhost", "-p", str(listener.port), "--cafile", authority.ca, "--cert", cert, "--key", key, "-i", "dev-1",
                                    "-u", user, "-P", word, "-V", version, "-q", "1", "-t", topic, "-m", "hello"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(1 if topic == "other" and version == "mqttv311" else 1000):
            world.for_s(0.02)
            if process.poll() is not None:
                break
        process.kill()
        return process.wait()

    assert run("ann", "apple", "sensors/dev-1/t") == 0 and payloads(world) == [b"hello"]
    assert run("ann", "wrong", "sensors/dev-1/t") != 0
    run("ann", "apple", "other")
    assert payloads(world) == [b"hello"] and listener.denied >= (version == "mqttv5")


# --- the files

@pytest.mark.parametrize("text, says", [
    ("ann\n", "line 1"), ("ann:secret\n", "line 1"), (f"ann:{SECRETS['ann']}\nann:{SECRETS['ann']}\n", "twice"), ("a/b:" + SECRETS["ann"], "line 1"),
    ("ann:$scrypt$ln=20,r=8,p=1$" + "A" * 22 + "$" + "A" * 43, "line 1")], ids=["no hash", "plain", "twice", "slash", "other cost"])
def test_a_bad_password_file_is_told_by_its_line_and_without_its_secrets(tmp_path, text, says):
    (tmp_path / "passwd").write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        passwords.read(tmp_path / "passwd")
    assert "secret" not in str(caught.value) and "$" not in str(caught.value)


@pytest.mark.parametrize("text, says", [("topic", "line 1"), ("topic deny a", "deny"), ("\npattern a/#/b", "line 2"), ("topics a", "line 1"), ("topic write x\n" * 1025, "1025 filters")])
def test_a_bad_acl_file_is_told_by_its_line(permits, text, says):
    with pytest.raises(ConfigError, match=says):
        permits(text)


@given(st.binary(max_size=200) | st.lists(st.sampled_from(["user a", "topic write a/+", "pattern %c/%u", "pattern read #", "topic", "deny", "#", "ann:" + SECRETS["ann"], "\x00"]), max_size=8)
       .map(lambda lines: "\n".join(lines).encode()))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_a_file_or_are_refused_in_words(data):
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            assert all(passwords.USER.fullmatch(user) for user in passwords.read(file.name))
        except ConfigError as error:
            assert file.name in str(error)
        try:
            assert not Permits(file.name).permission("d", "a").may(b"$a")
        except ConfigError as error:
            assert file.name in str(error)


def test_passwd_writes_changes_and_removes_users(tmp_path, monkeypatch, capsys):
    import io

    from gateway.cli import main

    file = tmp_path / "passwd"
    for user, word in (("ann", "one"), ("bob", "two"), ("ann", "three")):
        monkeypatch.setattr("sys.stdin", io.StringIO(word + "\n"))
        assert main(["passwd", str(file), user]) == 0
    users = passwords.read(file)
    assert sorted(users) == ["ann", "bob"] and passwords.verify(b"three", users["ann"]) and not passwords.verify(b"one", users["ann"])
    assert main(["passwd", str(file), "ann", "--remove"]) == 0 and sorted(passwords.read(file)) == ["bob"]
    assert main(["passwd", str(file), "ann", "--remove"]) == 2 and main(["passwd", str(file), "a/b"]) == 2
    assert file.stat().st_mode & 0o007 == 0
