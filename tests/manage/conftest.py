import pytest


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """compiled(folder): the gateway in a folder finds there what others of this session have compiled."""
    cache = tmp_path_factory.mktemp("manage") / "compiled"
    cache.mkdir(mode=0o700)

    def share(folder):
        (folder / "data").mkdir()
        (folder / "data/modules").symlink_to(cache)

    return share
