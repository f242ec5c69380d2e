"""Whatever comes in as a token, a setting or a body is taken as it was meant, or refused in the one way there is."""

import base64
import json
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
from app.security.access_tokens import AccessTokens, Claims, InvalidAccessToken, key_id
from app.security.refresh_tokens import InvalidRefreshToken, RefreshTokens
from config import Config, ConfigurationError, load
from config.environments import ENVIRONMENTS
from tests.properties import repeatable

KEY, OLD_KEY, OTHER_KEY = (letter * 8 + b"0123456789abcdefghijklmnopqrstuv" for letter in (b"k", b"o", b"x"))
NOW = 1_800_000_000

anything = st.text(st.characters())  # lone surrogates included
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | anything,
    lambda inner: st.lists(inner) | st.dictionaries(anything, inner),
    max_leaves=8,
)


# Access tokens


def access_tokens(*keys: bytes, now: float = NOW, lifetime_seconds: int = 900) -> AccessTokens:
    return AccessTokens(keys, issuers=["sanic-api-demo"], lifetime_seconds=lifetime_seconds, clock=lambda: now)


def signed(payload: Any) -> str:
    """Sign anything, as only a holder of the key can."""
    headers = {"typ": "at+jwt", "kid": key_id(KEY)}
    return jwt.PyJWS().encode(json.dumps(payload).encode(), KEY, "HS256", headers=headers)


CLAIMS = {
    "iss": "sanic-api-demo",
    "aud": "sanic-api-demo",
    "sub": "u",
    "sid": "s",
    "jti": "j",
    "iat": NOW,
    "exp": NOW + 900,
    "scopes": ["user"],
}
A_TOKEN = signed(CLAIMS)


def refused(token: str, *keys: bytes) -> bool:
    """Tell whether the token is refused; every other exception fails the test."""
    try:
        access_tokens(*keys or (KEY,)).decode(token)
    except InvalidAccessToken:
        return True
    return False


@given(
    user_id=st.text(),
    session_id=st.text(),
    scopes=st.lists(st.text()),
    now=st.floats(0, 4e9),
    lifetime_seconds=st.integers(1, 3600),
    session_expires=st.floats(0, 4e9),
)
@repeatable(100)
def test_what_is_signed_is_verified_and_says_what_it_was_given(
    user_id: str, session_id: str, scopes: list[str], now: float, lifetime_seconds: int, session_expires: float
) -> None:
    before = access_tokens(OLD_KEY, now=now, lifetime_seconds=lifetime_seconds)
    after = access_tokens(KEY, OLD_KEY, now=now, lifetime_seconds=lifetime_seconds)
    for signer in (before, after):
        token, seconds = signer.encode(
            user_id=user_id, session_id=session_id, scopes=scopes, session_expires=session_expires
        )
        claims = after.decode(token)
        assert (claims.sub, claims.sid, claims.scopes) == (user_id, session_id, scopes)
        assert claims.exp - claims.iat == seconds <= lifetime_seconds
        assert seconds == 0 or claims.exp <= session_expires


@given(at=st.integers(0, len(A_TOKEN) - 1), instead=st.characters(max_codepoint=127))
@repeatable(200)
def test_an_access_token_with_another_character_is_refused(at: int, instead: str) -> None:
    assume(instead != A_TOKEN[at])
    assert refused(A_TOKEN[:at] + instead + A_TOKEN[at + 1 :])


@given(at=st.integers(0, len(A_TOKEN)), more=st.text(st.characters(max_codepoint=127), min_size=1))
@repeatable(150)
def test_an_access_token_with_a_character_too_many_is_refused(at: int, more: str) -> None:
    assert refused(A_TOKEN[:at] + more + A_TOKEN[at:])


@given(anything | st.lists(anything, min_size=3, max_size=3).map(".".join))
@repeatable(200)
def test_text_that_is_no_access_token_is_refused(token: str) -> None:
    assert refused(token)
    assert refused(token, KEY, OLD_KEY)


