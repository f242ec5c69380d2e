"""Tests that a service at an old primary acknowledges nothing that a service at the new primary contradicts."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import pytest

from app.models.users import Access
from tests.conftest import PASSWORD, Document
from tests.partition.bed import Bed
from tests.partition.conftest import Note
from tests.partition.requests import Account, Answer, Request, login, logout, refresh, registration, secret
from tests.partition.trials import ACCEPTED, LIMIT_SECONDS, REJECTED, wrong_answers
from tests.processes import until
from tests.serving import new_name

A_PASSWORD, B_PASSWORD = "a sentence for service a", "a sentence for service b"


@pytest.fixture(scope="module")
def election_seconds() -> float:
    """Let m1 remain a primary for so long after it is isolated, also on a busy machine."""
    return 60


class Users(NamedTuple):
    """The users of the test. Those named after a state reach it at b before the requests."""

    admin: Account
    demoted: Account  # was an administrator
    disabled: Account
    ended: Account  # has logged out; the refresh token was rotated just before, and is within its grace period
    active: Account
    leaving_a: Account  # logs out at a only
    leaving_b: Account  # logs out at b only
    changing: Account  # sets another password at each service
    victim: Account  # the demoted administrator tries to disable and to delete this user
    newcomer: str  # registers at both services


class Case(NamedTuple):
    """A request to both services, and what b answers."""

    name: str
    to_a: Request
    to_b: Request
    expected: str
    token_suffices: bool = False  # a answers by the access token alone, until its news are stale


class Row(NamedTuple):
    """A case with its answers."""

    case: Case
    at_a: Answer
    at_b: Answer

    def __str__(self) -> str:
        return f"{self.case.name}: {self.at_a} at the old primary, {self.at_b} at the new primary"


def test_the_old_primary_acknowledges_nothing_that_the_new_one_contradicts(bed: Bed, note: Note) -> None:
    bed.settle()
    users = register_users(bed)
    bed.isolate_with_two_primaries()
    change_users_at_b(bed, users)
    changed_at = time.monotonic()
    rows = ask_both(bed, reading(users)) + ask_both(bed, writing(users))
    for row in rows:
        note(str(row))
    assert bed.m1.is_primary()
    assert bed.m2.is_primary()
    assert time.monotonic() < changed_at + LIMIT_SECONDS, "too late to tell what a may accept"
    bed.heal()
    bed.wait_until_ready()
    until(lambda: time.monotonic() > changed_at + LIMIT_SECONDS, "the end of all stale news")
    assert [str(row) for row in rows if str(row.at_b) != row.case.expected] == []
    assert [str(row) for row in rows if row.at_a.succeeded and not row.case.token_suffices] == []
    assert_sessions(bed, users)
    assert_acknowledged_writes(bed, users, rows)


def register_users(bed: Bed) -> Users:
    """Register the users at a, and rotate the refresh token of the one whose session will end."""
    register = bed.a.register
    users = Users(
        admin=appoint(bed),
        demoted=appoint(bed),
        disabled=register(),
        ended=register(),
        active=register(),
        leaving_a=register(),
        leaving_b=register(),
        changing=register(),
        victim=register(),
        newcomer=new_name(),
    )
    bed.a.ask_until_success(refresh(users.ended.refresh_token))
    return users


def appoint(bed: Bed) -> Account:
    """Return an administrator."""
    user = bed.a.register()
    change = {"$set": {"access": Access.ADMIN}}
    assert bed.m1.update("users", {"username": user.username}, change, acknowledged_by="majority")
    return Account(user.username, bed.a.ask_until_success(login(user.username)).body)


def change_users_at_b(bed: Bed, users: Users) -> None:
    """Bring the users into their states; the majority acknowledges it."""
    for request in (
        logout(users.ended.access_token),
        change_user(users.admin, users.demoted, access="user"),
        change_user(users.admin, users.disabled, disabled=True),
    ):
        bed.b.ask_until_success(request)


def change_user(by: Account, user: Account, **changes: object) -> Request:
    """Return an administrator's request that changes a user."""
    return Request("PATCH", f"/users/{user.user_id}", by.access_token, changes)


