"""Known attacks on JSON Web Tokens are rejected with 401 by both verifiers, and no key comes from a token."""

import base64
import hashlib
import hmac
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from verifiers.tests.fake_service import FEED, JWKS, Answer, FakeServer, FakeService, Json, Key, encode
from verifiers.tests.servers import EXAMPLES, STALE_SECONDS, TIMEOUT_SECONDS, bearer, running, until

REQUIRED = ("sub", "sid", "jti", "iat", "exp", "iss", "aud", "scopes")
TEXTS, TIMES = ("sub", "sid", "jti"), ("iat", "exp")


class Resource:
    """A resource server and the service whose tokens it accepts."""

    def __init__(self, service: FakeService, client: httpx.Client, command: list[str]) -> None:
        self.service, self.client, self.command = service, client, command

    def get(self, token: str | None = None, path: str = "/orders", **options: Any) -> httpx.Response:
        """Send a request, repeatedly while the verifier has no news because the machine is busy."""
        headers = options.pop("headers", bearer(token) if token is not None else {})
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while (response := self.client.get(path, headers=headers, **options)).status_code == 503:
            assert time.monotonic() < deadline
        return response

    def rejects(self, token: str) -> bool:
        """Return whether a token is rejected as invalid (RFC 6750 section 3.1, RFC 9457), without an echo of it."""
        response = self.get(headers={"Authorization": f"Bearer {token}".encode()})
        assert response.status_code == 401, response.status_code
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["www-authenticate"].startswith('Bearer error="invalid_token"')
        assert token[:20] not in response.text + str(response.headers) or len(token) < 20
        return bool(response.json()["code"] == "token_invalid")


@pytest.fixture(scope="module", params=EXAMPLES)
def resource(request: pytest.FixtureRequest) -> Iterator[Resource]:
    with FakeServer() as server:
        service = server.add("service")
        with running(EXAMPLES[request.param], server.url("service")) as client:
            yield Resource(service, client, EXAMPLES[request.param])


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256"])
def test_a_valid_token_is_accepted(resource: Resource, algorithm: str) -> None:
    """Otherwise the tests below would prove nothing."""
    service = resource.service
    token = service.token(key=service.key if algorithm == "EdDSA" else service.other_key, auth_time=1, amr=["otp"])
    response = resource.get(token)
    assert (response.status_code, response.json()) == (200, {"sub": "alice"})
    assert resource.get(headers={"Authorization": f"bearer   {token}"}).status_code == 200


