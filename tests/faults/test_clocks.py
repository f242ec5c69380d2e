"""A machine's clock is set back or ahead while it serves: what that does to tokens, and what it never does."""

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
KNOWN_SECONDS = 2  # within which every machine knows of a logout

# What a Python process runs before anything else: its clock follows a file.
CLOCK = """
import os, pathlib, time
real, step = time.time, pathlib.Path(os.environ["CLOCK_STEP"])
time.time = lambda: real() + float(step.read_text())
"""


@dataclass
class Machines:
    """Two machines on one database; the clock of the first can be set."""

    stepped: Server
    steady: Server
    step: Path

    def set_clock(self, seconds: int) -> None:
        """Have the first machine's clock differ by so much from now on."""
        new = self.step.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self.step)


@pytest.fixture
def machines(mongo_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machines]:
    """Give two machines whose clocks agree as yet."""
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
    """Return the tokens of somebody new."""
    tokens: Document = server.post("/users/registration", username=new_name(), password=PASSWORD).json()
    return tokens


def refresh(server: Server, tokens: Document) -> Document:
    """Return the successors."""
    response = server.post("/auth/refresh", refresh_token=tokens["refresh_token"])
    assert response.status_code == 200, response.text
    successors: Document = response.json()
    return successors


def answer(server: Server, tokens: Document) -> str:
    """Say what the secret's route says to this token."""
    response = server.get("/tests/secret", tokens["access_token"])
    return "200" if response.status_code == 200 else response.json()["code"]


def log_out(server: Server, tokens: Document) -> None:
    """End the session there."""
    assert server.post("/auth/logout", tokens["access_token"]).status_code == 204


@pytest.mark.parametrize("seconds", [-STEP_SECONDS, STEP_SECONDS], ids=["back", "ahead"])
def test_whoever_is_logged_out_stays_out_whatever_a_clock_says(machines: Machines, seconds: int) -> None:
    """Ended before the step or after it, here or there, and long after the token's own time is over."""
    here, there = machines.stepped, machines.steady
    before = [register(here), register(there)]
    log_out(there, before[0])
    log_out(here, before[1])
    asked = [(server, one) for server in (here, there) for one in before]
    until(lambda: {answer(*one) for one in asked} == {"session_ended"}, "news", seconds=KNOWN_SECONDS)
    machines.set_clock(seconds)
    after = [register(here), register(there)]
    log_out(here, after[0])
    log_out(there, after[1])
    ended_at = time.monotonic()
    while time.monotonic() - ended_at < KNOWN_SECONDS + 2 * TOKEN_SECONDS:
        for server in (here, there):
            answers = {answer(server, one) for one in (*before, *after)}
            assert "200" not in answers or time.monotonic() - ended_at < KNOWN_SECONDS
        time.sleep(0.1)


def test_a_clock_set_back_lets_old_tokens_live_on_for_so_long_and_no_longer(machines: Machines) -> None:
    """On this machine only; whoever knows the token's holder can still log out."""
    here, there = machines.stepped, machines.steady
    tokens = register(here)
    until(lambda: answer(here, tokens) == "token_expired", "the end of the token", seconds=TOKEN_SECONDS + 1)
    machines.set_clock(-STEP_SECONDS)
    assert answer(here, tokens) == "200"
    assert answer(there, tokens) == "token_expired"
    machines.set_clock(-TOKEN_SECONDS)
    until(lambda: answer(here, tokens) == "token_expired", "the end of the token", seconds=TOKEN_SECONDS + 1)


def test_a_clock_set_ahead_costs_a_refresh(machines: Machines) -> None:
    """And its tokens look to the others as if from the future until their own clocks are there."""
    here, there = machines.stepped, machines.steady
    tokens = register(here)
    machines.set_clock(STEP_SECONDS)
    assert answer(here, tokens) == "token_expired"
    successors = refresh(here, tokens)
    assert answer(here, successors) == "200"
    assert answer(there, successors) == "token_invalid"
    assert answer(there, refresh(there, successors)) == "200"
