"""Access tokens: the service accepts only its own, unmodified and not expired."""

import base64
import json
import secrets
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import ClassVar

import jwt
import pytest
from sanic.compat import Header

from app.http.cross_site import CrossSite
from app.http.problems import Problem
from app.security.authentication import Authenticator
from app.security.cookie_mode import CookieMode
from app.security.freshness import Freshness
from app.tokens.access import AccessTokens, InvalidAccessToken, Payload, key_id
from config.product import SLUG
from tests.conftest import SESSION_ID, USER_ID, Actor, Document, Service
from tests.routes import ROUTES, example_path, operation_at

CLAIMS = [name for name, field in Payload.model_fields.items() if field.is_required()]
Forge = Callable[..., str]
NO_COOKIES = CookieMode(CrossSite([]), enabled=False, refresh_seconds=1)


def encode(data: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(data).encode()).rstrip(b"=").decode()


def rejected(service: Service, token: str) -> bool:
    """Return whether a token is rejected, with the challenge `invalid_token` (RFC 6750 section 3.1)."""
    response = service("GET", "/tests/secret", token=token)
    challenge = response.headers.get("www-authenticate", "")
    return response.status_code == 401 and 'error="invalid_token"' in challenge


def test_a_copy_signed_with_the_right_key_is_accepted(service: Service, forge: Forge) -> None:
    """Without this, the tests below would pass for any token."""
    assert service("GET", "/tests/secret", token=forge()).status_code == 200


@pytest.mark.parametrize("claim", CLAIMS)
def test_every_claim_is_required(service: Service, forge: Forge, claim: str) -> None:
    assert rejected(service, forge({claim: None}))


@pytest.mark.parametrize(
    "claims",
    [
        *({claim: {"$ne": None}} for claim in CLAIMS),
        *({claim: 7} for claim in ("sid", "jti", "scopes", "aud")),
        *({claim: ["x"]} for claim in ("sid", "jti", "iat", "exp")),
        {"aud": [SLUG]},
        {"aud": "another"},
        {"iss": "another"},
        {"iss": f"{SLUG}.example"},
        {"scopes": "admin"},
        {"scopes": [1]},
        {"exp": 2**31 + 0.5},
        {"exp": True},
        {"exp": 2**80},
        {"exp": -1},
        {"iat": 0},
        {"iat": int(time.time()) + 3600, "exp": int(time.time()) + 4000},
        {"nbf": int(time.time()) + 3600},
        {"exp": int(time.time()) + 86400},
    ],
    ids=",".join,
)
def test_invalid_claims_are_rejected(service: Service, forge: Forge, claims: Document) -> None:
    assert rejected(service, forge(claims))


@pytest.mark.parametrize(
    "headers",
    [{"typ": "JWT"}, {"typ": "at+JWT"}, {"kid": "another"}, {"kid": "../../dev/null"}, {"crit": ["b64"], "b64": False}],
    ids=repr,
)
def test_invalid_jose_headers_are_rejected(service: Service, forge: Forge, headers: Document) -> None:
    assert rejected(service, forge(headers=headers))


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_the_algorithm_is_pinned(service: Service, forge: Forge, algorithm: str) -> None:
    assert rejected(service, forge(algorithm=algorithm))


@pytest.mark.parametrize("spelling", ["none", "None", "NONE", "nOnE", ""])
def test_an_unsigned_token_is_rejected(service: Service, resident: Actor, spelling: str) -> None:
    payload = resident.tokens["access_token"].split(".")[1]
    header = encode({"alg": spelling, "typ": "at+jwt"})
    assert rejected(service, f"{header}.{payload}.")


def test_a_token_signed_with_another_key_is_rejected(service: Service, forge: Forge) -> None:
    assert rejected(service, forge(key=secrets.token_urlsafe(48)))


@pytest.mark.parametrize(
    "token", ["x", "a.b.c", "...", "a" * 6000, "\u00e9", "e30.e30.", "{}.{}.{}"], ids=lambda token: token[:12]
)
def test_a_malformed_token_is_rejected(service: Service, token: str) -> None:
    response = service("GET", "/tests/secret", headers={"Authorization": f"Bearer {token}".encode()})
    assert (response.status_code, response.json()["code"]) == (401, "token_invalid")


def protected_routes() -> list[tuple[str, str]]:
    """Return method and path of every route that requires a token."""
    found = [route for route in ROUTES if operation_at(*route).protected]
    assert found
    return [(method.upper(), example_path(method, path)) for method, path in found]


