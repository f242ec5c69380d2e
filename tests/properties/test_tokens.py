"""Tests of generated tokens, settings and bodies: each is read correctly or rejected with the specified exception."""

import base64
import json
import string
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from sanic.compat import Header

from app.http.bodies import Body, read
from app.http.problems import Problem
from app.schemas.auth import Credentials, Refresh
from app.schemas.users import Deletion, PasswordChange, Registration, UserChange
from app.tokens.access import AccessTokens, InvalidAccessToken, Payload, key_id
from app.tokens.refresh import InvalidRefreshToken, RefreshTokens
from config import Config, ConfigurationError, load
from config.environments import ENVIRONMENTS
from config.product import SLUG
from tests.conftest import SESSION_ID, USER_ID
from tests.properties import repeatable

KEY, OLD_KEY, OTHER_KEY = (letter * 8 + b"0123456789abcdefghijklmnopqrstuv" for letter in (b"k", b"o", b"x"))
NOW = 1_800_000_000

any_text = st.text(st.characters())  # lone surrogates included
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner) | st.dictionaries(any_text, inner),
    max_leaves=8,
)


# Access tokens


def access_tokens(*keys: bytes, now: float = NOW, lifetime_seconds: int = 900) -> AccessTokens:
    return AccessTokens(keys, issuers=[SLUG], audience=SLUG, lifetime_seconds=lifetime_seconds, clock=lambda: now)


def signed(payload: Any) -> str:
    """Sign any payload with the key."""
    headers = {"typ": "at+jwt", "kid": key_id(KEY)}
    return jwt.PyJWS().encode(json.dumps(payload).encode(), KEY, "HS256", headers=headers)


CLAIMS = {
    "iss": SLUG,
    "aud": SLUG,
    "sub": USER_ID,
    "sid": SESSION_ID,
    "jti": "j",
    "iat": NOW,
    "exp": NOW + 900,
    "scopes": ["user"],
}
TOKEN = signed(CLAIMS)


def rejected(token: str, *keys: bytes) -> bool:
    """Return whether the access token is rejected; every other exception fails the test."""
    try:
        access_tokens(*keys or (KEY,)).decode(token)
    except InvalidAccessToken:
        return True
    return False


@given(
    user_id=st.text("0123456789abcdef", min_size=24, max_size=24),
    session_id=st.text(string.ascii_letters + string.digits + "-_", min_size=22, max_size=22),
    scopes=st.lists(st.text()),
    now=st.floats(0, 4e9),
    lifetime_seconds=st.integers(1, 3600),
    session_expires=st.floats(0, 4e9),
)
@repeatable(100)
def test_an_issued_access_token_decodes_to_its_claims(
    user_id: str, session_id: str, scopes: list[str], now: float, lifetime_seconds: int, session_expires: float
) -> None:
    before = access_tokens(OLD_KEY, now=now, lifetime_seconds=lifetime_seconds)
    after = access_tokens(KEY, OLD_KEY, now=now, lifetime_seconds=lifetime_seconds)
    for signer in (before, after):
        token, seconds = signer.encode(
            user_id=user_id, session_id=session_id, scopes=scopes, session_expires=session_expires
        )
        claims = after.decode(token)
        assert (claims.sub, claims.sid, claims.scopes) == (user_id, session_id, tuple(scopes))
        assert claims.exp - claims.iat == seconds <= lifetime_seconds
        assert seconds == 0 or claims.exp <= session_expires


@given(at=st.integers(0, len(TOKEN) - 1), replacement=st.characters(max_codepoint=127))
@repeatable(200)
def test_an_access_token_with_a_changed_character_is_rejected(at: int, replacement: str) -> None:
    assume(replacement != TOKEN[at])
    assert rejected(TOKEN[:at] + replacement + TOKEN[at + 1 :])


@given(at=st.integers(0, len(TOKEN)), added=st.text(st.characters(max_codepoint=127), min_size=1))
@repeatable(150)
def test_an_access_token_with_added_characters_is_rejected(at: int, added: str) -> None:
    assert rejected(TOKEN[:at] + added + TOKEN[at:])


@given(any_text | st.lists(any_text, min_size=3, max_size=3).map(".".join))
@repeatable(200)
def test_arbitrary_text_is_rejected_as_an_access_token(token: str) -> None:
    assert rejected(token)
    assert rejected(token, KEY, OLD_KEY)


