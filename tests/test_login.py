"""Login: new sessions, claims, and no user enumeration."""

import json
import secrets
import statistics
import time
from collections.abc import Callable

import pytest
from passlib.hash import pbkdf2_sha256
from pymongo.database import Database

from config import Config
from tests.conftest import PASSWORD, Actor, Document, Service


def test_every_login_opens_a_new_session(alice: Actor) -> None:
    phone = alice.log_in()
    assert phone.claims["sid"] != alice.claims["sid"]
    assert phone.claims["sub"] == alice.claims["sub"]
    assert (phone.secret_status, alice.secret_status) == (200, 200)


def test_a_login_ignores_the_session_of_a_sent_access_token(service: Service, alice: Actor) -> None:
    """A session of an attacker cannot become the session of another user (session fixation)."""
    body = {"username": alice.username, "password": PASSWORD}
    response = service("POST", "/auth", token=alice.tokens["access_token"], json=body)
    again = Actor(service, alice.username, response.json())
    assert again.claims["sid"] != alice.claims["sid"]
    assert again.claims["jti"] != alice.claims["jti"]
    assert (again.secret_status, alice.secret_status) == (200, 200)


def test_the_username_is_case_insensitive(service: Service, alice: Actor) -> None:
    response = service("POST", "/auth", json={"username": alice.username.upper(), "password": PASSWORD})
    assert response.status_code == 200


def test_an_unknown_user_and_a_wrong_password_get_the_same_response(service: Service, alice: Actor) -> None:
    responses = [
        service("POST", "/auth", json={"username": name, "password": "a wrong password"})
        for name in (alice.username, "unknown-username", "no such n\u00e4me")
    ]
    for response in responses:
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == 'Bearer realm="api"'
    bodies = [{**response.json(), "request_id": ""} for response in responses]
    assert bodies[0] == bodies[1] == bodies[2]
    assert bodies[0]["code"] == "wrong_credentials"


@pytest.mark.parametrize("character", ["\u212a", "\u017f", "\uff4b", "k\u200b"], ids=ascii)
def test_unicode_variants_of_a_username_match_no_user(
    service: Service, register: Callable[..., Actor], character: str
) -> None:
    """The Kelvin character is not k and the long s is not s, although Unicode case folding maps them so."""
    actor = register(f"ks-{secrets.token_hex(6)}")
    name = actor.username.replace("s" if character == "\u017f" else "k", character)
    response = service("POST", "/auth", json={"username": name, "password": PASSWORD})
    assert (response.status_code, response.json()["code"]) == (401, "wrong_credentials")


def test_an_unknown_user_gets_the_same_headers_after_the_same_time(
    service: Service, alice: Actor, database: Database[Document]
) -> None:
    """Compares the medians of alternating logins, again while other load on the machine makes them differ."""
    headers = set()

    def median_with_another_login(name: str, times: list[float]) -> float:
        start = time.perf_counter()
        response = service("POST", "/auth", json={"username": name, "password": "a wrong password"})
        times.append(time.perf_counter() - start)
        assert response.status_code == 401
        headers.add(json.dumps({**response.headers, "x-request-id": ""}))
        return statistics.median(times)

    for _ in range(10):
        known, unknown = list[float](), list[float]()
        for _ in range(15):
            database.attempts.delete_many({"_id": {"$regex": "^(pair|account|usual) "}})
            of_known = median_with_another_login(alice.username, known)
            of_unknown = median_with_another_login(f"unknown-{secrets.token_hex(4)}", unknown)
        if of_unknown == pytest.approx(of_known, rel=0.1):
            break
    assert of_unknown == pytest.approx(of_known, rel=0.25)
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


def test_the_access_token_has_exactly_the_documented_claims(alice: Actor, config: Config) -> None:
    claims = alice.claims
    assert set(claims) == {"sub", "sid", "jti", "iat", "exp", "iss", "aud", "scopes", "auth_time", "amr"}
    assert claims["exp"] - claims["iat"] == alice.tokens["expires_in"] == config.ACCESS_TOKEN_SECONDS
    assert claims["scopes"] == ["guest", "user"]
    verified = alice.get("/auth/verify")
    assert (verified.status_code, verified.json()) == (200, {"valid": True, **claims})


def test_the_token_of_a_deleted_user_is_rejected(alice: Actor, database: Database[Document]) -> None:
    database.users.delete_one({"username": alice.username})
    assert alice.get("/auth/me").status_code == 401
