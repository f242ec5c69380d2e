"""Logging in: who you are, and that a wrong guess tells nothing."""

from typing import Any

from passlib.hash import pbkdf2_sha256
from pymongo.database import Database

from tests.conftest import PASSWORD, Actor, Service

Document = dict[str, Any]


def test_every_login_is_a_session_of_its_own(alice: Actor) -> None:
    phone = alice.log_in()
    assert phone.claims["sid"] != alice.claims["sid"]
    assert phone.claims["sub"] == alice.claims["sub"]
    assert (phone.secret, alice.secret) == (200, 200)


def test_the_name_is_known_in_every_spelling(service: Service, alice: Actor) -> None:
    response = service("POST", "/auth", json={"username": alice.username.upper(), "password": PASSWORD})
    assert response.status_code == 200


def test_an_unknown_user_and_a_wrong_password_are_told_in_the_same_words(service: Service, alice: Actor) -> None:
    answers = [
        service("POST", "/auth", json={"username": name, "password": "a wrong password"})
        for name in (alice.username, "nobody-has-this-name", "no such n\u00e4me")
    ]
    for answer in answers:
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="api"'
    bodies = [{**answer.json(), "request_id": ""} for answer in answers]
    assert bodies[0] == bodies[1] == bodies[2]
    assert bodies[0]["code"] == "wrong_credentials"


def test_a_disabled_user_cannot_log_in(service: Service, alice: Actor, database: Database[Document]) -> None:
    database.users.update_one({"username": alice.username}, {"$set": {"disabled": True}})
    response = service("POST", "/auth", json={"username": alice.username, "password": PASSWORD})
    assert (response.status_code, response.json()["code"]) == (401, "wrong_credentials")


def test_a_hash_of_the_flask_predecessor_logs_in_and_is_replaced(
    service: Service, alice: Actor, database: Database[Document]
) -> None:
    database.users.update_one({"username": alice.username}, {"$set": {"password": pbkdf2_sha256.hash(PASSWORD)}})
    assert service("POST", "/auth", json={"username": alice.username, "password": "a wrong one"}).status_code == 401
    assert alice.log_in().secret == 200
    user = database.users.find_one({"username": alice.username})
    assert user
    assert user["password"].startswith("$argon2id$")
    assert alice.log_in().secret == 200


def test_the_access_token_says_what_the_contract_says(alice: Actor) -> None:
    claims = alice.claims
    assert set(claims) == {"sub", "sid", "jti", "iat", "exp", "iss", "aud", "scopes"}
    assert claims["exp"] - claims["iat"] == alice.tokens["expires_in"] == 900
    assert claims["scopes"] == ["guest", "user"]
    verified = alice.get("/auth/verify")
    assert (verified.status_code, verified.json()) == (200, {"valid": True, **claims})


def test_a_user_who_is_gone_is_nobody(alice: Actor, database: Database[Document]) -> None:
    database.users.delete_one({"username": alice.username})
    assert alice.get("/auth/me").status_code == 401
