"""Sessions: whatever owners, thieves and administrators do in whichever order, each goes on or is over as it should.

A model beside the real service and its real database keeps what must be true of each session.
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
from config import Config
from tests.conftest import PASSWORD, Document, Service
from tests.properties import repeatable

STEPS = 25
DAY = 24 * 3600
GRACE_SECONDS = 60
IDLE_SECONDS = 14 * DAY
ABSOLUTE_SECONDS = 30 * DAY
TOKEN_SECONDS = 900
# No sum of these is near an end of anything: the steps themselves take a moment, too.
LAPSES = [40, 4 * DAY]
CHOICE = st.integers(0, 999)


@dataclass
class Account:
    """Somebody, as the model has it."""

    username: str
    user_id: str
    password: str = PASSWORD
    disabled: bool = False


@dataclass
class Session:
    """A session, as the model has it; all ages are in seconds."""

    owner: Account
    access_token: str
    refresh_tokens: list[str]  # the first one to the one that is due
    ended: bool = False
    age: int = 0
    idle: int = 0
    token_age: int = 0
    rotation_ages: list[int] = field(default_factory=list)  # the latest first

    @property
    def id(self) -> str:
        """Its id, which is part of each of its refresh tokens."""
        return self.refresh_tokens[0].partition(".")[0]

    @property
    def alive(self) -> bool:
        """Whether it goes on."""
        return not self.ended and self.age < ABSOLUTE_SECONDS and self.idle < IDLE_SECONDS

    @property
    def token_holds(self) -> bool:
        """Whether time alone has left the access token valid."""
        return self.token_age < TOKEN_SECONDS

    def lapse(self, seconds: int) -> None:
        """Grow older."""
        self.age += seconds
        self.idle += seconds
        self.token_age += seconds
        self.rotation_ages = [age + seconds for age in self.rotation_ages]


class Sessions(RuleBasedStateMachine):
    """What can happen to sessions, and what must be true after each of it."""

    def __init__(self, service: Service, database: Database[Document]) -> None:
        super().__init__()
        self.service = service
        self.database = database
        self.known: list[Session] = []

    # What happens

    @initialize()
    def somebody_is_there(self) -> None:
        """Begin with two accounts, each with a session."""
        self.register()
        self.register()

    @rule()
    def register(self) -> None:
        """Make another account."""
        body = {"username": f"model-{secrets.token_hex(6)}", "password": PASSWORD}
        response = self.service("POST", "/users/registration", json=body)
        assert response.status_code == 201
        self.opened(Account(body["username"], response.json()["user"]["id"]), response)

    @rule(of=CHOICE)
    def log_in(self, of: int) -> None:
        """Open another session, as from another device; who is disabled cannot."""
        account = self.chosen(of).owner
        response = self.send_credentials(account, account.password)
        if account.disabled:
            self.refused(response, "wrong_credentials")
        else:
            assert response.status_code == 200
            self.opened(account, response)

    @rule(of=CHOICE)
    def log_in_with_a_wrong_password(self, of: int) -> None:
        """Fail to log in."""
        self.refused(self.send_credentials(self.chosen(of).owner, "not the password"), "wrong_credentials")

    @rule(which=CHOICE, times=st.integers(1, 4))
    def refresh(self, which: int, times: int) -> None:
        """Move on to the next refresh token, and the next."""
        session = self.chosen(which)
        for _ in range(times):
            self.rotate(session)

    @rule(which=CHOICE, times=st.integers(1, 8))
    def stay_for_weeks(self, which: int, times: int) -> None:
        """Use a session often enough, until its absolute end."""
        session = self.chosen(which)
        for _ in range(times):
            self.time_passes(max(LAPSES))
            self.rotate(session)

    @rule(which=CHOICE, older=CHOICE, later=st.integers(0, 2))
    def refresh_with_an_older_token(self, which: int, older: int, later: int) -> None:
        """Within the grace get the same successor again; later, betray that two hands hold the session."""
        session = self.chosen(which)
        self.rotate(session)
        for _ in range(later):
            self.time_passes(min(LAPSES))
        if len(session.refresh_tokens) == 1:
            return
        back = 1 + older % (len(session.refresh_tokens) - 1)
        response = self.send_refresh_token(session.refresh_tokens[-1 - back])
        if not session.alive:
            self.refused(response, "session_ended")
        elif back <= ROTATIONS_REMEMBERED and session.rotation_ages[back - 1] <= GRACE_SECONDS:
            self.continued(session, response)
            assert response.json()["refresh_token"] == session.refresh_tokens[-back]
        else:
            self.refused(response, "refresh_token_reused")
            session.ended = True

    @rule(one=CHOICE, two=CHOICE)
    def refresh_with_a_token_pieced_together(self, one: int, two: int) -> None:
        """Harm neither session with the id of one and the proof of another."""
        session, other = self.chosen(one), self.chosen(two)
        session_id, counter, _ = session.refresh_tokens[-1].split(".")
        mac = other.refresh_tokens[-1].rpartition(".")[2]
        if session is not other:
            self.refused(self.send_refresh_token(f"{session_id}.{counter}.{mac}"), "refresh_token_invalid")

    @rule(which=CHOICE)
    def log_out(self, which: int) -> None:
        """End this session."""
        session = self.chosen(which)
        response = self.ask(session, "POST", "/auth/logout")
        if response is not None:
            assert response.status_code == 204
            session.ended = True

    @rule(which=CHOICE)
    def log_out_everywhere(self, which: int) -> None:
        """End all sessions of an account."""
        session = self.chosen(which)
        response = self.ask(session, "POST", "/auth/logout-all")
        if response is not None:
            assert response.status_code == 204
            self.all_over(session.owner)

    @rule(which=CHOICE, another=CHOICE)
    def end_another_session(self, which: int, another: int) -> None:
        """End another of one's own sessions, and nobody else's."""
        session = self.chosen(which)
        strangers = [one for one in self.known if one.alive and one.owner is not session.owner]
        for other in (*strangers, self.chosen(another)):
            response = self.ask(session, "DELETE", f"/auth/sessions/{other.id}")
            if response is None:
                return
            if other.owner is session.owner and other.alive:
                assert response.status_code == 204
                other.ended = True
            else:
                assert (response.status_code, response.json()["code"]) == (404, "not_found")

    @rule(which=CHOICE)
    def change_the_password(self, which: int) -> None:
        """End all sessions of the account and open a fresh one."""
        session = self.chosen(which)
        new = f"{PASSWORD} {secrets.token_hex(4)}"
        body = {"current_password": session.owner.password, "new_password": new}
        response = self.ask(session, "POST", "/users/me/password", json=body)
        if response is not None:
            assert response.status_code == 200
            self.all_over(session.owner)
            session.owner.password = new
            self.opened(session.owner, response)

    @rule(which=CHOICE)
    def change_the_password_without_knowing_it(self, which: int) -> None:
        """End nothing."""
        body = {"current_password": "not the password", "new_password": "whatever it would be"}
        response = self.ask(self.chosen(which), "POST", "/users/me/password", json=body)
        if response is not None:
            self.refused(response, "wrong_credentials")

    @rule(of=CHOICE, disabled=st.booleans())
    def an_administrator_disables_or_enables(self, of: int, disabled: bool) -> None:
        """End all sessions of an account, and let it open new ones or not."""
        account, ctx = self.chosen(of).owner, self.service.app.ctx

        async def change() -> None:
            user = await ctx.users.by_id(account.user_id)
            assert user
            await ctx.generations.change(user, disabled=disabled)

        self.service.run(change())
        self.all_over(account)
        account.disabled = disabled

    @rule(seconds=st.sampled_from(LAPSES))
    def time_passes(self, seconds: int) -> None:
        """Age all sessions: what the database wrote of them, it wrote so much earlier."""
        earlier = {
            name: {"$subtract": [f"${name}", seconds * 1000]} for name in ("created_at", "refreshed_at", "expires_at")
        }
        rotations = {"$map": {"input": "$rotations", "as": "at", "in": {"$subtract": ["$$at", seconds * 1000]}}}
        self.database.sessions.update_many(
            {"_id": {"$in": [session.id for session in self.known]}}, [{"$set": {**earlier, "rotations": rotations}}]
        )
        for session in self.known:
            session.lapse(seconds)

    # What must be true

    @invariant()
    def an_access_token_opens_the_secret_as_long_as_its_session_goes_on(self) -> None:
        """Ask for the secret with every token."""
        for session in self.known:
            response = self.ask(session, "GET", "/tests/secret")
            if response is not None:
                assert response.status_code == 200

    @invariant()
    def a_session_that_is_over_cannot_be_refreshed(self) -> None:
        """Show every refresh token that is due where nothing is due any more."""
        for session in self.known:
            if not session.alive:
                self.refused(self.send_refresh_token(session.refresh_tokens[-1]), "session_ended")

    @invariant()
    def exactly_the_sessions_that_go_on_are_listed(self) -> None:
        """Compare what each session may see of all."""
        for session in self.known:
            response = self.ask(session, "GET", "/auth/sessions")
            if response is not None:
                listed = {one["id"]: one["current"] for one in response.json()["sessions"]}
                going_on = [one for one in self.known if one.owner is session.owner and one.alive]
                assert listed == {one.id: one is session for one in going_on}

    # How it is asked

    def chosen(self, choice: int) -> Session:
        """Return a session, mostly one that goes on."""
        going_on = [session for session in self.known if session.alive and session.token_holds]
        pool = self.known if choice % 8 == 7 or not going_on else going_on
        session = pool[choice // 8 % len(pool)]
        note(f"session {self.known.index(session)}, {'' if session.alive else 'over, '}of {session.owner.username}")
        return session

    def ask(self, session: Session, method: str, path: str, **options: Any) -> httpx.Response | None:
        """Ask with the session's access token; None if it was refused as it had to be.

        A token that is too old for the model is not shown: only the database was made to believe that it is later.
        """
        if not session.token_holds:
            return None
        response = self.service(method, path, token=session.access_token, **options)
        if session.alive:
            return response
        self.refused(response, "session_ended")
        return None

    def send_credentials(self, account: Account, password: str) -> httpx.Response:
        """Try to log in."""
        return self.service("POST", "/auth", json={"username": account.username, "password": password})

    def send_refresh_token(self, refresh_token: str) -> httpx.Response:
        """Try to refresh."""
        return self.service("POST", "/auth/refresh", json={"refresh_token": refresh_token})

    def refused(self, response: httpx.Response, code: str) -> None:
        """Show that something is refused for the right reason."""
        assert (response.status_code, response.json()["code"]) == (401, code)

    def opened(self, owner: Account, response: httpx.Response) -> None:
        """Enter a new session into the model."""
        tokens = response.json()
        self.known.append(Session(owner, tokens["access_token"], [tokens["refresh_token"]]))

    def rotate(self, session: Session) -> None:
        """Show the refresh token that is due, as a client does."""
        response = self.send_refresh_token(session.refresh_tokens[-1])
        if not session.alive:
            self.refused(response, "session_ended")
            return
        self.continued(session, response)
        session.refresh_tokens.append(response.json()["refresh_token"])
        session.rotation_ages.insert(0, 0)
        session.idle = 0

    def continued(self, session: Session, response: httpx.Response) -> None:
        """Follow a refresh that must have succeeded."""
        assert response.status_code == 200
        session.access_token = response.json()["access_token"]
        session.token_age = 0

    def all_over(self, account: Account) -> None:
        """End all sessions of somebody in the model."""
        for session in self.known:
            if session.owner is account:
                session.ended = True


@pytest.fixture(scope="module")
def service(config: Config) -> Iterator[Service]:
    """Run a service with the longest grace, in which the steps of an example are but a moment."""
    settings = dict.fromkeys(
        ("LOGIN_FAILURES_PER_PAIR", "LOGIN_FAILURES_PER_ACCOUNT", "LOGIN_FAILURES_PER_ADDRESS"), "1000000/minute"
    )
    lasting = {"REFRESH_GRACE_SECONDS": GRACE_SECONDS, "REVOCATION_STALE_SECONDS": 120}
    with Service(config.model_copy(update={**settings, **lasting})) as service:
        yield service


def test_sessions_are_alive_or_over_as_the_model_says(service: Service, database: Database[Document]) -> None:
    class Here(Sessions):
        def __init__(self) -> None:
            super().__init__(service, database)

    # Making a failure smaller would take minutes, because every step asks the real service.
    steps = settings(repeatable(10), stateful_step_count=STEPS, phases=[Phase.generate])
    run_state_machine_as_test(Here, settings=steps)