@given(header=json_values, payload=json_values, mac=st.binary(max_size=64))
@repeatable(200)
def test_an_access_token_of_arbitrary_parts_is_rejected(header: Any, payload: Any, mac: bytes) -> None:
    parts = (json.dumps(header).encode(), json.dumps(payload).encode(), mac)
    assert rejected(".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts))


some_claims = st.dictionaries(st.sampled_from(list(Payload.model_fields)) | any_text, json_values)


@given(payload=some_claims | json_values, complete=st.booleans())
@repeatable(150)
def test_a_signed_payload_with_invalid_claims_is_rejected(payload: Any, complete: bool) -> None:
    """A signature is not sufficient: the claims must also be valid."""
    if complete and isinstance(payload, dict):
        payload = {**CLAIMS, **payload}
    token = signed(payload)
    if not rejected(token):
        claims = access_tokens(KEY).decode(token)
        assert claims.payload() == payload
        assert 0 <= claims.exp - claims.iat <= 900
        assert (claims.iss, claims.aud) == (CLAIMS["iss"], CLAIMS["aud"])


def test_a_signed_payload_with_an_object_as_scopes_is_rejected() -> None:
    assert rejected(signed({**CLAIMS, "scopes": {}}))


def test_a_signed_payload_with_valid_claims_is_accepted() -> None:
    """Otherwise the rejections above would prove nothing."""
    assert not rejected(TOKEN)


@given(st.binary(min_size=32), st.binary(min_size=32))
@repeatable(50)
def test_a_token_signed_with_another_key_is_rejected(one: bytes, other: bytes) -> None:
    # HMAC pads a short key with zeros, and hashes a key of more than 64 bytes.
    assume(one.rstrip(b"\0") != other.rstrip(b"\0"))
    token, _ = access_tokens(one).encode(user_id=USER_ID, session_id=SESSION_ID, scopes=[], session_expires=2e9)
    assert rejected(token, other)
    with pytest.raises(InvalidRefreshToken):
        RefreshTokens([other], product=SLUG).decode(RefreshTokens([one], product=SLUG).encode("s" * 22, 0))


# Refresh tokens

session_ids = st.from_regex(r"[A-Za-z0-9_-]{22}", fullmatch=True)
counters = st.integers(0, 9_999_999_999)
refresh_token_like = st.from_regex(r"[A-Za-z0-9_-]{22}\.[0-9]{1,10}\.[A-Za-z0-9_-]{43}", fullmatch=True)


@given(session_ids, counters)
@repeatable(100)
def test_a_refresh_token_decodes_to_its_session_and_counter(session_id: str, counter: int) -> None:
    for signer in (RefreshTokens([KEY], product=SLUG), RefreshTokens([OLD_KEY], product=SLUG)):
        token = signer.encode(session_id, counter)
        assert RefreshTokens([KEY, OLD_KEY], product=SLUG).decode(token) == (session_id, counter)
        with pytest.raises(InvalidRefreshToken):
            RefreshTokens([OTHER_KEY], product=SLUG).decode(token)


@given(any_text | refresh_token_like)
@repeatable(150)
def test_arbitrary_text_is_rejected_as_a_refresh_token(token: str) -> None:
    with pytest.raises(InvalidRefreshToken):
        RefreshTokens([KEY, OLD_KEY], product=SLUG).decode(token)


@given(session_ids, counters, st.integers(0, 100), any_text.filter(lambda text: len(text) < 3))
@repeatable(150)
def test_a_changed_refresh_token_is_rejected(session_id: str, counter: int, at: int, replacement: str) -> None:
    tokens = RefreshTokens([KEY], product=SLUG)
    token = tokens.encode(session_id, counter)
    at %= len(token)
    changed = token[:at] + replacement + token[at + 1 :]
    assume(changed != token)
    with pytest.raises(InvalidRefreshToken):
        tokens.decode(changed)


# Settings

MARKER = "hunter2"  # part of every secret
SETTINGS = sorted(Config.model_fields)
SECRETS = ["JWT_SECRET_KEY", "JWT_PREVIOUS_SECRET_KEYS", "MONGO_URI", "FORWARDED_SECRET"]
# Python decodes bytes that are not UTF-8 to surrogates; an environment variable cannot contain a null character.
environment_text = st.text(st.characters(exclude_characters="\0"))
secret_text = st.builds(
    str.__add__,
    st.sampled_from(["", "0123456789abcdef" * 2, "mongodb://", "mongodb://user:", "mongodb://db/x?", "mongodb+srv://"]),
    environment_text,
).map(lambda text: f"{text}{MARKER}")
environments = st.builds(
    lambda plain, secret, name: {
        **{f"APP_{setting}": value for setting, value in {**plain, **secret}.items()},
        **({"APP_ENV": name} if name is not None else {}),
    },
    st.dictionaries(st.sampled_from(SETTINGS) | environment_text, environment_text | st.integers().map(str)),
    st.dictionaries(st.sampled_from(SECRETS), secret_text),
    st.none() | st.sampled_from(sorted(ENVIRONMENTS)) | environment_text,
)
python_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | any_text
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(any_text, inner),
    max_leaves=4,
)
files = st.dictionaries(st.sampled_from(SETTINGS) | st.from_regex("[A-Z_]{1,9}", fullmatch=True), python_values).map(
    lambda values: "".join(f"{name} = {value!a}\n" for name, value in values.items()).encode()
)
secret_files = st.dictionaries(st.sampled_from(SECRETS), secret_text | st.lists(secret_text)).map(
    lambda values: "".join(f"{name} = {value!a}\n" for name, value in values.items()).encode()
)
not_python = st.binary().map(lambda noise: b"\xff" + noise + MARKER.encode())


