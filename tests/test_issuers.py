"""The issuer is a setting, and can be changed without ending sessions."""

import time
from collections.abc import Callable

import pytest

from app.tokens.access import NEVER, AccessTokens, InvalidAccessToken
from config import Config
from config.product import SLUG
from tests.conftest import SESSION_ID, USER_ID, Actor, Service

KEY = b"0123456789abcdefghijklmnopqrstuvwxyz"


def tokens(*issuers: str) -> AccessTokens:
    return AccessTokens([KEY], issuers=issuers, audience=SLUG, lifetime_seconds=900)


def encode(of: AccessTokens) -> str:
    expires = time.time() + 1000
    return of.encode(user_id=USER_ID, session_id=SESSION_ID, scopes=["user"], session_expires=expires)[0]


def test_the_first_issuer_signs_and_previous_ones_verify() -> None:
    old, new = tokens("https://old.example"), tokens("https://new.example", "https://old.example")
    assert new.decode(encode(new)).iss == "https://new.example"
    assert new.decode(encode(old)).iss == "https://old.example"
    with pytest.raises(InvalidAccessToken):
        old.decode(encode(new))


def test_tokens_of_another_deployment_with_the_same_key_are_rejected(config: Config, alice: Actor) -> None:
    """A staging system that shares the production key is another issuer."""
    staging = config.model_copy(update={"ISSUER": "https://staging.example"})
    with Service(staging) as service:
        assert service("GET", "/tests/secret", token=alice.tokens["access_token"]).status_code == 401
    both = config.model_copy(update={"ISSUER": "https://staging.example", "PREVIOUS_ISSUERS": [config.issuers[0]]})
    with Service(both) as service:
        assert service("GET", "/tests/secret", token=alice.tokens["access_token"]).status_code == 200


def test_claims_of_later_releases_are_accepted_but_not_required(forge: Callable[..., str], service: Service) -> None:
    """During a rolling update, machines of a later release issue tokens with auth_time and amr (RFC 8176)."""
    assert service("GET", "/auth/verify", token=forge({"auth_time": 1_700_000_000, "amr": ["pwd", "otp"]})).is_success
    for wrong in ({"auth_time": "now"}, {"auth_time": 1.5}, {"amr": "pwd"}, {"amr": [1]}):
        assert service("GET", "/auth/verify", token=forge(wrong)).status_code == 401


def test_a_token_without_them_was_authenticated_by_password_and_never_freshly() -> None:
    claims = tokens(SLUG).decode(encode(tokens(SLUG)))
    assert (claims.auth_time, claims.amr) == (NEVER, ("pwd",))
