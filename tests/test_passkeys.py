"""Passkeys: registration, logins without a name, as a second factor and for step-up; and attacks on them."""

import secrets
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from prometheus_client import REGISTRY
from pymongo.database import Database

from app.models.factors import MOST_PASSKEYS
from config import Config
from tests.authenticator import Authenticator, text
from tests.conftest import PASSWORD, Document, Service, drop_database
from tests.factors import Member, stored_of
from tests.interleaving import Held, race
from tests.mail import NEW_PASSWORD
from tests.mailbox import Mailbox, token, with_mail
from tests.published import URL, with_keys


@pytest.fixture(scope="module")
def site(config: Config, mailbox: Mailbox) -> Iterator[Service]:
    """Run a service with passkeys."""
    with Service(with_keys(with_mail(config, mailbox), "passkeys", JWT_ALGORITHM="HS256")) as service:
        yield service
    drop_database(service.config.MONGO_URI)


@pytest.fixture
def stored(site: Service, database: Database[Document]) -> Database[Document]:
    """Return the database of the service."""
    return stored_of(site, database)


@pytest.fixture
def newcomer(site: Service, mailbox: Mailbox) -> Member:
    """Return a user without a second factor."""
    return Member.verified(site, mailbox)


def options_to_add(member: Member) -> dict[str, Any]:
    """Return the options of a registration."""
    response = member.post("/users/me/passkeys/options")
    assert response.status_code == 200, response.text
    return dict(response.json())


def add(member: Member, passkey: Authenticator | None = None, options: dict[str, Any] | None = None) -> httpx.Response:
    """Register a passkey."""
    passkey = passkey or Authenticator(URL)
    body = {"passkey": passkey.create(options or options_to_add(member)), "name": "My phone"}
    response = member.post("/users/me/passkeys", body)
    if response.status_code == 201:
        member.recovery_codes = response.json().get("recovery_codes") or member.recovery_codes
    return response


def options(service: Service, member: Member | None = None) -> dict[str, Any]:
    """Return the options of a login, or of a step-up of a user's session."""
    access = member.tokens["access_token"] if member else None
    response = service("POST", "/auth/passkey/options", token=access)
    assert response.status_code == 200, response.text
    return dict(response.json())


def log_in(service: Service, passkey: Authenticator, given: dict[str, Any] | None = None) -> httpx.Response:
    """Log in with a passkey."""
    given = given or options(service)
    body = {"challenge": given["challenge"], "passkey": passkey.get(given)}
    return service("POST", "/auth/passkey", json=body)


def step_up(member: Member, passkey: Authenticator) -> httpx.Response:
    """Authenticate again with a passkey."""
    return member.step_up(passkey=passkey.get(options(member.service, member)))


@pytest.fixture
def passkey() -> Authenticator:
    """Return an authenticator."""
    return Authenticator(URL)


@pytest.fixture
def member(newcomer: Member, passkey: Authenticator) -> Member:
    """Return a user with this passkey."""
    assert add(newcomer, passkey).status_code == 201
    return newcomer


def refused(response: httpx.Response, status: int = 401, code: str = "second_factor_invalid") -> bool:
    """Return whether a response is this refusal."""
    return (response.status_code, response.json().get("code")) == (status, code)


def test_a_first_passkey_comes_with_recovery_codes_and_ends_other_sessions(newcomer: Member) -> None:
    other = newcomer.log_in()
    response = add(newcomer)
    assert response.status_code == 201, response.text
    assert response.json()["name"] == "My phone"
    assert len(response.json()["recovery_codes"]) == 10
    assert newcomer.secret_status == 200
    assert other.secret_status == 401
    assert newcomer.get("/users/me/factors").json() == {"totp": False, "passkeys": 1, "recovery_codes_left": 10}
    listed = newcomer.get("/users/me/passkeys").json()["passkeys"]
    assert [one["id"] for one in listed] == [response.json()["id"]]
    assert newcomer.mails(subject="second factor was added")


