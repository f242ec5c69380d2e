"""Administration: administrators list and change users, and at least one administrator remains."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pymongo.database import Database

from app.models.users import Access
from tests.conftest import PASSWORD, Actor, Document, Service
from tests.interleaving import Held, race

PERMITTED = {"id", "username", "access", "disabled", "created_at", "email", "email_verified"}


def patch(admin: Actor, user: Actor, **change: Any) -> httpx.Response:
    return admin.service("PATCH", f"/users/{user.claims['sub']}", token=admin.tokens["access_token"], json=change)


def delete(admin: Actor, user: Actor) -> httpx.Response:
    return admin.service("DELETE", f"/users/{user.claims['sub']}", token=admin.tokens["access_token"])


def test_an_administrators_token_has_the_admin_scope(admin: Actor) -> None:
    assert admin.claims["scopes"] == ["guest", "user", "admin"]
    assert admin.get("/auth/me").json()["access"] == "admin"


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/{}"), ("PATCH", "/{}"), ("DELETE", "/{}")])
def test_other_users_are_forbidden_regardless_of_their_input(
    service: Service, alice: Actor, method: str, path: str
) -> None:
    full = f"/users{path.format(alice.claims['sub'])}"
    assert service(method, full).status_code == 401
    for query in ("", "?limit=x", "?after=1", "?access=admin"):
        response = service(method, full + query, token=alice.tokens["access_token"])
        assert (response.status_code, response.json()["code"]) == (403, "insufficient_scope")
        assert 'error="insufficient_scope"' in response.headers["www-authenticate"]


def test_a_user_is_shown_without_the_password_hash(admin: Actor, alice: Actor) -> None:
    response = admin.get(f"/users/{alice.claims['sub']}")
    assert (response.status_code, response.json()) == (200, alice.get("/auth/me").json())
    assert set(response.json()) == PERMITTED


def test_the_user_list_contains_only_permitted_fields(admin: Actor) -> None:
    listed = admin.get("/users?limit=100").json()["users"]
    assert listed
    assert all(set(user) == PERMITTED for user in listed)


@pytest.mark.parametrize("user_id", ["0" * 24, "x", "me", "0" * 25, "%24ne"])
def test_an_unknown_user_is_not_found(admin: Actor, user_id: str) -> None:
    assert admin.get(f"/users/{user_id}").status_code == 404
    assert admin.service("DELETE", f"/users/{user_id}", token=admin.tokens["access_token"]).status_code == 404


def test_pages_contain_each_user_once_in_order(admin: Actor, register: Callable[..., Actor]) -> None:
    newcomers = [register().claims["sub"] for _ in range(5)]
    seen: list[str] = []
    after, pages = "", 0
    while after is not None:
        page = admin.get(f"/users?limit=3{'&after=' if after else ''}{after}").json()
        assert len(page["users"]) <= 3
        seen += [user["id"] for user in page["users"]]
        after, pages = page["next"], pages + 1
        if pages == 2:
            newcomers.append(register().claims["sub"])  # users created during paging come last
    assert seen == sorted(seen)
    assert len(seen) == len(set(seen))
    assert set(newcomers) <= set(seen)


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "after=x", "limit=1e1"])
def test_invalid_paging_parameters_are_rejected(admin: Actor, query: str) -> None:
    response = admin.get(f"/users?{query}")
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, query.split("=")[0])


def test_promoting_a_user_ends_the_sessions_and_applies_to_the_next(admin: Actor, alice: Actor) -> None:
    response = patch(admin, alice, access="admin")
    assert (response.status_code, response.json()["access"]) == (200, "admin")
    assert alice.secret_status == 401
    assert alice.refresh().status_code == 401
    assert alice.log_in().get("/users").status_code == 200


def test_disabling_a_user_ends_the_sessions_and_prevents_logins(admin: Actor, alice: Actor, bob: Actor) -> None:
    phone = alice.log_in()
    assert patch(admin, alice, disabled=True).json()["disabled"] is True
    assert (alice.secret_status, phone.secret_status, bob.secret_status) == (401, 401, 200)
    assert alice.refresh().status_code == 401
    body = {"username": alice.username, "password": PASSWORD}
    assert alice.service("POST", "/auth", json=body).status_code == 401
    assert patch(admin, alice, disabled=False).json()["disabled"] is False
    assert alice.secret_status == 401, "an ended session does not become active again"
    assert alice.log_in().secret_status == 200


def test_an_update_to_the_current_values_also_ends_the_sessions(admin: Actor, alice: Actor) -> None:
    """It may be a retry of a request whose response was lost."""
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
def test_an_invalid_update_is_rejected(admin: Actor, alice: Actor, change: Document, field: str) -> None:
    response = patch(admin, alice, **change)
    (error,) = response.json()["errors"]
    assert (response.status_code, error["field"]) == (422, field)
    assert not error["message"].startswith("Value error")
    assert alice.secret_status == 200


def test_deleting_a_user_removes_the_user_and_ends_the_sessions(admin: Actor, alice: Actor) -> None:
    assert delete(admin, alice).status_code == 204
    assert alice.secret_status == 401
    assert alice.refresh().status_code == 401
    assert admin.get(f"/users/{alice.claims['sub']}").status_code == 404
    assert delete(admin, alice).status_code == 404


@pytest.mark.parametrize(
    "change", [{"access": "user"}, {"disabled": True}, {"access": "guest", "disabled": True}, None]
)
def test_the_last_administrator_cannot_be_removed(admin: Actor, change: Document | None) -> None:
    response = patch(admin, admin, **change) if change else delete(admin, admin)
    assert (response.status_code, response.json()["code"]) == (409, "last_admin")
    deletion = admin.post("/users/me/delete", {"current_password": PASSWORD})
    assert (deletion.status_code, deletion.json()["code"]) == (409, "last_admin")
    assert admin.get("/users").status_code == 200


def test_a_disabled_administrator_does_not_count_as_an_administrator(
    admin: Actor, appoint: Callable[[], Actor]
) -> None:
    other = appoint()
    assert patch(admin, other, disabled=True).status_code == 200
    assert delete(admin, admin).json()["code"] == "last_admin"
    assert delete(admin, other).status_code == 204


@pytest.mark.parametrize("how", ["delete", "demote", "disable"])
def test_of_two_administrators_who_remove_each_other_one_remains(
    service: Service, appoint: Callable[[], Actor], database: Database[Document], how: str
) -> None:
    for _ in range(3):
        one, two = appoint(), appoint()
        database.users.update_many(
            {"access": Access.ADMIN, "username": {"$nin": [one.username, two.username]}}, {"$set": {"access": 1}}
        )

        def remove(actor: Actor, other: Actor) -> Any:
            path, token = f"/users/{other.claims['sub']}", actor.tokens["access_token"]
            if how == "delete":
                return service.send("DELETE", path, token=token)
            change = {"access": "user"} if how == "demote" else {"disabled": True}
            return service.send("PATCH", path, token=token, json=change)

        responses = service.together(remove(one, two), remove(two, one))
        first, second = sorted(response.status_code for response in responses)
        assert first in (200, 204)
        assert second in (401, 403, 409)
        assert database.users.count_documents({"access": Access.ADMIN, "disabled": False}) == 1


def test_a_removal_in_progress_keeps_another_one_waiting(
    service: Service, appoint: Callable[[], Actor], database: Database[Document]
) -> None:
    """Both transactions write to one document, so the second one is retried until its time budget ends."""
    one, two = appoint(), appoint()

    def remove(actor: Actor, other: Actor) -> Any:
        return service.send("DELETE", f"/users/{other.claims['sub']}", token=actor.tokens["access_token"])

    with Held(service.app.ctx.users, "_require_another_admin", "after") as held:
        first, second = service.run(race(held, remove(one, two), remove(two, one)))
    assert (second.status_code, second.json()["code"]) == (503, "store_unavailable")
    assert first.status_code == 204
    assert database.users.count_documents({"access": Access.ADMIN, "disabled": False}) == 1


@pytest.mark.parametrize("end", ["demote", "disable", "log out"])
@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_an_administrator_whose_right_ends_meanwhile_changes_nothing(
    service: Service, appoint: Callable[[], Actor], alice: Actor, database: Database[Document], method: str, end: str
) -> None:
    """The actor's rank and session are part of the write (time of check, time of use)."""
    actor, other = appoint(), appoint()
    path, token = f"/users/{alice.claims['sub']}", actor.tokens["access_token"]
    body = {"access": "admin"} if method == "PATCH" else None
    ending = {
        "demote": ("PATCH", f"/users/{actor.claims['sub']}", other, {"access": "user"}),
        "disable": ("PATCH", f"/users/{actor.claims['sub']}", other, {"disabled": True}),
        "log out": ("POST", "/auth/logout", actor, None),
    }[end]
    late = service.send(method, path, token=token, json=body)
    first = service.send(ending[0], ending[1], token=ending[2].tokens["access_token"], json=ending[3])
    with Held(service.app.ctx.users, "start_generation" if method == "PATCH" else "start_deletion", "before") as held:
        changed, ended = service.run(race(held, late, first))
    assert ended.is_success
    assert changed.json()["code"] in ("insufficient_scope", "session_ended")
    user = database.users.find_one({"username": alice.username})
    assert user
    assert user["access"] == Access.USER


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/{}"), ("PATCH", "/{}"), ("DELETE", "/{}")])
def test_a_demoted_administrator_is_forbidden_immediately(
    admin: Actor, appoint: Callable[[], Actor], alice: Actor, database: Database[Document], method: str, path: str
) -> None:
    """The access level is read from the database, so a token that is not revoked yet is not sufficient."""
    other = appoint()
    database.users.update_one({"username": other.username}, {"$set": {"access": Access.USER}})
    body = {"disabled": True} if method == "PATCH" else None
    address = f"/users{path.format(alice.claims['sub'])}"
    response = admin.service(method, address, token=other.tokens["access_token"], json=body)
    assert (response.status_code, response.json()["code"]) == (403, "insufficient_scope")
    assert alice.secret_status == 200
    assert admin.get("/users").status_code == 200
