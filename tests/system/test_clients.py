"""The listener with clients that others wrote: mosquitto_pub, paho and gmqtt, plain and by TLS with device certificates."""

import asyncio
import json
import shutil
import ssl
import subprocess

import pytest

from count_world import HEAD, LANE, LISTENER, STREAM, UPSTREAM, Device

MOSQUITTO_PUB = shutil.which("mosquitto_pub")
BY_TLS = HEAD + LISTENER + 'tls = { ca = "$PKI/ca.pem", cert = "$PKI/server.pem", key = "$PKI/server.key" }\nacl_file = "$PKI/permits"\n' + UPSTREAM + STREAM + LANE


def lines(numbers):
    return "".join(json.dumps({"seq": n, "temp": 21.5}) + "\n" for n in numbers)


def publish_by_mosquitto(port, version, qos, numbers, *options):
    message = ["-l"] if numbers else ["-m", "refused"]
    return subprocess.run([MOSQUITTO_PUB, "-h", "localhost", "-p", str(port), "-V", version, "-q", str(qos), "-t", f"sensors/v{version}-{qos}/env", "-i", f"v{version}-{qos}",
                           *message, *options], input=lines(numbers), text=True, capture_output=True, timeout=60)


@pytest.mark.skipif(MOSQUITTO_PUB is None, reason="mosquitto_pub is not installed: apt install mosquitto-clients")
def test_mosquitto_pub(site):
    world = site()
    world.start_receiver()
    world.start_gateway()
    wanted = []
    for version in ("mqttv311", "mqttv5"):
        for qos in (0, 1, 2):
            done = publish_by_mosquitto(world.port, version, qos, range(100))
            assert done.returncode == 0, done.stderr
            wanted += [(f"v{version}-{qos}", n) for n in range(100)]
    world.expect(wanted)


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_paho(site, devices, version, qos):
    world = site()
    world.start_receiver()
    world.start_gateway()
    device = Device(world.port, version=version, qos=qos)
    devices.append(device)
    device.publish(500)
    world.expect(device.settle())


@pytest.mark.parametrize("version", [4, 5])
def test_gmqtt(site, version):
    gmqtt = pytest.importorskip("gmqtt")
    world = site()
    world.start_receiver()
    world.start_gateway()

    async def publish():
        client = gmqtt.Client("gm", clean_session=True)
        await client.connect("127.0.0.1", world.port, version=version)
        for n in range(300):
            client.publish(f"sensors/gm-{n % 3}/env", json.dumps({"seq": n, "temp": 3}), qos=n % 3)
        await asyncio.sleep(1.5)
        await client.disconnect()

    asyncio.run(publish())
    world.expect([(f"gm-{n % 3}", n) for n in range(300)])


def test_device_certificates(site, devices, pki):
    (pki / "permits").write_text("pattern write sensors/%c/env\n")
    world = site(BY_TLS, PKI=pki)
    world.start_receiver()
    world.start_gateway()
    for version in (4, 5):
        context = ssl.create_default_context(cafile=f"{pki}/ca.pem")
        context.load_cert_chain(f"{pki}/dev-{version}.pem", f"{pki}/dev-{version}.key")
        devices.append(Device(world.port, f"dev-{version}", version=version, tls=context))
    for device in devices:
        device.publish(200)
    wanted = [e for device in devices for e in device.settle()]
    if MOSQUITTO_PUB:
        good = ["--cafile", f"{pki}/ca.pem", "--cert", f"{pki}/vmqttv5-1.pem", "--key", f"{pki}/vmqttv5-1.key"]
        assert publish_by_mosquitto(world.port, "mqttv5", 1, range(50), *good).returncode == 0
        wanted += [("vmqttv5-1", n) for n in range(50)]
        for name in ("other", "stranger", "client"):
            bad = ["--cafile", f"{pki}/ca.pem", "--cert", f"{pki}/{name}.pem", "--key", f"{pki}/{name}.key"]
            assert publish_by_mosquitto(world.port, "mqttv311", 1, (), *bad).returncode != 0
        assert publish_by_mosquitto(world.port, "mqttv311", 1, (), "--cafile", f"{pki}/ca.pem").returncode != 0
    world.expect(wanted)