def test_the_options_of_a_registration_are_those_of_the_settings(newcomer: Member) -> None:
    headers = {"Host": "evil.example", "Origin": "https://evil.example", "X-Forwarded-Host": "evil.example"}
    access = newcomer.tokens["access_token"]
    given = newcomer.service("POST", "/users/me/passkeys/options", token=access, headers=headers).json()
    assert given["rp"]["id"] == "demo.example"
    assert given["attestation"] == "none"
    assert given["authenticatorSelection"]["residentKey"] == "required"
    assert [one["alg"] for one in given["pubKeyCredParams"]] == [-7, -8, -257]
    assert len(given["user"]["id"]) == 43
    assert newcomer.claims["sub"] not in str(given)
    assert given["user"]["id"] == options_to_add(newcomer)["user"]["id"], "the handle of a user stays the same"


def test_a_passkey_logs_in_without_a_name_or_password(member: Member, passkey: Authenticator) -> None:
    response = log_in(member.service, passkey)
    assert response.status_code == 200, response.text
    session = member.other(response.json())
    assert session.claims["amr"] == ["pop", "mfa"]
    assert session.claims["sub"] == member.claims["sub"]
    assert session.secret_status == 200


def test_options_tell_nothing_of_accounts(site: Service) -> None:
    """User enumeration."""
    given = options(site)
    assert set(given) == {"challenge", "timeout", "rpId", "userVerification"}


def test_a_password_login_asks_for_the_passkey(member: Member, passkey: Authenticator) -> None:
    asked = member.password_login()
    assert refused(asked, 401, "second_factor_required")
    assert asked.json()["factors"] == ["recovery_code", "passkey"]
    body = {"challenge": asked.json()["challenge"], "passkey": passkey.get(options(member.service))}
    answered = member.service("POST", "/auth/second-factor", json=body)
    assert answered.status_code == 200, answered.text
    assert member.other(answered.json()).claims["amr"] == ["pwd", "pop", "mfa"]


def test_a_passkey_steps_a_session_up(member: Member, passkey: Authenticator) -> None:
    assert refused(member.step_up(current_password=PASSWORD), 401, "second_factor_required")
    response = step_up(member, passkey)
    assert response.status_code == 200, response.text
    assert member.claims["amr"] == ["pwd", "pop", "mfa"]


def test_a_removal_needs_the_factor_and_the_last_one_takes_the_codes_along(
    member: Member, passkey: Authenticator
) -> None:
    path = f"/users/me/passkeys/{text(passkey.id)}"

    def delete() -> httpx.Response:
        return member.service("DELETE", path, token=member.tokens["access_token"])

    assert refused(delete(), 401, "step_up_required")
    assert step_up(member, passkey).status_code == 200
    assert delete().status_code == 204
    assert refused(delete(), 404, "not_found")
    assert refused(log_in(member.service, passkey)), "it was deleted"
    assert member.get("/users/me/factors").json()["recovery_codes_left"] == 0
    assert member.log_in().secret_status == 200, "the password suffices again"


def test_one_of_two_factors_can_go_without_the_codes(
    member: Member, passkey: Authenticator, stored: Database[Document]
) -> None:
    assert step_up(member, passkey).status_code == 200
    assert member.begin().status_code == 200
    confirmed = member.confirm()
    assert "recovery_codes" not in confirmed.json(), "the user has some already"
    member.wait(stored)
    assert step_up(member, passkey).status_code == 200
    path = f"/users/me/passkeys/{text(passkey.id)}"
    assert member.service("DELETE", path, token=member.tokens["access_token"]).status_code == 204
    assert member.get("/users/me/factors").json() == {"totp": True, "passkeys": 0, "recovery_codes_left": 10}
    assert member.factor_login().status_code == 200


