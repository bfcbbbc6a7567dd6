import pytest

from edge.host.compile import Cache


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return Cache(tmp_path_factory.mktemp("samples") / "compiled")
