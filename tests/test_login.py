"""Logging in: who you are, and that a wrong guess tells nothing."""

import json
import secrets
import statistics
import time
from collections.abc import Callable

import pytest
from passlib.hash import pbkdf2_sha256
from pymongo.database import Database

from tests.conftest import PASSWORD, Actor, Document, Service


def test_every_login_is_a_session_of_its_own(alice: Actor) -> None:
    phone = alice.log_in()
    assert phone.claims["sid"] != alice.claims["sid"]
    assert phone.claims["sub"] == alice.claims["sub"]
    assert (phone.secret_status, alice.secret_status) == (200, 200)


def test_a_login_takes_nothing_over_from_the_session_that_is_shown(service: Service, alice: Actor) -> None:
    """Nobody can have a session of his making become somebody else's."""
    body = {"username": alice.username, "password": PASSWORD}
    response = service("POST", "/auth", token=alice.tokens["access_token"], json=body)
    again = Actor(service, alice.username, response.json())
    assert again.claims["sid"] != alice.claims["sid"]
    assert again.claims["jti"] != alice.claims["jti"]
    assert (again.secret_status, alice.secret_status) == (200, 200)


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


@pytest.mark.parametrize("sign", ["\u212a", "\u017f", "\uff4b", "k\u200b"], ids=ascii)
def test_what_would_fold_into_a_name_is_nobodys(service: Service, register: Callable[..., Actor], sign: str) -> None:
    """The sign for kelvin is no k and the long s no s, although Unicode folds them so."""
    actor = register(f"ks-{secrets.token_hex(6)}")
    name = actor.username.replace("s" if sign == "\u017f" else "k", sign)
    response = service("POST", "/auth", json={"username": name, "password": PASSWORD})
    assert (response.status_code, response.json()["code"]) == (401, "wrong_credentials")


def test_nobody_is_refused_with_the_same_headers_and_as_slowly(
    service: Service, alice: Actor, database: Database[Document]
) -> None:
    """In the median of logins that take turns; a quarter is what the machine's other work may do to it."""
    took: dict[str, list[float]] = {alice.username: [], f"nobody-{secrets.token_hex(4)}": []}
    headers = set()
    for _ in range(15):
        database.attempts.delete_many({"_id": {"$regex": "^pair"}})
        for name, times in took.items():
            began = time.perf_counter()
            answer = service("POST", "/auth", json={"username": name, "password": "a wrong password"})
            times.append(time.perf_counter() - began)
            assert answer.status_code == 401
            headers.add(json.dumps({**answer.headers, "x-request-id": ""}))
    known, nobody = map(statistics.median, took.values())
    assert nobody == pytest.approx(known, rel=0.25)
    assert len(headers) == 1


def test_a_disabled_user_cannot_log_in(service: Service, alice: Actor, database: Database[Document]) -> None:
    database.users.update_one({"username": alice.username}, {"$set": {"disabled": True}})
    response = service("POST", "/auth", json={"username": alice.username, "password": PASSWORD})
    assert (response.status_code, response.json()["code"]) == (401, "wrong_credentials")


def test_a_hash_of_the_flask_predecessor_logs_in_and_is_replaced(
    service: Service, alice: Actor, database: Database[Document]
) -> None:
    database.users.update_one({"username": alice.username}, {"$set": {"password": pbkdf2_sha256.hash(PASSWORD)}})
    assert service("POST", "/auth", json={"username": alice.username, "password": "a wrong one"}).status_code == 401
    assert alice.log_in().secret_status == 200
    user = database.users.find_one({"username": alice.username})
    assert user
    assert user["password"].startswith("$argon2id$")
    assert alice.log_in().secret_status == 200


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