def test_a_reset_takes_a_passkey(member: Member, passkey: Authenticator) -> None:
    body: Document = {"token": member.ask_for_reset(), "new_password": NEW_PASSWORD}
    assert refused(member.service("POST", "/auth/reset/confirmation", json=body), 401, "second_factor_required")
    body |= {"passkey": passkey.get(options(member.service))}
    assert member.service("POST", "/auth/reset/confirmation", json=body).status_code == 204
    assert log_in(member.service, passkey).status_code == 200


def test_an_undo_removes_a_passkey_that_was_added_since(newcomer: Member, passkey: Authenticator) -> None:
    assert add(newcomer, passkey).status_code == 201
    undo = token(newcomer.mails(subject="second factor was added")[-1])
    assert newcomer.service("POST", "/users/email/undo", json={"token": undo}).status_code == 204
    assert refused(log_in(newcomer.service, passkey))
    assert newcomer.reset(newcomer.ask_for_reset()).status_code == 204
    assert newcomer.password_login(NEW_PASSWORD).status_code == 200


def test_the_notice_of_every_added_passkey_can_undo_it(member: Member, passkey: Authenticator) -> None:
    """Or a thief could replace the owner's factors by a passkey."""
    assert step_up(member, passkey).status_code == 200
    thief = Authenticator(URL)
    assert add(member, thief).status_code == 201
    undo = {"token": token(member.mails(subject="passkey was added")[-1])}
    answer = passkey.get(options(member.service))
    assert refused(member.service("POST", "/users/email/undo", json=undo), code="second_factor_required")
    recent = undo | {"passkey": thief.get(options(member.service))}
    assert refused(member.service("POST", "/users/email/undo", json=recent)), "the added one proves nothing"
    assert member.service("POST", "/users/email/undo", json=undo | {"passkey": answer}).status_code == 204
    assert refused(log_in(member.service, thief))
    assert log_in(member.service, passkey).status_code == 200


def test_recovery_codes_that_were_shown_are_not_replaced_by_a_factor_that_comes_at_the_same_time(
    newcomer: Member, passkey: Authenticator
) -> None:
    assert newcomer.begin().status_code == 200
    given = options_to_add(newcomer)
    body = {"passkey": passkey.create(given), "name": "My phone"}
    access = newcomer.tokens["access_token"]
    code = {"code": newcomer.code()}
    confirm = newcomer.service.send("POST", "/users/me/totp/confirmation", token=access, json=code)
    add_passkey = newcomer.service.send("POST", "/users/me/passkeys", token=access, json=body)
    with Held(newcomer.service.app.ctx.generations, "change") as held:
        confirmed, added = newcomer.service.run(race(held, confirm, add_passkey))
    assert added.status_code == 201
    assert refused(confirmed, 422, "wrong_code")
    assert newcomer.factor_login(added.json()["recovery_codes"][0]).status_code == 200
    assert newcomer.confirm().json() == {}, "repeated, it is the second factor, without other codes"


@pytest.mark.parametrize("name", ["", "  ", "a ", "a\0b", "a\u202eb", "a\nb", "x" * 65])
def test_a_name_that_cannot_be_seen_is_refused(newcomer: Member, passkey: Authenticator, name: str) -> None:
    body = {"passkey": passkey.create(options_to_add(newcomer)), "name": name}
    assert refused(newcomer.post("/users/me/passkeys", body), 422, "invalid_fields")


def test_a_code_and_a_passkey_together_are_refused(member: Member, passkey: Authenticator) -> None:
    both = {"code": member.recovery_codes[0], "passkey": passkey.get(options(member.service))}
    body = {"token": member.ask_for_reset(), "new_password": NEW_PASSWORD, **both}
    assert refused(member.service("POST", "/auth/reset/confirmation", json=body), 422, "invalid_fields")


# Counters


def test_a_passkey_that_never_counts_is_accepted(newcomer: Member) -> None:
    """Synchronised passkeys always tell 0."""
    synced = Authenticator(URL, counts=False, eligible=True)
    assert add(newcomer, synced).status_code == 201
    for _ in range(3):
        assert log_in(newcomer.service, synced).status_code == 200
    assert newcomer.get("/users/me/passkeys").json()["passkeys"][0]["backed_up"]


