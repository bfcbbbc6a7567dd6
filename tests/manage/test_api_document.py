"""The HTTP API does what its OpenAPI document says, for requests that schemathesis makes up: valid ones and wrong ones, against the whole application."""

import pytest

pytest.importorskip("litestar", reason="the extra `api` is not installed")
schemathesis = pytest.importorskip("schemathesis")

from hypothesis import HealthCheck, Phase, settings

from fake_manager import Box, job
from gateway.manage import access, api, doorkeeper


class Application:
    """The API behind its doorkeeper, once `inner` is there: the tests are made before it is."""

    inner = None

    async def __call__(self, scope, receive, send):
        await self.inner(scope, receive, send)


schema = schemathesis.openapi.from_dict(api.document())
schema.app = Application()


@pytest.fixture(scope="module")
def headers(tmp_path_factory):
    """Of one who may write, while the application serves."""
    folder = tmp_path_factory.mktemp("document")
    box = Box(folder)
    box.manager._rule_promote = lambda request: job("promote")         # not the fake's bug
    token = access.add_token(f"{folder}/access", "ann", "write")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doorkeeper, "RATE", 1e9)
        patch.setattr(doorkeeper, "BURST", 1e9)
        schema.app.inner = doorkeeper.Doorkeeper(api.application(box.directory), access.Access(f"{folder}/access"))
        yield {"Authorization": f"Bearer {token}"}
    box.close()


@schema.parametrize()
@settings(max_examples=8, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck))
def test_answers_are_as_the_document_says(case, headers):
    case.call_and_validate(headers=headers)