@pytest.mark.parametrize("bad", ["refresh token", "another key", "expired", "another type"])
def test_every_protected_route_rejects_invalid_tokens(
    service: Service, resident: Actor, forge: Forge, bad: str
) -> None:
    then = resident.claims["iat"] - 2000
    token = {
        "refresh token": resident.tokens["refresh_token"],
        "another key": forge(key=secrets.token_urlsafe(48)),
        "expired": forge({"iat": then, "exp": then + 900}),
        "another type": forge(headers={"typ": "JWT"}),
    }[bad]
    for method, path in protected_routes():
        response = service(method, path, token=token)
        assert response.status_code == 401, path
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["www-authenticate"].startswith('Bearer realm="api", error="invalid_token"')
        assert response.json()["code"] == ("token_expired" if bad == "expired" else "token_invalid")


NO_TEXTS = [{"$ne": None}, ["x"], 7, 1.5, True, None]
NO_USER_IDS = [
    "",
    "u",
    "alice",
    "0" * 23,
    "0" * 25,
    "A" * 24,
    "g" * 24,
    "0" * 24 + "\n",
    "\u0660" * 24,
    "0" * 23 + "\0",
]
NO_SESSION_IDS = ["", "s", "0" * 21, "0" * 23, "=" * 22, "0" * 22 + "\n", "\u0660" * 22, "$" * 22, "0" * 21 + "."]


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        *(("sub", value) for value in (*NO_TEXTS, *NO_USER_IDS)),
        *(("sid", value) for value in (*NO_TEXTS, *NO_SESSION_IDS)),
        *(("jti", value) for value in NO_TEXTS),
    ],
    ids=repr,
)
def test_a_claim_without_the_form_of_an_id_never_reaches_the_database(
    service: Service,
    forge: Forge,
    monkeypatch: pytest.MonkeyPatch,
    claim: str,
    value: object,
) -> None:
    async def unexpected_call(*_: object) -> None:
        raise AssertionError(f"{claim} {value!r} reached the database")

    monkeypatch.setattr(service.app.ctx.users, "by_id", unexpected_call)
    for method in ("active", "end", "require_active"):
        monkeypatch.setattr(service.app.ctx.sessions, method, unexpected_call)
    forged = forge({claim: value})
    assert {service(method, path, token=forged).status_code for method, path in protected_routes()} == {401}


def test_an_expired_token_with_an_invalid_signature_is_reported_as_invalid(
    service: Service, resident: Actor, forge: Forge
) -> None:
    """The signature is verified first; claims of an unverified token are not evaluated."""
    then = resident.claims["iat"] - 2000
    response = service("GET", "/tests/secret", token=forge({"iat": then, "exp": then + 900}, key="x" * 48))
    assert (response.status_code, response.json()["code"]) == (401, "token_invalid")


def test_a_token_outside_the_authorization_header_is_ignored(service: Service, alice: Actor) -> None:
    token = alice.tokens["access_token"]
    for name in (
        "X-Access-Token",
        "X-Authorization",
        "X-Auth-Token",
        "Proxy-Authorization",
        "Token",
        "X-User-ID",
        "X-Original-URL",
    ):
        for value in (token, f"Bearer {token}"):
            assert service("GET", "/tests/secret", headers={name: value}).status_code == 401, name
    options: list[Document] = [{place: {"access_token": token}} for place in ("json", "data", "params")]
    for option in options:
        assert service("POST", "/auth/logout", **option).status_code == 401, option
    assert alice.secret_status == 200


