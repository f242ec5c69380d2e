"""Tests of tokens and sessions when the clock of a machine is set back or ahead."""

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import PASSWORD, Document
from tests.faults.conftest import Server
from tests.faults.test_processes import serving
from tests.processes import until
from tests.serving import CHECKOUT, new_name

STEP_SECONDS = 60
TOKEN_SECONDS = 4
SHARED_KEY = secrets.token_urlsafe(48)
LOGOUT_SECONDS = 2  # the maximum time until a logout takes effect on every machine

# Python imports sitecustomize at startup; this one adds the seconds in a file to time.time().
CLOCK = """
import os, pathlib, time
real, step = time.time, pathlib.Path(os.environ["CLOCK_STEP"])
time.time = lambda: real() + float(step.read_text())
"""


@dataclass
class Machines:
    """Two machines on one database; the test can set the clock of the first."""

    stepped: Server
    steady: Server
    step: Path

    def set_clock(self, seconds: int) -> None:
        """Set the clock of the first machine so many seconds ahead, or back if negative."""
        new = self.step.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self.step)


@pytest.fixture
def machines(mongo_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machines]:
    """Run two machines whose clocks agree at the start."""
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    step = tmp_path / "step"
    step.write_text("0")
    settings = {"JWT_SECRET_KEY": SHARED_KEY, "ACCESS_TOKEN_SECONDS": str(TOKEN_SECONDS)}
    with ExitStack() as running:
        steady = running.enter_context(serving(mongo_uri, **settings))
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{CHECKOUT}")
        monkeypatch.setenv("CLOCK_STEP", str(step))
        yield Machines(running.enter_context(serving(mongo_uri, **settings)), steady, step)


def register(server: Server) -> Document:
    """Register a new user and return the tokens."""
    tokens: Document = server.post("/users/registration", username=new_name(), password=PASSWORD).json()
    return tokens


def refresh(server: Server, tokens: Document) -> Document:
    """Exchange the refresh token and return the new tokens."""
    response = server.post("/auth/refresh", refresh_token=tokens["refresh_token"])
    assert response.status_code == 200, response.text
    successors: Document = response.json()
    return successors


def result_code(server: Server, tokens: Document) -> str:
    """Return "200" or the error code of GET /tests/secret with the access token."""
    response = server.get("/tests/secret", tokens["access_token"])
    return "200" if response.status_code == 200 else response.json()["code"]


def log_out(server: Server, tokens: Document) -> None:
    """End the session through this server."""
    assert server.post("/auth/logout", tokens["access_token"]).status_code == 204


@pytest.mark.parametrize("seconds", [-STEP_SECONDS, STEP_SECONDS], ids=["back", "ahead"])
def test_ended_sessions_stay_ended_when_a_clock_is_changed(machines: Machines, seconds: int) -> None:
    """Sessions that ended before or after the change, on either machine, also long after their tokens have expired."""
    here, there = machines.stepped, machines.steady
    before = [register(here), register(there)]
    log_out(there, before[0])
    log_out(here, before[1])
    requests = [(server, one) for server in (here, there) for one in before]
    until(lambda: {result_code(*one) for one in requests} == {"session_ended"}, "the logouts", seconds=LOGOUT_SECONDS)
    machines.set_clock(seconds)
    after = [register(here), register(there)]
    log_out(here, after[0])
    log_out(there, after[1])
    ended_at = time.monotonic()
    while time.monotonic() - ended_at < LOGOUT_SECONDS + 2 * TOKEN_SECONDS:
        for server in (here, there):
            results = {result_code(server, one) for one in (*before, *after)}
            assert "200" not in results or time.monotonic() - ended_at < LOGOUT_SECONDS
        time.sleep(0.1)


def test_a_clock_set_back_extends_old_tokens_by_no_more_than_that_time(machines: Machines) -> None:
    """On this machine only; the session of such a token can still be ended."""
    here, there = machines.stepped, machines.steady
    tokens = register(here)
    until(lambda: result_code(here, tokens) == "token_expired", "the expiry of the token", seconds=TOKEN_SECONDS + 1)
    machines.set_clock(-STEP_SECONDS)
    assert result_code(here, tokens) == "200"
    assert result_code(there, tokens) == "token_expired"
    machines.set_clock(-TOKEN_SECONDS)
    until(lambda: result_code(here, tokens) == "token_expired", "the expiry of the token", seconds=TOKEN_SECONDS + 1)


def test_a_clock_set_ahead_requires_a_refresh(machines: Machines) -> None:
    """On the other machines, its new tokens are issued in the future and invalid until their clocks reach that time."""
    here, there = machines.stepped, machines.steady
    tokens = register(here)
    machines.set_clock(STEP_SECONDS)
    assert result_code(here, tokens) == "token_expired"
    successors = refresh(here, tokens)
    assert result_code(here, successors) == "200"
    assert result_code(there, successors) == "token_invalid"
    assert result_code(there, refresh(there, successors)) == "200"
