"""Registration: unique usernames, password rules, and no partial results."""

import secrets
from collections.abc import Callable

import pytest
from passlib.hash import argon2
from pymongo.database import Database

from config import Config
from config.product import NAME
from tests.conftest import PASSWORD, Actor, Document, Service


def test_registration_logs_in_and_returns_the_user(service: Service, config: Config) -> None:
    name = f"Carol.{secrets.token_hex(4)}_-"
    response = service("POST", "/users/registration", json={"username": name, "password": PASSWORD})
    body = response.json()
    assert response.status_code == 201
    assert response.headers["cache-control"] == "no-store"
    assert (body["token_type"], body["expires_in"]) == ("Bearer", config.ACCESS_TOKEN_SECONDS)
    assert set(body["user"]) == {"id", "username", "access", "disabled", "created_at", "email", "email_verified"}
    assert (body["user"]["username"], body["user"]["access"], body["user"]["disabled"]) == (name, "user", False)
    me = service("GET", "/auth/me", token=body["access_token"])
    assert (me.status_code, me.json()) == (200, body["user"])


def test_a_username_is_taken_regardless_of_case(service: Service, alice: Actor) -> None:
    for name in (alice.username, alice.username.lower(), alice.username.upper()):
        response = service("POST", "/users/registration", json={"username": name, "password": PASSWORD})
        assert (response.status_code, response.json()["code"]) == (409, "username_taken")


def test_exactly_one_of_parallel_registrations_of_a_username_succeeds(
    service: Service, database: Database[Document]
) -> None:
    """The unique index decides, not an earlier query. Rejected registrations leave no documents."""
    name = f"dave-{secrets.token_hex(4)}"
    spellings = ([name, name.upper(), name.title()] * 17)[:50]
    responses = service.together(
        *(service.send("POST", "/users/registration", json={"username": n, "password": PASSWORD}) for n in spellings)
    )
    assert sorted(response.status_code for response in responses) == [201] + [409] * 49
    users = list(database.users.find({"canonical_name": name}))
    assert len(users) == 1
    winner = next(response for response in responses if response.status_code == 201).json()
    sessions = [document["user_id"] for document in database.sessions.find({"user_id": winner["user"]["id"]})]
    assert sessions == [winner["user"]["id"]]


def test_the_hash_is_argon2id_with_the_owasp_minimum(alice: Actor, database: Database[Document]) -> None:
    user = database.users.find_one({"username": alice.username})
    assert user
    assert user["password"].startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert argon2.verify(PASSWORD, user["password"])


def test_passwords_with_the_same_normal_form_are_equal(service: Service) -> None:
    name = f"zoe-{secrets.token_hex(4)}"
    composed, decomposed = "caf\u00e9 cr\u00e8me br\u00fbl\u00e9e", "cafe\u0301 cre\u0300me bru\u0302le\u0301e"
    assert service("POST", "/users/registration", json={"username": name, "password": composed}).status_code == 201
    assert service("POST", "/auth", json={"username": name, "password": decomposed}).status_code == 200


@pytest.mark.parametrize(
    "password",
    [
        "only lower case",
        "12345 09876",
        "🦊🐻🐼🐨🐯🦁🐮🐷",
        "nul\x00inside it",
        f"{'plum lantern horse ' * 14:.256}",
    ],
)
def test_any_text_can_be_a_password_and_is_not_truncated(service: Service, password: str) -> None:
    name = f"eve-{secrets.token_hex(4)}"
    assert service("POST", "/users/registration", json={"username": name, "password": password}).status_code == 201
    assert service("POST", "/auth", json={"username": name, "password": password}).status_code == 200
    for near in (password[:-1], password + " ", password.upper() + "!", password[: password.find("\x00")]):
        assert service("POST", "/auth", json={"username": name, "password": near}).status_code in (401, 422)


@pytest.mark.parametrize("password", ["Lower And Upper", "  spaces around  ", "937461528093", "plumlanternhorse"])
def test_a_password_is_verified_exactly(service: Service, password: str) -> None:
    """The comparison is case-sensitive, and nothing is truncated or stripped."""
    name = f"eve-{secrets.token_hex(4)}"
    assert service("POST", "/users/registration", json={"username": name, "password": password}).status_code == 201
    near = {password.lower(), password.swapcase(), password.strip(), f" {password}", f"{password}\n", f"{password}\0"}
    for wrong in near - {password}:
        assert service("POST", "/auth", json={"username": name, "password": wrong}).status_code == 401, wrong
    assert service("POST", "/auth", json={"username": name, "password": password}).status_code == 200


@pytest.mark.parametrize(
    ("password", "message"),
    [
        ("1234567", "must have at least 8 characters"),
        ("x" * 257, "must have at most 256 characters"),
        ("USERNAME", "must not be the username"),
        ("sunshine", "is one of the most common passwords"),
        (NAME.title().replace("_", "-"), "is easy to guess. It consists of your username or the name of this service"),
        (f"{NAME}_password", "is easy to guess. It consists of your username or the name of this service"),
        ("passwordpassword", 'is easy to guess. Repeats like "abcabcabc" are only slightly harder to guess'),
    ],
)
def test_a_rejected_password_names_the_violated_rule(service: Service, password: str, message: str) -> None:
    name = f"frank-{secrets.token_hex(4)}"
    body = {"username": name, "password": name.upper() if password == "USERNAME" else password}
    response = service("POST", "/users/registration", json=body)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_fields")
    (error,) = response.json()["errors"]
    assert error["field"] == "password"
    assert error["message"].startswith(message)
    assert service("POST", "/auth", json={"username": name, "password": password}).status_code == 401


@pytest.mark.parametrize(
    "username",
    [
        "al",
        "a" * 65,
        "al ice",
        "alice\n",
        "alice@home",
        "\uff41\uff4c\uff49\uff43\uff45",
        "al\u0131ce",
        "ali\u200bce",
        "nul\x00",
        "",
        "$where",
    ],
)
def test_invalid_usernames_are_rejected(service: Service, username: str) -> None:
    """Usernames have 3 to 64 ASCII letters, digits, dots, underscores and hyphens.

    Text that NFKC or case folding would map to another username is not a valid username.
    """
    response = service("POST", "/users/registration", json={"username": username, "password": PASSWORD})
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "username")


def test_a_dot_in_a_username_is_not_a_wildcard(service: Service) -> None:
    """A username is never used as a regular expression."""
    dotted = f"a.b-{secrets.token_hex(4)}"
    other = dotted.replace(".", "x")
    for name in (dotted, other):
        body = {"username": name, "password": f"{PASSWORD} of {name}"}
        assert service("POST", "/users/registration", json=body).status_code == 201
    for name, password in ((dotted, f"{PASSWORD} of {other}"), (".*", f"{PASSWORD} of {dotted}")):
        assert service("POST", "/auth", json={"username": name, "password": password}).status_code == 401


def test_registration_cannot_set_privileged_fields(service: Service) -> None:
    """Unknown and privileged fields are rejected (OWASP: mass assignment)."""
    name = f"mallory-{secrets.token_hex(4)}"
    for extra in ({"access": "admin"}, {"access": 2}, {"_id": "x"}, {"disabled": False}, {"generation": 7}):
        response = service("POST", "/users/registration", json={"username": name, "password": PASSWORD, **extra})
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, next(iter(extra)))


def test_two_users_have_separate_accounts(register: Callable[..., Actor]) -> None:
    one, two = register(), register()
    assert one.get("/auth/me").json()["username"] == one.username
    assert two.get("/auth/me").json()["username"] == two.username
