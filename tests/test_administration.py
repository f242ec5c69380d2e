"""Administrators: they see and change users, and there is always one left."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pymongo.database import Database

from app.database.time_limit import TimeLimit
from app.models.users import Access
from tests.conftest import PASSWORD, Actor, Document, Service
from tests.interleaving import Held


def patch(admin: Actor, user: Actor, **change: Any) -> httpx.Response:
    return admin.service("PATCH", f"/users/{user.claims['sub']}", token=admin.tokens["access_token"], json=change)


def delete(admin: Actor, user: Actor) -> httpx.Response:
    return admin.service("DELETE", f"/users/{user.claims['sub']}", token=admin.tokens["access_token"])


def test_an_administrators_token_says_so(admin: Actor) -> None:
    assert admin.claims["scopes"] == ["guest", "user", "admin"]
    assert admin.get("/auth/me").json()["access"] == "admin"


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/{}"), ("PATCH", "/{}"), ("DELETE", "/{}")])
def test_everyone_else_is_forbidden_whatever_they_ask(service: Service, alice: Actor, method: str, path: str) -> None:
    full = f"/users{path.format(alice.claims['sub'])}"
    assert service(method, full).status_code == 401
    for query in ("", "?limit=x", "?after=1", "?access=admin"):
        response = service(method, full + query, token=alice.tokens["access_token"])
        assert (response.status_code, response.json()["code"]) == (403, "insufficient_scope")
        assert 'error="insufficient_scope"' in response.headers["www-authenticate"]


def test_a_user_is_shown_without_the_hash(admin: Actor, alice: Actor) -> None:
    response = admin.get(f"/users/{alice.claims['sub']}")
    assert (response.status_code, response.json()) == (200, alice.get("/auth/me").json())
    assert set(response.json()) == {"id", "username", "access", "disabled", "created_at"}


def test_a_list_shows_of_each_user_what_may_be_shown(admin: Actor) -> None:
    listed = admin.get("/users?limit=100").json()["users"]
    assert listed
    assert all(set(user) == {"id", "username", "access", "disabled", "created_at"} for user in listed)


@pytest.mark.parametrize("user_id", ["0" * 24, "x", "me", "0" * 25, "%24ne"])
def test_whoever_is_not_there_is_not_found(admin: Actor, user_id: str) -> None:
    assert admin.get(f"/users/{user_id}").status_code == 404
    assert admin.service("DELETE", f"/users/{user_id}", token=admin.tokens["access_token"]).status_code == 404


def test_pages_hold_everybody_once_in_one_order(admin: Actor, register: Callable[..., Actor]) -> None:
    newcomers = [register().claims["sub"] for _ in range(5)]
    seen: list[str] = []
    after, pages = "", 0
    while after is not None:
        page = admin.get(f"/users?limit=3{'&after=' if after else ''}{after}").json()
        assert len(page["users"]) <= 3
        seen += [user["id"] for user in page["users"]]
        after, pages = page["next"], pages + 1
        if pages == 2:
            newcomers.append(register().claims["sub"])  # whoever comes while one reads is at the end
    assert seen == sorted(seen)
    assert len(seen) == len(set(seen))
    assert set(newcomers) <= set(seen)


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "after=x", "limit=1e1"])
def test_a_page_that_cannot_be_is_refused(admin: Actor, query: str) -> None:
    response = admin.get(f"/users?{query}")
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, query.split("=")[0])


def test_promoting_a_user_ends_the_sessions_and_shows_in_the_next(admin: Actor, alice: Actor) -> None:
    response = patch(admin, alice, access="admin")
    assert (response.status_code, response.json()["access"]) == (200, "admin")
    assert alice.secret_status == 401
    assert alice.refresh().status_code == 401
    assert alice.log_in().get("/users").status_code == 200


def test_disabling_a_user_shows_everywhere(admin: Actor, alice: Actor, bob: Actor) -> None:
    phone = alice.log_in()
    assert patch(admin, alice, disabled=True).json()["disabled"] is True
    assert (alice.secret_status, phone.secret_status, bob.secret_status) == (401, 401, 200)
    assert alice.refresh().status_code == 401
    body = {"username": alice.username, "password": PASSWORD}
    assert alice.service("POST", "/auth", json=body).status_code == 401
    assert patch(admin, alice, disabled=False).json()["disabled"] is False
    assert alice.secret_status == 401, "a session that has ended does not begin again"
    assert alice.log_in().secret_status == 200


def test_a_change_to_what_is_so_already_ends_the_sessions_too(admin: Actor, alice: Actor) -> None:
    """It may be the second try of one whose answer was lost."""
    assert patch(admin, alice, access="user", disabled=False).status_code == 200
    assert alice.secret_status == 401


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({}, "body"),
        ({"access": "root"}, "access"),
        ({"access": 2}, "access"),
        ({"access": None}, "access"),
        ({"disabled": "yes"}, "disabled"),
        ({"disabled": None}, "disabled"),
        ({"username": "x"}, "username"),
    ],
    ids=repr,
)
def test_a_change_that_cannot_be_is_refused(admin: Actor, alice: Actor, change: Document, field: str) -> None:
    response = patch(admin, alice, **change)
    (error,) = response.json()["errors"]
    assert (response.status_code, error["field"]) == (422, field)
    assert not error["message"].startswith("Value error")
    assert alice.secret_status == 200


def test_deleting_a_user_ends_everything(admin: Actor, alice: Actor) -> None:
    assert delete(admin, alice).status_code == 204
    assert alice.secret_status == 401
    assert alice.refresh().status_code == 401
    assert admin.get(f"/users/{alice.claims['sub']}").status_code == 404
    assert delete(admin, alice).status_code == 404


@pytest.mark.parametrize(
    "change", [{"access": "user"}, {"disabled": True}, {"access": "guest", "disabled": True}, None]
)
def test_the_last_administrator_stays(admin: Actor, change: Document | None) -> None:
    response = patch(admin, admin, **change) if change else delete(admin, admin)
    assert (response.status_code, response.json()["code"]) == (409, "last_admin")
    leave = admin.post("/users/me/delete", {"current_password": PASSWORD})
    assert (leave.status_code, leave.json()["code"]) == (409, "last_admin")
    assert admin.get("/users").status_code == 200


def test_a_disabled_administrator_does_not_count(admin: Actor, appoint: Callable[[], Actor]) -> None:
    other = appoint()
    assert patch(admin, other, disabled=True).status_code == 200
    assert delete(admin, admin).json()["code"] == "last_admin"
    assert delete(admin, other).status_code == 204


@pytest.mark.parametrize("how", ["delete", "demote", "disable"])
def test_two_administrators_who_remove_each_other_leave_one(
    service: Service, appoint: Callable[[], Actor], database: Database[Document], how: str
) -> None:
    for _ in range(3):
        one, two = appoint(), appoint()
        database.users.update_many(
            {"access": Access.ADMIN, "username": {"$nin": [one.username, two.username]}}, {"$set": {"access": 1}}
        )

        def remove(who: Actor, whom: Actor) -> Any:
            path, token = f"/users/{whom.claims['sub']}", who.tokens["access_token"]
            if how == "delete":
                return service.send("DELETE", path, token=token)
            change = {"access": "user"} if how == "demote" else {"disabled": True}
            return service.send("PATCH", path, token=token, json=change)

        answers = service.together(remove(one, two), remove(two, one))
        first, second = sorted(answer.status_code for answer in answers)
        assert first in (200, 204)
        assert second in (401, 403, 409)
        assert database.users.count_documents({"access": Access.ADMIN, "disabled": False}) == 1


def test_a_removal_that_comes_too_late_changes_nothing(
    service: Service, appoint: Callable[[], Actor], database: Database[Document]
) -> None:
    """Whoever was stopped while holding the lock finds its time over, by the database's own clock."""
    one, two = appoint(), appoint()

    async def story() -> tuple[httpx.Response, httpx.Response]:
        users = service.app.ctx.users
        lock = users._administrators
        with Held(users, "_compare_and_change", "before") as stopped, pytest.MonkeyPatch.context() as patched:
            patched.setattr(lock, "_limit", TimeLimit(0.1, lambda: None))
            path, token = f"/users/{two.claims['sub']}", one.tokens["access_token"]
            late = asyncio.create_task(service.send("DELETE", path, token=token))
            await stopped.reached()
            patched.setattr(lock, "_limit", TimeLimit(5, lambda: None))
            path, token = f"/users/{one.claims['sub']}", two.tokens["access_token"]
            other = await service.send("DELETE", path, token=token)
            stopped.let_through()
            return await late, other

    late, other = service.run(story())
    assert (late.status_code, late.json()["code"]) == (403, "insufficient_scope"), "it was thought over"
    assert other.status_code == 204
    assert database.users.count_documents({"access": Access.ADMIN, "disabled": False}) == 1


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/{}"), ("PATCH", "/{}"), ("DELETE", "/{}")])
def test_a_demoted_administrator_has_no_power_from_that_moment(
    admin: Actor, appoint: Callable[[], Actor], alice: Actor, database: Database[Document], method: str, path: str
) -> None:
    """The rank is read from the database; a token that has not been revoked yet does not count."""
    other = appoint()
    database.users.update_one({"username": other.username}, {"$set": {"access": Access.USER}})
    body = {"disabled": True} if method == "PATCH" else None
    address = f"/users{path.format(alice.claims['sub'])}"
    response = admin.service(method, address, token=other.tokens["access_token"], json=body)
    assert (response.status_code, response.json()["code"]) == (403, "insufficient_scope")
    assert alice.secret_status == 200
    assert admin.get("/users").status_code == 200