def test_a_counter_that_goes_back_is_refused_and_told(member: Member, passkey: Authenticator) -> None:
    """A copied authenticator."""
    copy = replace(passkey)
    assert log_in(member.service, passkey).status_code == 200
    assert log_in(member.service, passkey).status_code == 200
    assert refused(log_in(member.service, copy))
    assert member.mails(subject="may have been copied")
    copy.counter = -1
    copy.counts = True
    assert refused(log_in(member.service, copy)), "nor is 0, once it has counted"
    assert log_in(member.service, passkey).status_code == 200


def test_of_parallel_logins_with_one_counter_one_succeeds(member: Member, passkey: Authenticator) -> None:
    bodies = []
    for _ in range(5):
        given, clone = options(member.service), replace(passkey)
        bodies.append({"challenge": given["challenge"], "passkey": clone.get(given)})
    requests = [member.service.send("POST", "/auth/passkey", json=body) for body in bodies]
    statuses = [one.status_code for one in member.service.together(*requests)]
    assert statuses.count(200) == 1


def test_a_passkey_that_was_removed_meanwhile_is_not_called_a_copy(
    member: Member, passkey: Authenticator, caplog: pytest.LogCaptureFixture
) -> None:
    assert step_up(member, passkey).status_code == 200
    given = options(member.service)
    body = {"challenge": given["challenge"], "passkey": passkey.get(given)}
    login = member.service.send("POST", "/auth/passkey", json=body)
    remove = member.service.send(
        "DELETE", f"/users/me/passkeys/{text(passkey.id)}", token=member.tokens["access_token"]
    )
    with Held(member.service.app.ctx.users, "lock") as held:
        response, removed = member.service.run(race(held, login, remove))
    assert removed.status_code == 204
    assert refused(response)
    assert "passkey_copied" not in caplog.messages


def test_a_refused_passkey_is_a_security_event(member: Member, passkey: Authenticator) -> None:
    event = {"event": "passkey_rejected"}
    before = REGISTRY.get_sample_value("security_events_total", event) or 0
    assert refused(log_in(member.service, replace(passkey, key=Authenticator(URL).key)))
    assert REGISTRY.get_sample_value("security_events_total", event) == before + 1


def test_backup_eligibility_never_changes(member: Member, passkey: Authenticator) -> None:
    assert refused(log_in(member.service, replace(passkey, eligible=True)))


# Challenges


def test_an_answer_counts_once(member: Member, passkey: Authenticator) -> None:
    """Replay."""
    given = options(member.service)
    body = {"challenge": given["challenge"], "passkey": passkey.get(given)}
    assert member.service("POST", "/auth/passkey", json=body).status_code == 200
    assert refused(member.service("POST", "/auth/passkey", json=body))
    passkey.counter += 1
    assert refused(log_in(member.service, passkey, given)), "another answer to a challenge that was used"


def test_a_wrong_answer_uses_the_challenge_up(member: Member, passkey: Authenticator) -> None:
    """So the limit of options bounds guesses, too."""
    given = options(member.service)
    assert refused(log_in(member.service, replace(passkey, key=Authenticator(URL).key), given))
    assert refused(log_in(member.service, passkey, given))
    passkey.counter = 7
    assert log_in(member.service, passkey).status_code == 200
    copied = options(member.service)
    assert refused(log_in(member.service, replace(passkey, counter=1), copied))
    assert refused(log_in(member.service, passkey, copied))


def test_challenges_are_of_one_purpose_session_and_user(
    site: Service, mailbox: Mailbox, member: Member, passkey: Authenticator
) -> None:
    """Crossed challenges."""
    for_step_up = options(site, member)
    assert refused(log_in(site, passkey, for_step_up))
    assert refused(member.step_up(passkey=passkey.get(options(site))))
    other = member.other(log_in(site, passkey).json())
    assert refused(other.step_up(passkey=passkey.get(options(site, member)))), "of another session"
    stranger = Member.verified(site, mailbox)
    theirs = options_to_add(stranger)
    assert refused(add(other, options=theirs), 422, "wrong_code")
    for_login = options(site) | {key: theirs[key] for key in ("rp", "user", "authenticatorSelection")}
    assert refused(add(stranger, options=for_login), 422, "wrong_code")