def test_a_token_in_the_query_a_cookie_or_a_repeated_header_is_rejected(service: Service, resident: Actor) -> None:
    token = resident.tokens["access_token"]
    assert service("GET", f"/tests/secret?access_token={token}").status_code == 401
    assert service("GET", "/tests/secret", headers={"Cookie": f"access_token={token}"}).status_code == 401
    twice = [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")]
    assert service("GET", "/tests/secret", headers=twice).status_code == 401


def test_requests_on_one_connection_are_authenticated_independently(
    service: Service, resident: Actor, bob: Actor
) -> None:
    """No state of a request affects the next one on its connection, also of another user."""
    for _ in range(3):
        assert resident.get("/auth/verify").json()["sub"] == resident.claims["sub"]
        assert service("GET", "/tests/secret", token="x").status_code == 401
        assert bob.get("/auth/verify").json()["sub"] == bob.claims["sub"]
        assert service("GET", "/tests/secret").status_code == 401


def test_concurrent_requests_are_each_authenticated_as_their_own_user(
    service: Service, register: Callable[..., Actor]
) -> None:
    actors = [register() for _ in range(10)] * 10
    responses = service.together(
        *(
            service.send("GET", path, token=actor.tokens["access_token"])
            for actor in actors
            for path in ("/auth/verify", "/auth/me")
        )
    )
    for actor, verified, me in zip(actors, responses[::2], responses[1::2], strict=True):
        assert (verified.json()["sub"], me.json()["username"]) == (actor.claims["sub"], actor.username)


def test_token_verification_cost_does_not_grow_with_the_number_of_tokens(
    service: Service, resident: Actor, forge: Forge
) -> None:
    """Counts function calls, for known and for new tokens; time is less exact."""

    def identify(token: str) -> None:
        headers = Header({"authorization": f"Bearer {token}"})
        service.app.ctx.authenticator.authenticate(SimpleNamespace(headers=headers))  # type: ignore[arg-type]

    def calls(token: str) -> int:
        number = 0

        def count(*_: object) -> None:
            nonlocal number
            number += 1

        sys.setprofile(count)
        try:
            identify(token)
        finally:
            sys.setprofile(None)
        return number

    def cost() -> tuple[int, int]:
        """Return the minimum of several measurements: a garbage collection can add calls."""
        return min(calls(known) for _ in range(5)), min(calls(forge()) for _ in range(5))

    known = resident.tokens["access_token"]
    service.run(service.app.ctx.revocations.catch_up())
    identify(known)
    before = cost()
    for _ in range(2000):
        identify(forge())
    assert cost() == before


class NoRevocations:
    """Revocations that contain no ended session."""

    dropped_keys: ClassVar[set[str]] = set()

    def stale(self) -> bool:
        """Return that the revocation data is current."""
        return False

    def __contains__(self, _: str) -> bool:
        return False


def signer(*keys: str, now: float = 1_000_000.0, lifetime: int = 900) -> AccessTokens:
    return AccessTokens(
        [key.encode() for key in keys], issuers=[SLUG], audience=SLUG, lifetime_seconds=lifetime, clock=lambda: now
    )


def sign(tokens: AccessTokens) -> str:
    token, _ = tokens.encode(user_id=USER_ID, session_id=SESSION_ID, scopes=["user"], session_expires=2e9)
    return token


OLD, NEW, OTHER = (letter * 8 + "0123456789abcdefghijklmnopqrstuv" for letter in "onx")


def test_a_previous_key_still_verifies_and_the_new_key_signs() -> None:
    before, after = signer(OLD, now=time.time()), signer(NEW, OLD, now=time.time())
    assert after.decode(sign(before)).sid == SESSION_ID
    header = jwt.get_unverified_header(sign(after))
    assert header == {"alg": "HS256", "typ": "at+jwt", "kid": key_id(NEW.encode())}
    with pytest.raises(InvalidAccessToken):
        before.decode(sign(after))
    with pytest.raises(InvalidAccessToken):
        after.decode(sign(signer(OTHER, now=time.time())))


def test_the_key_id_must_identify_the_signing_key() -> None:
    """A token signed with the previous key that has the key id of the current one is forged."""
    both = signer(NEW, OLD, now=time.time())
    claims = jwt.decode(sign(both), NEW, ["HS256"], audience=SLUG)
    forged = jwt.encode(claims, OLD, "HS256", headers={"typ": "at+jwt", "kid": key_id(NEW.encode())})
    with pytest.raises(InvalidAccessToken):
        both.decode(forged)


def test_a_token_expires_to_the_second_without_leeway() -> None:
    tokens = signer(NEW, now=time.time())
    token = sign(tokens)
    request = SimpleNamespace(headers=Header({"authorization": f"Bearer {token}"}))
    expiry = tokens.decode(token).exp

    def at(now: float) -> Authenticator:
        return Authenticator(
            tokens,
            NoRevocations(),  # type: ignore[arg-type]
            freshness=Freshness(300),
            cookie_mode=NO_COOKIES,
            clock=lambda: now,
        )

    assert at(expiry - 0.001).authenticate(request).exp == expiry  # type: ignore[arg-type]
    with pytest.raises(Problem) as error:
        at(expiry).authenticate(request)  # type: ignore[arg-type]
    assert error.value.code == "token_expired"


def test_an_access_token_never_outlives_its_session() -> None:
    tokens = signer(NEW, now=1000.0)
    for session_expires, seconds in ((5000.0, 900), (1300.9, 300), (1000.2, 0), (10.0, 0)):
        assert (
            tokens.encode(user_id=USER_ID, session_id=SESSION_ID, scopes=[], session_expires=session_expires)[1]
            == seconds
        )


def test_a_lowered_lifetime_applies_to_tokens_already_issued() -> None:
    token = sign(signer(NEW, now=time.time(), lifetime=900))
    with pytest.raises(InvalidAccessToken):
        signer(NEW, now=time.time(), lifetime=60).decode(token)