@given(header=json_values, payload=json_values, mac=st.binary(max_size=64))
@repeatable(200)
def test_what_looks_like_an_access_token_is_refused(header: Any, payload: Any, mac: bytes) -> None:
    parts = (json.dumps(header).encode(), json.dumps(payload).encode(), mac)
    assert refused(".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts))


some_claims = st.dictionaries(st.sampled_from(list(Claims.model_fields)) | anything, json_values)


@given(payload=some_claims | json_values, complete=st.booleans())
@repeatable(150)
def test_a_payload_that_is_not_as_ours_is_refused_although_the_key_is_right(payload: Any, complete: bool) -> None:
    """Even the key's holder can only make tokens of our form."""
    if complete and isinstance(payload, dict):
        payload = {**CLAIMS, **payload}
    token = signed(payload)
    if not refused(token):
        claims = access_tokens(KEY).decode(token)
        assert claims.model_dump(exclude_unset=True) == payload
        assert 0 <= claims.exp - claims.iat <= 900
        assert (claims.iss, claims.aud) == (CLAIMS["iss"], CLAIMS["aud"])


def test_scopes_that_are_an_object_are_refused_although_the_key_is_right() -> None:
    assert refused(signed({**CLAIMS, "scopes": {}}))


def test_a_signed_token_of_our_form_is_accepted() -> None:
    """Else the refusals above would show nothing."""
    assert not refused(A_TOKEN)


@given(st.binary(min_size=32), st.binary(min_size=32))
@repeatable(50)
def test_a_token_of_another_key_is_refused(one: bytes, other: bytes) -> None:
    # HMAC fills a short key up with zeros and hashes one of more than 64 bytes.
    assume(one.rstrip(b"\0") != other.rstrip(b"\0"))
    token, _ = access_tokens(one).encode(user_id="u", session_id="s", scopes=[], session_expires=2e9)
    assert refused(token, other)
    with pytest.raises(InvalidRefreshToken):
        RefreshTokens([other]).decode(RefreshTokens([one]).encode("s" * 22, 0))


# Refresh tokens

session_ids = st.from_regex(r"[A-Za-z0-9_-]{22}", fullmatch=True)
counters = st.integers(0, 9_999_999_999)
like_refresh_tokens = st.from_regex(r"[A-Za-z0-9_-]{22}\.[0-9]{1,10}\.[A-Za-z0-9_-]{43}", fullmatch=True)


@given(session_ids, counters)
@repeatable(100)
def test_a_refresh_token_says_what_it_was_given(session_id: str, counter: int) -> None:
    for signer in (RefreshTokens([KEY]), RefreshTokens([OLD_KEY])):
        token = signer.encode(session_id, counter)
        assert RefreshTokens([KEY, OLD_KEY]).decode(token) == (session_id, counter)
        with pytest.raises(InvalidRefreshToken):
            RefreshTokens([OTHER_KEY]).decode(token)


@given(anything | like_refresh_tokens)
@repeatable(150)
def test_any_other_text_is_no_refresh_token(token: str) -> None:
    with pytest.raises(InvalidRefreshToken):
        RefreshTokens([KEY, OLD_KEY]).decode(token)


@given(session_ids, counters, st.integers(0, 100), anything.filter(lambda text: len(text) < 3))
@repeatable(150)
def test_a_changed_refresh_token_is_refused(session_id: str, counter: int, at: int, instead: str) -> None:
    tokens = RefreshTokens([KEY])
    token = tokens.encode(session_id, counter)
    at %= len(token)
    changed = token[:at] + instead + token[at + 1 :]
    assume(changed != token)
    with pytest.raises(InvalidRefreshToken):
        tokens.decode(changed)


# Settings

MARK = "hunter2"
SETTINGS = sorted(Config.model_fields)
SECRETS = ["JWT_SECRET_KEY", "JWT_PREVIOUS_SECRET_KEYS", "MONGO_URI", "FORWARDED_SECRET"]
# The environment's bytes that are no UTF-8 are surrogates, and no value holds a zero.
environment_text = st.text(st.characters(exclude_characters="\0"))
secret_text = st.builds(
    str.__add__,
    st.sampled_from(["", "0123456789abcdef" * 2, "mongodb://", "mongodb://user:", "mongodb://db/x?", "mongodb+srv://"]),
    environment_text,
).map(lambda text: f"{text}{MARK}")
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
    | anything
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(anything, inner),
    max_leaves=4,
)
files = st.dictionaries(st.sampled_from(SETTINGS) | st.from_regex("[A-Z_]{1,9}", fullmatch=True), python_values).map(
    lambda values: "".join(f"{name} = {value!a}\n" for name, value in values.items()).encode()
)
secret_files = st.dictionaries(st.sampled_from(SECRETS), secret_text | st.lists(secret_text)).map(
    lambda values: "".join(f"{name} = {value!a}\n" for name, value in values.items()).encode()
)
not_python = st.binary().map(lambda noise: b"\xff" + noise + MARK.encode())


