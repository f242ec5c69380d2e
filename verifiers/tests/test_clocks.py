"""A wall clock that is wrong by a day neither revives sessions and tokens nor rejects good ones."""

import time

import pytest

from verifiers.tests.fake_service import FakeServer
from verifiers.tests.servers import MANY, bearer, running, until


@pytest.mark.parametrize("seconds", [-86_400, 86_400])
@pytest.mark.parametrize("implementation", MANY)
def test_the_wall_clock_has_no_influence(implementation: str, seconds: int) -> None:
    with FakeServer() as server:
        service = server.add("a")
        good, ended, expired = service.token(), service.token(sid="ended"), service.token(exp=int(time.time()) - 1)
        url = server.url("").rstrip("/")
        with running(MANY[implementation], url, NAMES="a", CLOCK_AHEAD=str(seconds)) as client:
            until(lambda: client.get("/a", headers=bearer(good)).status_code == 200)
            service.end("ended")
            until(lambda: client.get("/a", headers=bearer(ended)).status_code == 401)
            until(lambda: client.get("/a", headers=bearer(expired)).json()["code"] == "token_expired")
            until(lambda: client.get("/a", headers=bearer(good)).status_code == 200)