def test_a_missing_token_is_401_without_an_error_code(resource: Resource) -> None:
    for headers in ({}, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer"}):
        response = resource.client.get("/orders", headers=headers)
        assert (response.status_code, response.json()["code"]) == (401, "token_missing")
        assert response.headers["www-authenticate"] == "Bearer"


def test_open_routes_need_no_token(resource: Resource) -> None:
    assert resource.client.get("/").status_code == 200
    assert resource.client.get("/", headers=bearer("a.b.c")).status_code == 200


def test_tokens_in_the_query_or_twice_are_not_accepted(resource: Resource) -> None:
    token = resource.service.token()
    assert resource.get(path=f"/orders?access_token={token}").status_code == 401
    twice = [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")]
    assert resource.get(headers=twice).status_code == 401


@pytest.mark.parametrize("name", REQUIRED)
def test_every_claim_is_required(resource: Resource, name: str) -> None:
    assert resource.rejects(resource.service.token(**{name: None}))


@pytest.mark.parametrize("value", [7, 1.5, True, [], ["a"], {"$ne": ""}], ids=repr)
def test_ids_must_be_strings(resource: Resource, value: Any) -> None:
    for name in TEXTS:
        assert resource.rejects(resource.service.token(**{name: value}))


@pytest.mark.parametrize("value", ["9999999999", 1.5, True, [], {}, 1e999, float("nan")], ids=repr)
def test_times_must_be_integers(resource: Resource, value: Any) -> None:
    for name in (*TIMES, "auth_time"):
        assert resource.rejects(resource.service.token(**{name: value}))


@pytest.mark.parametrize("value", ["admin", 7, {}, [7], [None], [["user"]]], ids=repr)
def test_scopes_must_be_a_list_of_strings(resource: Resource, value: Any) -> None:
    for name in ("scopes", "amr"):
        assert resource.rejects(resource.service.token(**{name: value}))


@pytest.mark.parametrize(
    "claim",
    [("iss", "http://other.test"), ("iss", ["http://issuer.test"]), ("iss", "http://issuer.test/"), ("aud", "invoices"),
     ("aud", ["orders"]), ("aud", ["orders", "invoices"]), ("aud", "")],
    ids=repr,
)  # fmt: skip
def test_other_issuers_and_audiences_are_rejected(resource: Resource, claim: tuple[str, Any]) -> None:
    assert resource.rejects(resource.service.token(**dict([claim])))


@pytest.mark.parametrize("typ", ["JWT", "revocations+jwt", "application/at+jwt", "AT+JWT", "", None, 7])
def test_other_types_are_rejected(resource: Resource, typ: Any) -> None:
    assert resource.rejects(resource.service.token(header={"typ": typ}))


@pytest.mark.parametrize("ago", [0, 1, 3600])
def test_expired_tokens_are_rejected_without_leeway(resource: Resource, ago: int) -> None:
    now = int(time.time())
    response = resource.get(resource.service.token(iat=now - 7200, exp=now - ago))
    assert (response.status_code, response.json()["code"]) == (401, "token_expired")


def test_a_token_expires_while_it_is_remembered(resource: Resource) -> None:
    token = resource.service.token(exp=int(time.time()) + 3)
    assert resource.get(token).status_code == 200
    until(lambda: resource.get(token).status_code == 401)
    assert resource.get(token).json()["code"] == "token_expired"


@pytest.mark.parametrize("spelling", ["none", "None", "nOnE", "", None, 0, [], {}])
def test_the_none_algorithm_is_rejected_in_every_spelling(resource: Resource, spelling: Any) -> None:
    _, body, signature = resource.service.token().split(".")
    head = encode({"alg": spelling, "kid": resource.service.key.kid, "typ": "at+jwt"})
    assert resource.rejects(f"{head}.{body}.")
    assert resource.rejects(f"{head}.{body}.{signature}")


def test_a_public_key_is_no_hmac_key(resource: Resource) -> None:
    """CVE-2016-10555."""
    for key in (resource.service.key, resource.service.other_key):
        _, body, _ = resource.service.token().split(".")
        head = encode({"alg": "HS256", "kid": key.kid, "typ": "at+jwt"})
        raw = base64.urlsafe_b64decode(key.jwk["x"] + "=")
        for secret in (raw, key.jwk["x"].encode(), json.dumps(key.jwk).encode(), key.pem()):
            mac = hmac.digest(secret, f"{head}.{body}".encode(), hashlib.sha256)
            assert resource.rejects(f"{head}.{body}.{encode(mac)}")


def test_the_key_selects_the_algorithm(resource: Resource) -> None:
    """Each key signs with its own algorithm under the other's id, and names its own or the other's algorithm."""
    one, other = resource.service.key, resource.service.other_key
    for signer, named in ((one, other), (other, one)):
        for algorithm in ("EdDSA", "ES256", "Ed25519", "ES384", "HS256", "RS256"):
            header = {"kid": named.kid, "alg": algorithm}
            assert resource.rejects(resource.service.token(key=signer, header=header))
            if algorithm != signer.algorithm:
                assert resource.rejects(resource.service.token(key=signer, header={"alg": algorithm}))


@pytest.mark.parametrize(
    "kid",
    ["", "../../../../dev/null", "/dev/null", "| sleep 10", "x' UNION SELECT '1';--", "http://127.0.0.1:1/", 0, {}],
)
def test_a_key_id_cannot_inject_a_key(resource: Resource, kid: Any) -> None:
    assert resource.rejects(resource.service.token(key=Key(), header={"kid": kid}))
    _, body, _ = resource.service.token().split(".")
    head = encode({"alg": "HS256", "kid": kid, "typ": "at+jwt"})
    assert resource.rejects(f"{head}.{body}.{encode(hmac.digest(b'', f'{head}.{body}'.encode(), hashlib.sha256))}")


def test_an_embedded_key_is_not_trusted(resource: Resource) -> None:
    key = Key()
    for header in ({"jwk": key.jwk}, {"jwk": key.jwk, "kid": resource.service.key.kid}, {"x5c": [key.jwk["x"]]}):
        assert resource.rejects(resource.service.token(key=key, header=header))


@pytest.mark.parametrize("name", ["jku", "x5u"])
def test_key_urls_are_not_fetched(resource: Resource, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        header = {name: f"http://127.0.0.1:{listener.getsockname()[1]}/keys"}
        assert resource.rejects(resource.service.token(key=Key(), header=header))
        resource.get(resource.service.token(header=header))  # the right key: the header has no meaning
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize("extra", [{"crit": ["exp"]}, {"crit": []}, {"crit": "b64"}, {"crit": ["b64"], "b64": False}])
def test_unknown_critical_headers_are_rejected(resource: Resource, extra: Json) -> None:
    """RFC 7515 section 4.1.11."""
    assert resource.rejects(resource.service.token(header=extra))


def test_malformed_tokens_are_rejected(resource: Resource) -> None:
    good = resource.service.token()
    head, body, signature = good.split(".")
    for forged in (
        "a.b.c", "...", f"{head}.{body}", f"{head}.{body}.", f"{good}.x", f"{good}.x.y", f"{body}.{head}.{signature}",
        f"{head}.{body}.{encode(bytes(64))}", f"{head}.{encode(b'[]')}.{signature}", "a" * 5000, ".x" * 2000,
        f"{good} {good}",
        f"{encode(b'[' * 2500 + b']' * 2500)}.{body}.{signature}", f"{good}\u00e9", f"{head}.{body}.{signature[:-4]}",
    ):  # fmt: skip
        assert resource.rejects(forged)


def test_a_private_or_symmetric_key_in_the_set_is_not_used(resource: Resource) -> None:
    """Everybody could sign with it."""
    with FakeServer() as server:
        service, private, wrong_use = server.add("service"), Key(), Key()
        secret = {"kty": "oct", "k": encode(b"secret" * 6), "kid": "oct", "alg": "HS256", "use": "sig"}
        encryption = {**wrong_use.jwk, "use": "enc"}
        service.published = [private.private_jwk(), secret, encryption, *service.published]
        with running(resource.command, server.url("service")) as client:
            other = Resource(service, client, resource.command)
            assert other.get(service.token()).status_code == 200
            assert other.rejects(service.token(key=private))
            assert other.rejects(service.token(key=wrong_use))
            _, body, _ = service.token().split(".")
            signed = f"{encode({'alg': 'HS256', 'kid': 'oct', 'typ': 'at+jwt'})}.{body}"
            assert other.rejects(f"{signed}.{encode(hmac.digest(b'secret' * 6, signed.encode(), hashlib.sha256))}")


def test_unknown_keys_cause_no_flood_and_do_not_delay_known_ones(resource: Resource) -> None:
    service, good = resource.service, resource.service.token()
    assert resource.get(good).status_code == 200

    async def without_keys(service: FakeService, path: str, query: dict[str, str]) -> Answer:
        return Answer(status=500) if path == JWKS else await service.honest(path, query)

    service.fault = without_keys
    before = len([path for path, _ in service.requests if path == JWKS])
    for _ in range(50):
        assert resource.rejects(service.token(key=Key()))
        assert resource.get(good).status_code == 200
    service.fault = None
    assert len([path for path, _ in service.requests if path == JWKS]) - before <= 1


def test_requests_cause_no_calls(resource: Resource) -> None:
    service, tokens = resource.service, [resource.service.token() for _ in range(100)]
    assert resource.get(tokens[0]).status_code == 200
    began, before = time.monotonic(), len(service.requests)
    for token in tokens * 3:
        assert resource.get(token).status_code == 200
    elapsed = time.monotonic() - began
    background = elapsed / STALE_SECONDS * (4 + 10) + 3
    assert len(service.requests) - before <= min(background, 100)


def test_an_ended_session_is_rejected_at_once_and_no_other(resource: Resource) -> None:
    service = resource.service
    ended, sibling = service.token(sid="a session"), service.token(sid="another session")
    assert resource.get(ended).status_code == resource.get(sibling).status_code == 200
    service.end("a session")
    began = time.monotonic()
    until(lambda: resource.get(ended).status_code == 401)
    assert time.monotonic() - began < STALE_SECONDS + 1
    assert resource.get(ended).json()["code"] == "session_ended"
    assert resource.get(service.token(sid="a session")).json()["code"] == "session_ended"
    assert resource.get(sibling).status_code == 200


def test_tokens_of_a_dropped_key_are_rejected(resource: Resource) -> None:
    service = resource.service
    token = service.token(key=service.other_key)
    assert resource.get(token).status_code == 200
    service.dropped = [service.other_key.kid]
    service.end("any")  # a long poll waits for news of either kind
    until(lambda: resource.get(token).status_code == 401)
    assert resource.rejects(token)
    assert resource.rejects(service.token(key=service.other_key))
    service.dropped = []  # a worker that does not know yet
    service.end("another")
    until(lambda: service.requests[-1][0] == FEED)
    assert resource.rejects(token)
    assert resource.get(service.token()).status_code == 200
