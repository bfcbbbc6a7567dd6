"""Sites that end with their test; certificates made once."""

import shutil

import pytest

from count_world import MOSQUITTO, CountSite, Mosquitto, certificates


@pytest.fixture
def site(tmp_path):
    """site(config, **words) makes a CountSite; all are closed."""
    made = []

    def make(config=None, folder=tmp_path, **words):
        made.append(CountSite(folder, config, **words) if config else CountSite(folder, **words))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def mosquitto(tmp_path):
    """mosquitto(port, **options) starts a Mosquitto."""
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed: apt install mosquitto mosquitto-clients")
    made = []

    def make(port, **options):
        made.append(Mosquitto(tmp_path, port, **options))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: apt install openssl")
    return certificates(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def devices():
    """A list; the devices put into it are stopped."""
    made = []
    yield made
    for device in made:
        device.stop()
