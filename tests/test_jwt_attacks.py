"""Known attacks on JSON Web Tokens are rejected with 401, and no key comes from a token."""

import base64
import hashlib
import hmac
import json
import socket
from typing import Any

import pytest

from app.tokens.access import key_id
from config import Config
from config.keys import EXAMPLE_JWT_SECRET_KEY
from tests.conftest import Actor, Document, Service

# Attackers know public keys. A vulnerable library uses the text of one as an HMAC key (CVE-2016-10555).
PUBLIC_KEY = """-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEVs/o5+uQbTjL3chynL4wXgUg2R9
q9UU8I5mEovUf86QZ7kOBIjJwqnzD1omageEHWwHdBO6B+dFabmdT9POxg==
-----END PUBLIC KEY-----
"""
# From the word lists of jwt_tool and wallarm's jwt-secrets.
WELL_KNOWN = ["", "secret", "password", "your-256-bit-secret", "This is a big secret. Shhhhh", "null", "0", "changeme"]


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(header: Document | bytes, claims: Document | bytes, key: bytes, digest: str = "sha256") -> str:
    """Sign any header and claims with any key."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)]
    signed = ".".join(encode(part) for part in parts)
    return f"{signed}.{encode(hmac.digest(key, signed.encode(), digest))}"


@pytest.fixture(scope="module")
def key(config: Config) -> bytes:
    """Return the right key, for tokens that are invalid in another way."""
    return config.JWT_SECRET_KEY.encode()


@pytest.fixture(scope="module")
def header(key: bytes) -> Document:
    """Return the right header."""
    return {"alg": "HS256", "typ": "at+jwt", "kid": key_id(key)}


def rejected(service: Service, forged: str) -> bool:
    """Return whether the protected route rejects a token as invalid."""
    response = service("GET", "/tests/secret", headers={"Authorization": f"Bearer {forged}".encode()})
    return response.status_code == 401 and response.json()["code"] == "token_invalid"


def test_a_token_with_the_right_header_claims_and_key_is_accepted(
    service: Service, resident: Actor, header: Document, key: bytes
) -> None:
    """Otherwise the tests below would prove nothing."""
    claims = json.dumps(resident.claims, separators=(",", ":")).encode()
    assert service("GET", "/tests/secret", token=token(header, claims, key)).status_code == 200


@pytest.mark.parametrize("spelling", ["none", "None", "NONE", "nOnE", "none ", "", "null", None, 0, [], {}])
def test_the_none_algorithm_is_rejected_in_every_spelling(
    service: Service, resident: Actor, header: Document, spelling: Any
) -> None:
    body = encode(json.dumps(resident.claims).encode())
    head = encode(json.dumps({**header, "alg": spelling}).encode())
    assert rejected(service, f"{head}.{body}.")
    assert rejected(service, f"{head}.{body}.{resident.tokens['access_token'].split('.')[2]}")


@pytest.mark.parametrize("algorithm", ["HS384", "HS512", "RS256", "ES256", "PS256", "EdDSA", "hs256"])
def test_other_algorithms_are_rejected_even_with_the_right_key(
    service: Service, resident: Actor, header: Document, key: bytes, algorithm: str
) -> None:
    digest = {"HS384": "sha384", "HS512": "sha512"}.get(algorithm, "sha256")
    assert rejected(service, token({**header, "alg": algorithm}, resident.claims, key, digest))


@pytest.mark.parametrize("change", [str, str.strip, lambda text: text.replace("\n", "\r\n"), lambda text: text + "\n"])
def test_a_public_key_used_as_an_hmac_key_is_rejected(
    service: Service, resident: Actor, header: Document, change: Any
) -> None:
    assert rejected(service, token(header, resident.claims, change(PUBLIC_KEY).encode()))


@pytest.mark.parametrize("guess", [*WELL_KNOWN, EXAMPLE_JWT_SECRET_KEY], ids=lambda guess: guess[:12] or "empty")
def test_well_known_keys_are_rejected(service: Service, resident: Actor, header: Document, guess: str) -> None:
    assert rejected(service, token(header, resident.claims, guess.encode()))
    kid = key_id(guess.encode())
    assert rejected(service, token({**header, "kid": kid}, resident.claims, guess.encode()))


@pytest.mark.parametrize(
    "kid", ["", "../../../../dev/null", "/dev/null", "| sleep 10", "x' UNION SELECT '1';--", {"$ne": None}, 0, None]
)
def test_a_key_id_cannot_inject_a_key(service: Service, resident: Actor, header: Document, kid: Any) -> None:
    """It selects neither a file nor a database row. An empty file would be an empty key."""
    assert rejected(service, token({**header, "kid": kid}, resident.claims, b""))
    assert rejected(service, token({**header, "kid": kid}, resident.claims, b"1"))


def test_a_key_embedded_in_the_token_is_not_trusted(service: Service, resident: Actor, header: Document) -> None:
    jwk = {"kty": "oct", "k": encode(b"attacker"), "alg": "HS256"}
    assert rejected(service, token({**header, "jwk": jwk}, resident.claims, b"attacker"))


@pytest.mark.parametrize("name", ["jku", "x5u", "x5c"])
def test_key_urls_in_a_token_are_not_fetched(service: Service, resident: Actor, header: Document, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/keys"
        assert rejected(service, token({**header, name: address}, resident.claims, b"attacker"))
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize("extra", [{"crit": ["exp"]}, {"crit": []}, {"crit": "b64"}, {"crit": ["b64"], "b64": False}])
def test_unknown_critical_headers_are_rejected(
    service: Service, resident: Actor, header: Document, key: bytes, extra: Document
) -> None:
    """RFC 7515 section 4.1.11."""
    assert rejected(service, token({**header, **extra}, resident.claims, key))


def test_duplicate_names_are_rejected(service: Service, resident: Actor, header: Document, key: bytes) -> None:
    claims = json.dumps(resident.claims, separators=(",", ":")).encode()
    twice = claims.replace(b'{"', b'{"sub":"another user","', 1)
    assert rejected(service, token(header, twice, key))
    head = json.dumps(header).encode().replace(b"{", b'{"alg":"none",', 1)
    assert rejected(service, token(head, claims, b"attacker"))


@pytest.mark.parametrize(
    "payload",
    [b"", b"null", b"[]", b'"text"', b"7", b"{", b"\xff", b'{"sub":' + b"[" * 2500 + b"]" * 2500 + b"}", b"NaN"],
    ids=lambda payload: payload[:8].decode("latin-1"),
)
def test_a_signed_payload_that_is_not_an_object_is_rejected(
    service: Service, header: Document, key: bytes, payload: bytes
) -> None:
    assert rejected(service, token(header, payload, key))


@pytest.mark.parametrize("head", [b"", b"null", b"[]", b"{", b"\xff", b"[" * 2500 + b"]" * 2500, b'{"alg":"HS256"}'])
def test_an_invalid_header_is_rejected(service: Service, resident: Actor, key: bytes, head: bytes) -> None:
    assert rejected(service, token(head, resident.claims, key))


@pytest.mark.parametrize("name", ["exp", "iat"])
@pytest.mark.parametrize("value", ["1", 1.5, True, None, [], {}, 1e999, 10**40, -(10**40)], ids=repr)
def test_times_must_be_integers_in_range(
    service: Service, resident: Actor, header: Document, key: bytes, name: str, value: Any
) -> None:
    assert rejected(service, token(header, {**resident.claims, name: value}, key))


def test_missing_truncated_and_foreign_signatures_are_rejected(service: Service, resident: Actor) -> None:
    head, body, signature = resident.tokens["access_token"].split(".")
    for forged in (
        f"{head}.{body}.",
        f"{head}.{body}.{encode(bytes(32))}",
        f"{head}.{body}.{signature[:-4]}",
        f"{head}.{body}.{signature}.{signature}",
        f"{head}.{body}.{signature}.x.y",
        f"{head}..{signature}",
        f".{body}.{signature}",
        f"{body}.{head}.{signature}",
        f"{head}.{body}.{encode(hashlib.sha256(b'').digest())}",
    ):
        assert rejected(service, forged)


@pytest.mark.parametrize(
    "signature", [bytes(64), bytes.fromhex("3006020100020100"), b"\x01" * 64], ids=["zeros", "zeros in DER", "ones"]
)
@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "HS256"])
def test_psychic_signatures_are_rejected(
    service: Service, resident: Actor, header: Document, algorithm: str, signature: bytes
) -> None:
    """A vulnerable ECDSA implementation accepts a signature of zeros (CVE-2022-21449)."""
    head, body = (encode(json.dumps(part).encode()) for part in ({**header, "alg": algorithm}, resident.claims))
    assert rejected(service, f"{head}.{body}.{encode(signature)}")


def test_oversized_and_malformed_tokens_are_rejected(service: Service, resident: Actor) -> None:
    good = resident.tokens["access_token"]
    for forged in ("a" * 7000, ".x" * 3000, good + "\u00e9", "\U0001f512", "{}", good.replace(".", "\u3002")):
        assert rejected(service, forged)
    too_long = service("GET", "/tests/secret", headers={"Authorization": "Bearer " + "a" * 20_000})
    assert too_long.status_code in (400, 413, 431)