@pytest.fixture(scope="module")
def instance_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the path of an instance file, which every example writes anew."""
    return tmp_path_factory.mktemp("instance") / "application.cfg"


@given(environments, files | secret_files | st.builds(bytes.__add__, files, secret_files) | not_python)
@example({}, b"REFRESH_TOKEN_SECONDS = 10**400\nSESSION_SECONDS = -(10**400)\n")
@repeatable(150)
def test_settings_make_a_configuration_or_one_message_without_a_secret(
    instance_file: Path, environ: dict[str, str], content: bytes
) -> None:
    instance_file.write_bytes(content)
    try:
        told = repr(load(environ, instance_file))
    except ConfigurationError as error:
        told = "".join(traceback.format_exception(error))
    assert MARK not in told


# Bodies

SHAPES: list[type[Body]] = [Registration, Credentials, Refresh, PasswordChange, Deletion, UserChange]
FIELDS = sorted({name for shape in SHAPES for name in shape.model_fields})
objects = st.dictionaries(st.sampled_from(FIELDS) | anything, json_values)
valid_objects = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(FIELDS, st.text(max_size=70)),
        "username": st.from_regex("[A-Za-z0-9._-]{3,64}", fullmatch=True),
        "access": st.sampled_from(["guest", "user", "admin"]),
        "disabled": st.booleans(),
    },
)


def read_body(shape: type[Body], body: bytes, content_type: str = "application/json") -> Body | None:
    """Read the body, or show that the refusal can be sent; every other exception fails the test."""
    request: Any = SimpleNamespace(body=body, headers=Header({"content-type": content_type}))
    try:
        return read(request, shape)
    except Problem as refusal:
        problem = refusal
    assert problem.status_code in (400, 415, 422)
    assert (problem.status_code == 422) == bool(problem.errors)
    assert len(json.dumps([error.model_dump() for error in problem.errors or []], ensure_ascii=False).encode()) < 5000
    return None


@given(
    st.sampled_from(SHAPES), st.binary() | anything.map(lambda text: text.encode("utf-8", "surrogatepass")), anything
)
@repeatable(200)
def test_bytes_that_are_no_body_are_refused(shape: type[Body], body: bytes, content_type: str) -> None:
    assert read_body(shape, body) is None
    assert read_body(shape, body, content_type) is None


@given(st.sampled_from(SHAPES), objects | valid_objects | json_values)
@repeatable(200)
def test_a_body_is_read_exactly_as_it_was_sent_or_refused(shape: type[Body], sent: Any) -> None:
    """Nothing is converted, trimmed or left out."""
    read_as = read_body(shape, json.dumps(sent).encode())
    if read_as is not None:
        assert read_as.model_dump(exclude_unset=True) == sent


@given(st.data())
@repeatable(100)
def test_a_body_of_the_right_shape_is_taken(data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from(SHAPES))
    sent = {name: value for name, value in data.draw(valid_objects).items() if name in shape.model_fields}
    required = [name for name, field in shape.model_fields.items() if field.is_required()]
    complete = sent and all(name in sent for name in required)
    assert (read_body(shape, json.dumps(sent).encode()) is not None) == bool(complete)