@pytest.fixture(scope="module")
def instance_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of an instance file, which every example overwrites."""
    return tmp_path_factory.mktemp("instance") / "application.cfg"


@given(environments, files | secret_files | st.builds(bytes.__add__, files, secret_files) | not_python)
@example({}, b"REFRESH_TOKEN_SECONDS = 10**400\nSESSION_SECONDS = -(10**400)\n")
@repeatable(150)
def test_settings_give_a_configuration_or_one_error_without_secrets(
    instance_file: Path, environ: dict[str, str], content: bytes
) -> None:
    instance_file.write_bytes(content)
    try:
        output = repr(load(environ, instance_file))
    except ConfigurationError as error:
        output = "".join(traceback.format_exception(error))
    assert MARKER not in output


# Bodies

SCHEMAS: list[type[Body]] = [Registration, Credentials, Refresh, PasswordChange, Deletion, UserChange]
FIELDS = sorted({name for schema in SCHEMAS for name in schema.model_fields})
objects = st.dictionaries(st.sampled_from(FIELDS) | any_text, json_values)
valid_objects = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(FIELDS, st.text(max_size=70)),
        "username": st.from_regex("[A-Za-z0-9._-]{3,64}", fullmatch=True),
        "access": st.sampled_from(["guest", "user", "admin"]),
        "disabled": st.booleans(),
        "mode": st.just("cookie"),
    },
)


def read_body(schema: type[Body], body: bytes, content_type: str = "application/json") -> Body | None:
    """Return the body that was read, or None if it was rejected.

    The problem must be small and complete; every other exception fails the test.
    """
    request: Any = SimpleNamespace(body=body, headers=Header({"content-type": content_type}))
    try:
        return read(request, schema)
    except Problem as raised:
        problem = raised
    assert problem.status_code in (400, 415, 422)
    assert (problem.status_code == 422) == bool(problem.errors)
    assert len(json.dumps([error.model_dump() for error in problem.errors or []], ensure_ascii=False).encode()) < 5000
    return None


@given(
    st.sampled_from(SCHEMAS), st.binary() | any_text.map(lambda text: text.encode("utf-8", "surrogatepass")), any_text
)
@repeatable(200)
def test_malformed_bodies_are_rejected(schema: type[Body], body: bytes, content_type: str) -> None:
    assert read_body(schema, body) is None
    assert read_body(schema, body, content_type) is None


@given(st.sampled_from(SCHEMAS), objects | valid_objects | json_values)
@repeatable(200)
def test_a_body_is_read_exactly_as_sent_or_rejected(schema: type[Body], sent: Any) -> None:
    """No value is converted, trimmed or omitted."""
    body = read_body(schema, json.dumps(sent).encode())
    if body is not None:
        assert body.model_dump(exclude_unset=True) == sent


@given(st.data())
@repeatable(100)
def test_a_body_that_matches_its_schema_is_accepted(data: st.DataObject) -> None:
    schema = data.draw(st.sampled_from(SCHEMAS))
    sent = {name: value for name, value in data.draw(valid_objects).items() if name in schema.model_fields}
    required = [name for name, field in schema.model_fields.items() if field.is_required()]
    complete = sent and all(name in sent for name in required)
    assert (read_body(schema, json.dumps(sent).encode()) is not None) == bool(complete)
