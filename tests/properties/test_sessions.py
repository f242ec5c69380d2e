"""Stateful tests of sessions: users, attackers and administrators send requests in any order.

A model contains the expected state of each session, which the tests compare with the real service and database.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from hypothesis import Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from pymongo.database import Database

from app.models.sessions import ROTATIONS_REMEMBERED
from app.security.generations import no_right_needed
from config import Config
from tests.conftest import PASSWORD, Document, Service
from tests.properties import repeatable

STEPS = 25
DAY = 24 * 3600
GRACE_SECONDS = 60
IDLE_SECONDS = 14 * DAY
ABSOLUTE_SECONDS = 30 * DAY
TOKEN_SECONDS = 900
# No sum of these is close to a lifetime or period above, because the steps themselves also take time.
INTERVALS = [40, 4 * DAY]
CHOICE = st.integers(0, 999)


@dataclass
class Account:
    """An account in the model."""

    username: str
    user_id: str
    password: str = PASSWORD
    disabled: bool = False


@dataclass
class Session:
    """A session in the model; all ages are in seconds."""

    owner: Account
    access_token: str
    refresh_tokens: list[str]  # in order; the last one is the current one
    ended: bool = False
    age: int = 0
    idle: int = 0
    token_age: int = 0
    rotation_ages: list[int] = field(default_factory=list)  # the most recent first

    @property
    def id(self) -> str:
        """The session id, which is part of each of its refresh tokens."""
        return self.refresh_tokens[0].partition(".")[0]

    @property
    def active(self) -> bool:
        """Whether the session is active."""
        return not self.ended and self.age < ABSOLUTE_SECONDS and self.idle < IDLE_SECONDS

    @property
    def token_unexpired(self) -> bool:
        """Whether the access token has not expired."""
        return self.token_age < TOKEN_SECONDS

    def age_by(self, seconds: int) -> None:
        """Increase all ages."""
        self.age += seconds
        self.idle += seconds
        self.token_age += seconds
        self.rotation_ages = [age + seconds for age in self.rotation_ages]


class Sessions(RuleBasedStateMachine):
    """The state machine: events for sessions, and invariants after each event."""

    def __init__(self, service: Service, database: Database[Document]) -> None:
        super().__init__()
        self.service = service
        self.database = database
        self.known: list[Session] = []

    # Events

    @initialize()
    def start(self) -> None:
        """Create two accounts, each with a session."""
        self.register()
        self.register()

    @rule()
    def register(self) -> None:
        """Create another account."""
        body = {"username": f"model-{secrets.token_hex(6)}", "password": PASSWORD}
        response = self.service("POST", "/users/registration", json=body)
        assert response.status_code == 201
        self.add_session(Account(body["username"], response.json()["user"]["id"]), response)

    @rule(of=CHOICE)
    def log_in(self, of: int) -> None:
        """Open another session, as from another device; a disabled account cannot."""
        account = self.choose(of).owner
        response = self.send_credentials(account, account.password)
        if account.disabled:
            self.assert_rejected(response, "wrong_credentials")
        else:
            assert response.status_code == 200
            self.add_session(account, response)

    @rule(of=CHOICE)
    def log_in_with_a_wrong_password(self, of: int) -> None:
        """Fail to log in."""
        self.assert_rejected(self.send_credentials(self.choose(of).owner, "not the password"), "wrong_credentials")

    @rule(which=CHOICE, times=st.integers(1, 4))
    def refresh(self, which: int, times: int) -> None:
        """Exchange the current refresh token, one or more times."""
        session = self.choose(which)
        for _ in range(times):
            self.rotate(session)

    @rule(which=CHOICE, times=st.integers(1, 8))
    def refresh_for_weeks(self, which: int, times: int) -> None:
        """Refresh before each idle timeout, up to the absolute timeout of the session."""
        session = self.choose(which)
        for _ in range(times):
            self.time_passes(max(INTERVALS))
            self.rotate(session)

    @rule(which=CHOICE, older=CHOICE, later=st.integers(0, 2))
    def refresh_with_an_older_token(self, which: int, older: int, later: int) -> None:
        """Get the same new token within the grace period; later, the reused token ends the session."""
        session = self.choose(which)
        self.rotate(session)
        for _ in range(later):
            self.time_passes(min(INTERVALS))
        if len(session.refresh_tokens) == 1:
            return
        back = 1 + older % (len(session.refresh_tokens) - 1)
        response = self.send_refresh_token(session.refresh_tokens[-1 - back])
        if not session.active:
            self.assert_rejected(response, "session_ended")
        elif back <= ROTATIONS_REMEMBERED and session.rotation_ages[back - 1] <= GRACE_SECONDS:
            self.assert_refreshed(session, response)
            assert response.json()["refresh_token"] == session.refresh_tokens[-back]
        else:
            self.assert_rejected(response, "refresh_token_reused")
            session.ended = True

    @rule(one=CHOICE, two=CHOICE)
    def refresh_with_parts_of_two_tokens(self, one: int, two: int) -> None:
        """Send the id of one session with the MAC of another; this is rejected and ends neither session."""
        session, other = self.choose(one), self.choose(two)
        session_id, counter, _ = session.refresh_tokens[-1].split(".")
        mac = other.refresh_tokens[-1].rpartition(".")[2]
        if session is not other:
            self.assert_rejected(self.send_refresh_token(f"{session_id}.{counter}.{mac}"), "refresh_token_invalid")

    @rule(which=CHOICE)
    def log_out(self, which: int) -> None:
        """End this session."""
        session = self.choose(which)
        response = self.send(session, "POST", "/auth/logout")
        if response is not None:
            assert response.status_code == 204
            session.ended = True

    @rule(which=CHOICE)
    def log_out_everywhere(self, which: int) -> None:
        """End all sessions of an account."""
        session = self.choose(which)
        response = self.send(session, "POST", "/auth/logout-all")
        if response is not None:
            assert response.status_code == 204
            self.end_all(session.owner)

    @rule(which=CHOICE, another=CHOICE)
    def end_another_session(self, which: int, another: int) -> None:
        """End another session of the same account, but no session of other accounts."""
        session = self.choose(which)
        of_others = [one for one in self.known if one.active and one.owner is not session.owner]
        for other in (*of_others, self.choose(another)):
            response = self.send(session, "DELETE", f"/auth/sessions/{other.id}")
            if response is None:
                return
            if other.owner is session.owner and other.active:
                assert response.status_code == 204
                other.ended = True
            else:
                assert (response.status_code, response.json()["code"]) == (404, "not_found")

    @rule(which=CHOICE)
    def change_the_password(self, which: int) -> None:
        """End all sessions of the account and open a new one."""
        session = self.choose(which)
        new = f"{PASSWORD} {secrets.token_hex(4)}"
        body = {"current_password": session.owner.password, "new_password": new}
        response = self.send(session, "POST", "/users/me/password", json=body)
        if response is not None:
            assert response.status_code == 200
            self.end_all(session.owner)
            session.owner.password = new
            self.add_session(session.owner, response)

    @rule(which=CHOICE)
    def change_the_password_without_knowing_it(self, which: int) -> None:
        """Try to change the password with a wrong one; this is rejected and ends no session."""
        body = {"current_password": "not the password", "new_password": "another long passphrase"}
        response = self.send(self.choose(which), "POST", "/users/me/password", json=body)
        if response is not None:
            self.assert_rejected(response, "wrong_credentials")

    @rule(of=CHOICE, disabled=st.booleans())
    def an_administrator_disables_or_enables(self, of: int, disabled: bool) -> None:
        """End all sessions of an account, and allow or forbid new ones."""
        account, ctx = self.choose(of).owner, self.service.app.ctx

        async def change() -> None:
            user = await ctx.users.by_id(account.user_id)
            assert user
            await ctx.generations.change(user.id, right=no_right_needed, disabled=disabled)

        self.service.run(change())
        self.end_all(account)
        account.disabled = disabled

    @rule(seconds=st.sampled_from(INTERVALS))
    def time_passes(self, seconds: int) -> None:
        """Make all sessions older by moving their timestamps in the database into the past."""
        moved = {
            name: {"$subtract": [f"${name}", seconds * 1000]} for name in ("created_at", "refreshed_at", "expires_at")
        }
        rotations = {"$map": {"input": "$rotations", "as": "at", "in": {"$subtract": ["$$at", seconds * 1000]}}}
        self.database.sessions.update_many(
            {"_id": {"$in": [session.id for session in self.known]}}, [{"$set": {**moved, "rotations": rotations}}]
        )
        for session in self.known:
            session.age_by(seconds)

    # Invariants

    @invariant()
    def access_tokens_are_valid_while_their_session_is_active(self) -> None:
        """Get the secret with every access token."""
        for session in self.known:
            response = self.send(session, "GET", "/tests/secret")
            if response is not None:
                assert response.status_code == 200

    @invariant()
    def ended_sessions_cannot_be_refreshed(self) -> None:
        """Send the current refresh token of every ended session."""
        for session in self.known:
            if not session.active:
                self.assert_rejected(self.send_refresh_token(session.refresh_tokens[-1]), "session_ended")

    @invariant()
    def exactly_the_active_sessions_are_listed(self) -> None:
        """Compare the list that each session gets with the model."""
        for session in self.known:
            response = self.send(session, "GET", "/auth/sessions")
            if response is not None:
                listed = {one["id"]: one["current"] for one in response.json()["sessions"]}
                active = [one for one in self.known if one.owner is session.owner and one.active]
                assert listed == {one.id: one is session for one in active}

    # Requests

    def choose(self, choice: int) -> Session:
        """Return a session, usually an active one."""
        active = [session for session in self.known if session.active and session.token_unexpired]
        pool = self.known if choice % 8 == 7 or not active else active
        session = pool[choice // 8 % len(pool)]
        note(f"session {self.known.index(session)}, {'' if session.active else 'ended, '}of {session.owner.username}")
        return session

    def send(self, session: Session, method: str, path: str, **options: Any) -> httpx.Response | None:
        """Send a request with the access token; return None if it was rejected as expected.

        Does not send a token that has expired in the model, because time passes only in the database.
        """
        if not session.token_unexpired:
            return None
        response = self.service(method, path, token=session.access_token, **options)
        if session.active:
            return response
        self.assert_rejected(response, "session_ended")
        return None

    def send_credentials(self, account: Account, password: str) -> httpx.Response:
        """Try to log in."""
        return self.service("POST", "/auth", json={"username": account.username, "password": password})

    def send_refresh_token(self, refresh_token: str) -> httpx.Response:
        """Try to refresh."""
        return self.service("POST", "/auth/refresh", json={"refresh_token": refresh_token})

    def assert_rejected(self, response: httpx.Response, code: str) -> None:
        """Fail if the response is not 401 with this error code."""
        assert (response.status_code, response.json()["code"]) == (401, code)

    def add_session(self, owner: Account, response: httpx.Response) -> None:
        """Add a new session to the model."""
        tokens = response.json()
        self.known.append(Session(owner, tokens["access_token"], [tokens["refresh_token"]]))

    def rotate(self, session: Session) -> None:
        """Exchange the current refresh token."""
        response = self.send_refresh_token(session.refresh_tokens[-1])
        if not session.active:
            self.assert_rejected(response, "session_ended")
            return
        self.assert_refreshed(session, response)
        session.refresh_tokens.append(response.json()["refresh_token"])
        session.rotation_ages.insert(0, 0)
        session.idle = 0

    def assert_refreshed(self, session: Session, response: httpx.Response) -> None:
        """Fail if a refresh failed; add the new access token to the model."""
        assert response.status_code == 200
        session.access_token = response.json()["access_token"]
        session.token_age = 0

    def end_all(self, account: Account) -> None:
        """End all sessions of an account in the model."""
        for session in self.known:
            if session.owner is account:
                session.ended = True


@pytest.fixture(scope="module")
def service(config: Config) -> Iterator[Service]:
    """Run a service with the maximum grace period, which is long compared with the steps of an example."""
    unlimited = dict.fromkeys(
        ("LOGIN_FAILURES_PER_PAIR", "LOGIN_FAILURES_PER_ACCOUNT", "LOGIN_FAILURES_PER_ADDRESS"), "1000000/minute"
    )
    periods = {"REFRESH_GRACE_SECONDS": GRACE_SECONDS, "REVOCATION_STALE_SECONDS": 120}
    with Service(config.model_copy(update={**unlimited, **periods})) as service:
        yield service


def test_sessions_are_active_or_ended_as_the_model_predicts(service: Service, database: Database[Document]) -> None:
    class SessionsOfService(Sessions):
        def __init__(self) -> None:
            super().__init__(service, database)

    # No shrinking: it would take minutes, because every step sends requests to the real service.
    steps = settings(repeatable(10), stateful_step_count=STEPS, phases=[Phase.generate])
    run_state_machine_as_test(SessionsOfService, settings=steps)