def change_password(user: Account, new: str) -> Request:
    """Return a request that changes a user's own password."""
    body = {"current_password": PASSWORD, "new_password": new}
    return Request("POST", "/users/me/password", user.access_token, body)


def same(name: str, request: Request, expected: str, *, token_suffices: bool = False) -> Case:
    """Return a case with the same request to both services."""
    return Case(name, request, request, expected, token_suffices)


def reading(users: Users) -> list[Case]:
    """Return requests that a could answer without a write: the old primary rejects none by itself."""
    list_users = Request("GET", "/users", users.demoted.access_token)
    me = Request("GET", "/auth/me", users.disabled.access_token)
    return [
        same("refresh within the grace period, session ended", refresh(users.ended.refresh_token), REJECTED),
        same("list users, demoted", list_users, REJECTED),
        same("GET /auth/me, disabled", me, REJECTED, token_suffices=True),
        same("GET /tests/secret, session ended", secret(users.ended.access_token), REJECTED, token_suffices=True),
        same("GET /tests/secret, active", secret(users.active.access_token), ACCEPTED, token_suffices=True),
    ]


def writing(users: Users) -> list[Case]:
    """Return requests that need a write."""
    by, victim, changing = users.demoted, users.victim, users.changing
    delete = Request("DELETE", f"/users/{victim.user_id}", by.access_token)
    return [
        same("log in", login(users.active.username), "200"),
        same("refresh", refresh(users.active.refresh_token), "200"),
        same("disable a user, demoted", change_user(by, victim, disabled=True), REJECTED),
        same("delete a user, demoted", delete, REJECTED),
        same("register", registration(users.newcomer), "201"),
        Case("log out", logout(users.leaving_a.access_token), logout(users.leaving_b.access_token), "204"),
        Case(
            "change the password", change_password(changing, A_PASSWORD), change_password(changing, B_PASSWORD), "200"
        ),
    ]


def ask_both(bed: Bed, cases: Sequence[Case]) -> list[Row]:
    """Send all requests at the same time."""
    at_a = [bed.a.start(case.to_a) for case in cases]
    at_b = [bed.b.start(case.to_b) for case in cases]
    return [Row(case, a.result(), b.result()) for case, a, b in zip(cases, at_a, at_b, strict=True)]


def assert_sessions(bed: Bed, users: Users) -> None:
    """Fail unless all workers agree, and know what the majority has acknowledged."""
    with bed.each_worker() as workers:
        for user in (users.ended, users.demoted, users.disabled, users.leaving_b, users.changing):
            assert wrong_answers(workers, user, REJECTED) == []
        for user in (users.admin, users.active, users.victim):
            assert wrong_answers(workers, user, ACCEPTED) == []
        refused_logout = {str(worker.ask(secret(users.leaving_a.access_token))) for worker in workers}
    assert len(refused_logout) == 1, "a logout that was not acknowledged is not remembered by some workers only"


def assert_acknowledged_writes(bed: Bed, users: Users, rows: Sequence[Row]) -> None:
    """Fail unless everything that b has acknowledged is still there."""
    assert bed.a.ask(login(users.newcomer)).status == 200
    assert bed.a.ask(login(users.changing.username, B_PASSWORD)).status == 200
    assert bed.a.ask(login(users.changing.username, A_PASSWORD)).status == 401
    (refreshed,) = (row.at_b.body for row in rows if row.case.name == "refresh")
    assert bed.a.ask(refresh(refreshed["refresh_token"])).status == 200
    assert user_of(bed, users, users.demoted)["access"] == "user"
    assert user_of(bed, users, users.disabled)["disabled"] is True
    assert user_of(bed, users, users.victim)["disabled"] is False


def user_of(bed: Bed, users: Users, account: Account) -> Document:
    """Return a user as the administrator sees it."""
    return bed.a.ask_until_success(Request("GET", f"/users/{account.user_id}", users.admin.access_token)).body