def test_a_challenge_expires(member: Member, passkey: Authenticator, stored: Database[Document]) -> None:
    given = options(member.service)
    past = datetime.now(UTC) - timedelta(seconds=1)
    stored.one_time_tokens.update_many({"purpose": "passkey login"}, {"$set": {"expires_at": past}})
    assert refused(log_in(member.service, passkey, given))


def test_the_challenge_of_the_body_is_that_of_the_answer(member: Member, passkey: Authenticator) -> None:
    body = {"challenge": options(member.service)["challenge"], "passkey": passkey.get(options(member.service))}
    assert refused(member.service("POST", "/auth/passkey", json=body))


# Other sites, and authenticators that do not verify their user


WRONG: dict[str, dict[str, Any]] = {
    "another origin": {"origin": "https://evil.example"},
    "a subdomain": {"origin": "https://app.demo.example"},
    "http": {"origin": "http://demo.example"},
    "another port": {"origin": "https://demo.example:8443"},
    "another relying party": {"rp_id": "evil.example"},
    "no user verification": {"verifies": False},
    "a frame of another origin": {"cross_origin": True},
    "backed up without being eligible": {"backed_up": True},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_an_answer_for_another_site_or_without_verification_is_refused(
    site: Service, mailbox: Mailbox, newcomer: Member, passkey: Authenticator, wrong: str
) -> None:
    stranger = Member.verified(site, mailbox)
    assert add(newcomer, passkey).status_code == 201
    assert refused(add(stranger, replace(Authenticator(URL), **WRONG[wrong])), 422, "wrong_code")
    assert refused(log_in(site, replace(passkey, **WRONG[wrong])))
    assert log_in(site, replace(passkey, counter=5)).status_code == 200


def test_an_answer_without_the_user_handle_is_refused(member: Member, passkey: Authenticator) -> None:
    assert refused(log_in(member.service, replace(passkey, handle=b"")))


P256, P384 = 1, 2  # curves (RFC 9053 section 7.1)
KEYS: dict[str, dict[int, Any]] = {
    "no point of the curve": {1: 2, 3: -7, -1: P256, -2: b"x" * 32, -3: b"y" * 32},
    "a point of 16 KB": {1: 2, 3: -7, -1: P256, -2: b"x" * 8000, -3: b"y" * 8000},
    "an algorithm that is not offered": {1: 2, 3: -35, -1: P384, -2: b"x" * 48, -3: b"y" * 48},
    "Ed25519 of 31 bytes": {1: 1, 3: -8, -1: 6, -2: b"x" * 31},
    "RSA of 1024 bits": {1: 3, 3: -257, -1: b"\xff" * 128, -2: b"\1\0\1"},
    "RSA of 8192 bits": {1: 3, 3: -257, -1: b"\xff" * 1024, -2: b"\1\0\1"},
    "RSA with a large exponent": {1: 3, 3: -257, -1: b"\xff" * 256, -2: b"\xff" * 255},
    "no parameters": {1: 2, 3: -7},
}


@pytest.mark.parametrize("key", KEYS)
def test_a_public_key_that_cannot_verify_or_costs_much_is_refused(newcomer: Member, key: str) -> None:
    assert refused(add(newcomer, Authenticator(URL, public_key=KEYS[key])), 422, "wrong_code")


def test_keys_of_every_offered_algorithm_are_accepted(newcomer: Member) -> None:
    public = rsa.generate_private_key(65537, 2048).public_key().public_numbers()
    rs256 = {1: 3, 3: -257, -1: public.n.to_bytes(256), -2: public.e.to_bytes(3)}
    assert add(newcomer, Authenticator(URL, public_key=rs256)).status_code == 201
    raw = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    assert newcomer.step_up(code=newcomer.recovery_codes[0]).status_code == 200
    assert add(newcomer, Authenticator(URL, public_key={1: 1, 3: -8, -1: 6, -2: raw})).status_code == 201


def test_an_answer_that_would_keep_the_event_loop_busy_is_refused_unread(
    member: Member, passkey: Authenticator
) -> None:
    """Denial of service: the parser of CBOR takes quadratic time."""
    nested = replace(passkey, extensions=b"\x9f" + b"\x80" * 20_000 + b"\xff")
    with patch("app.factors.passkeys.AuthenticationResponse.from_dict") as parse:
        assert refused(log_in(member.service, nested))
    assert not parse.called


def test_a_signature_of_another_key_is_refused(member: Member, passkey: Authenticator) -> None:
    forged = replace(passkey, key=Authenticator(URL).key)
    assert refused(log_in(member.service, forged))


def test_a_passkey_is_of_one_user(site: Service, mailbox: Mailbox, member: Member, passkey: Authenticator) -> None:
    """Takeover by registering the same credential again, and a handle of another user."""
    stranger = Member.verified(site, mailbox)
    assert refused(add(stranger, replace(passkey)), 409, "already_enrolled")
    assert stranger.log_in().secret_status == 200, "and the stranger has no factor by that"
    assert step_up(member, passkey).status_code == 200
    assert refused(add(member, replace(passkey)), 409, "already_enrolled")
    assert refused(log_in(site, replace(passkey, counter=9, handle=secrets.token_bytes(32))))
    answer = passkey.get(options(site))
    challenge = Member.challenge(member)
    other = Member.verified(site, mailbox)
    assert add(other, Authenticator(URL)).status_code == 201
    body = {"challenge": other.challenge(), "passkey": answer}
    assert refused(site("POST", "/auth/second-factor", json=body)), "a passkey of another account"
    body = {"challenge": challenge, "passkey": passkey.get(options(site))}
    assert site("POST", "/auth/second-factor", json=body).status_code == 200


def test_the_number_of_passkeys_is_bounded(member: Member, passkey: Authenticator) -> None:
    assert step_up(member, passkey).status_code == 200
    for _ in range(MOST_PASSKEYS - 1):
        assert add(member).status_code == 201
    assert refused(add(member), 409, "too_many_passkeys")
    assert len(options_to_add(member)["excludeCredentials"]) == MOST_PASSKEYS


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"response": {}},
        {"rawId": "!", "response": {"clientDataJSON": "!"}},
        {"id": "a", "rawId": "a", "type": "public-key", "response": {"clientDataJSON": text(b'{"challenge":1}')}},
        {"rawId": ["a"], "response": {"clientDataJSON": text(b"[]")}},
        {"response": {"clientDataJSON": text(b"\xff" * 5000)}},
        {"response": "x"},
    ],
)
def test_a_malformed_answer_is_refused(member: Member, answer: Document) -> None:
    body = {"challenge": "A" * 43, "passkey": answer}
    assert refused(member.service("POST", "/auth/passkey", json=body))
    assert refused(member.step_up(passkey=answer))
    assert refused(member.post("/users/me/passkeys", {"passkey": answer, "name": "x"}), 422, "wrong_code")


def test_a_disabled_user_does_not_log_in(member: Member, passkey: Authenticator, stored: Database[Document]) -> None:
    stored.users.update_one({"username": member.username}, {"$set": {"disabled": True}})
    assert refused(log_in(member.service, passkey))


def test_without_a_public_url_there_are_no_passkeys(config: Config) -> None:
    with Service(with_keys(config, "passkeys", JWT_ALGORITHM="HS256", PUBLIC_URL=None)) as service:
        assert refused(service("POST", "/auth/passkey/options"), 503, "not_enabled")
        body = {"challenge": "A" * 43, "passkey": {}}
        assert refused(service("POST", "/auth/passkey", json=body), 503, "not_enabled")
