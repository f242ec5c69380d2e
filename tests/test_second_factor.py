"""The second factor: enrolment, logins, step-up, recovery codes, and what goes round it (nothing)."""

import asyncio
import base64
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from copy import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pymongo.database import Database
from pymongo.errors import AutoReconnect

from app.commands import Commands
from app.context import Context
from app.models.factors import startup_error
from app.models.users import Access
from app.tokens.key_set import encryption_key_name
from app.tokens.keys import Encryption
from app.tokens.one_time import digest
from config import Config
from config.product import SECOND_FACTOR_GRANT, SLUG
from tests.conftest import PASSWORD, Actor, Document, Service, drop_database
from tests.factors import Member, stored_of
from tests.mail import NEW_PASSWORD
from tests.mailbox import Mailbox, token, with_mail
from tests.published import feed_page, with_keys


def settings(config: Config, mailbox: Mailbox, **others: Any) -> Config:
    """Return settings with mail and an encryption key, in a database of these tests."""
    return with_keys(with_mail(config, mailbox), "factors", **others)


@pytest.fixture(scope="module")
def guarded(config: Config, mailbox: Mailbox) -> Iterator[Service]:
    """Run a service with second factors."""
    with Service(settings(config, mailbox)) as service:
        yield service
    drop_database(service.config.MONGO_URI)


@pytest.fixture
def stored(guarded: Service, database: Database[Document]) -> Database[Document]:
    """Return the database of the service with second factors."""
    return stored_of(guarded, database)


@pytest.fixture
def member(guarded: Service, mailbox: Mailbox, stored: Database[Document]) -> Member:
    """Return a user with an authenticator."""
    return Member.enrolled(guarded, mailbox, stored)


@pytest.fixture
def newcomer(guarded: Service, mailbox: Mailbox) -> Member:
    """Return a user without a second factor."""
    return Member.verified(guarded, mailbox)


def refused(response: httpx.Response, status: int, code: str) -> bool:
    """Return whether a response is this refusal."""
    return (response.status_code, response.json().get("code")) == (status, code)


def factors(member: Member) -> Document:
    """Return the factors of a user."""
    response = member.get("/users/me/factors")
    assert response.status_code == 200, response.text
    return dict(response.json())


# Enrolment


def test_an_authenticator_is_enrolled_with_recovery_codes(newcomer: Member) -> None:
    other = newcomer.log_in()
    begun = newcomer.begin()
    assert begun.headers["Cache-Control"] == "no-store"
    assert set(begun.json()) == {"secret", "uri", "qr"}
    assert len(base64.b32decode(begun.json()["secret"])) == 20
    assert begun.json()["qr"].startswith("data:image/svg+xml")
    assert factors(newcomer) == {"totp": False, "passkeys": 0, "recovery_codes_left": 0}
    confirmed = newcomer.confirm()
    assert confirmed.status_code == 200
    assert confirmed.headers["Cache-Control"] == "no-store"
    assert len(confirmed.json()["recovery_codes"]) == 10
    assert factors(newcomer) == {"totp": True, "passkeys": 0, "recovery_codes_left": 10}
    assert newcomer.secret_status == 200, "the session that enrols continues"
    assert newcomer.refresh().status_code == 200
    assert other.secret_status == 401, "other sessions end"
    assert other.refresh().status_code == 401
    assert newcomer.mails(subject="second factor was added")


def test_enrolment_needs_a_recent_authentication(newcomer: Member, stored: Database[Document]) -> None:
    earlier = datetime.now(UTC) - timedelta(hours=1)
    stored.sessions.update_one({"_id": newcomer.claims["sid"]}, {"$set": {"authenticated_at": earlier}})
    newcomer.refresh()
    assert refused(newcomer.begin(), 401, "step_up_required")
    assert newcomer.step_up(current_password=PASSWORD).status_code == 200
    assert newcomer.begin().status_code == 200


def test_a_second_authenticator_is_a_conflict(member: Member) -> None:
    assert refused(member.begin(), 409, "already_enrolled")
    assert member.step_up().status_code == 200
    assert refused(member.begin(), 409, "already_enrolled")


def test_a_wrong_code_confirms_nothing_and_five_void_the_secret(newcomer: Member) -> None:
    assert refused(newcomer.post("/users/me/totp/confirmation", {"code": "123456"}), 422, "wrong_code")
    newcomer.begin()
    for steps in (-1, -2, 2, 3, 4):
        assert refused(newcomer.confirm(newcomer.code(steps)), 422, "wrong_code")
    assert refused(newcomer.confirm(), 422, "wrong_code"), "the right one is too late"
    assert newcomer.log_in().secret_status == 200, "and the password still suffices"
    newcomer.enrol()


def test_a_secret_that_is_not_confirmed_in_time_is_void(newcomer: Member, stored: Database[Document]) -> None:
    newcomer.begin()
    past = datetime.now(UTC) - timedelta(seconds=1)
    stored.factors.update_one({"_id": newcomer.claims["sub"]}, {"$set": {"pending.expires_at": past}})
    assert refused(newcomer.confirm(), 422, "wrong_code")


def test_parallel_confirmations_enrol_once(newcomer: Member) -> None:
    newcomer.begin()
    access, body = newcomer.tokens["access_token"], {"code": newcomer.code()}
    send = newcomer.service.send
    requests = [send("POST", "/users/me/totp/confirmation", token=access, json=body) for _ in range(5)]
    responses = newcomer.service.together(*requests)
    assert [one.status_code for one in responses].count(200) == 1
    assert factors(newcomer)["recovery_codes_left"] == 10


# Logins


def test_a_login_takes_both_factors(member: Member) -> None:
    asked = member.password_login()
    assert refused(asked, 401, "second_factor_required")
    assert asked.json()["factors"] == ["totp", "recovery_code"]
    assert asked.headers["WWW-Authenticate"].startswith("Bearer")
    assert asked.headers["Cache-Control"] == "no-store"
    answered = member.answer(asked.json()["challenge"])
    assert answered.status_code == 200, answered.text
    session = member.other(answered.json())
    assert session.claims["amr"] == ["pwd", "otp", "mfa"]
    assert session.secret_status == 200
    assert session.refresh().status_code == 200
    assert session.claims["amr"] == ["pwd", "otp", "mfa"], "a refresh changes nothing"


def test_a_code_is_used_once(member: Member) -> None:
    """Replay (RFC 6238 section 5.2)."""
    code = member.code()
    assert member.factor_login(code).status_code == 200
    assert refused(member.factor_login(code), 401, "second_factor_invalid")
    assert refused(member.step_up(code=code), 401, "second_factor_invalid")


def test_the_code_of_the_enrolment_is_used(newcomer: Member) -> None:
    newcomer.begin()
    code = newcomer.code()
    assert newcomer.confirm(code).status_code == 200
    assert refused(newcomer.factor_login(code), 401, "second_factor_invalid")


def test_a_code_is_used_once_on_all_workers(member: Member) -> None:
    code = member.code()
    with Service(member.service.config) as other_worker:
        assert member.factor_login(code).status_code == 200
        response = other_worker("POST", "/auth", json={"username": member.username, "password": PASSWORD})
        body = {"challenge": response.json()["challenge"], "code": code}
        assert refused(other_worker("POST", "/auth/second-factor", json=body), 401, "second_factor_invalid")


def test_one_of_fifty_parallel_logins_with_one_code_succeeds(member: Member) -> None:
    """Race condition: ten challenges, each answered five times."""
    challenges = [member.challenge() for _ in range(10)]
    body = {"code": member.code()}
    send = member.service.send
    requests = [
        send("POST", "/auth/second-factor", json=body | {"challenge": challenge}) for challenge in challenges * 5
    ]
    statuses = [one.status_code for one in member.service.together(*requests)]
    assert statuses.count(200) == 1
    assert set(statuses) <= {200, 401, 429}


@pytest.mark.parametrize("steps_ago", [-2, -1, 2, 3])
def test_codes_of_other_steps_are_wrong(member: Member, steps_ago: int) -> None:
    code = member.code(steps_ago)
    neighbours = {member.code(), member.code(1), member.code(-1) if steps_ago == 2 else ""}
    assert code in neighbours or refused(member.factor_login(code), 401, "second_factor_invalid")


def test_the_previous_code_is_right_but_none_before_one_that_was_used(member: Member) -> None:
    assert member.factor_login(member.code(1)).status_code == 200
    assert member.factor_login().status_code == 200
    assert refused(member.factor_login(member.code(1)), 401, "second_factor_invalid")


def test_a_code_of_another_account_is_wrong(
    member: Member, guarded: Service, mailbox: Mailbox, stored: Database[Document]
) -> None:
    """Challenge swap."""
    other = Member.enrolled(guarded, mailbox, stored)
    assert refused(member.factor_login(other.code()), 401, "second_factor_invalid")
    assert refused(other.answer(member.challenge()), 401, "second_factor_invalid")
    assert refused(member.factor_login(other.recovery_codes[0]), 401, "second_factor_invalid")


def test_a_challenge_is_answered_once(member: Member, stored: Database[Document]) -> None:
    challenge = member.challenge()
    assert member.answer(challenge).status_code == 200
    member.wait(stored)
    assert refused(member.answer(challenge), 401, "second_factor_invalid")


def test_five_wrong_answers_void_a_challenge(member: Member) -> None:
    challenge = member.challenge()
    for _ in range(5):
        assert refused(member.answer(challenge, "000000"), 401, "second_factor_invalid")
    assert refused(member.answer(challenge), 401, "second_factor_invalid")
    assert member.factor_login().status_code == 200, "another challenge is a new one"


@pytest.mark.parametrize("end", ["expiry", "logout-all", "password", "removal", "disabled", "deleted"])
def test_a_challenge_dies_with_what_it_was_made_for(member: Member, stored: Database[Document], end: str) -> None:
    assert member.step_up().status_code == 200
    member.wait(stored)
    challenge = member.challenge()
    if end == "expiry":
        past = datetime.now(UTC) - timedelta(seconds=1)
        stored.one_time_tokens.update_one({"_id": digest(challenge)}, {"$set": {"expires_at": past}})
    elif end == "logout-all":
        assert member.post("/auth/logout-all").status_code == 204
    elif end == "password":
        body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
        assert member.post("/users/me/password", body).status_code == 200
    elif end == "removal":
        assert member.service("DELETE", "/users/me/totp", token=member.tokens["access_token"]).status_code == 204
    elif end == "disabled":
        stored.users.update_one({"username": member.username}, {"$set": {"disabled": True}})
    elif end == "deleted":
        assert member.post("/users/me/delete", {"current_password": PASSWORD}).status_code == 204
    assert refused(member.answer(challenge), 401, "second_factor_invalid")


def test_a_challenge_is_no_other_token(member: Member) -> None:
    challenge = member.challenge()
    reset = {"token": challenge, "new_password": NEW_PASSWORD}
    assert refused(member.service("POST", "/auth/reset/confirmation", json=reset), 401, "one_time_token_invalid")
    assert refused(member.answer(member.ask_for_reset()), 401, "second_factor_invalid")
    assert refused(member.service("GET", "/auth/me", token=challenge), 401, "token_invalid")


def test_without_the_right_password_nothing_tells_of_a_second_factor(member: Member, newcomer: Member) -> None:
    """Enumeration."""
    bodies = []
    for user in (member, newcomer):
        response = user.password_login("a wrong password")
        body = response.json()
        del body["request_id"]
        bodies.append((response.status_code, body, sorted(response.headers)))
    assert bodies[0] == bodies[1]


def test_the_clock_of_the_machine_does_not_count(
    member: Member, stored: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, real = member.code(), time.time
    for seconds in (40, -40):
        monkeypatch.setattr(time, "time", lambda ahead=seconds: real() + ahead)
        response = member.factor_login(code)
        monkeypatch.undo()
        assert response.status_code == 200, response.text
        member.wait(stored)
        code = member.code()


# Guessing


def test_wrong_codes_are_counted_over_all_challenges(member: Member, stored: Database[Document]) -> None:
    """Brute force: eight elsewhere and two at usual networks, in fifteen minutes."""
    stored.users.update_one({"username": member.username}, {"$set": {"usual_networks": []}})
    for challenge in [member.challenge(), member.challenge()]:
        for _ in range(4):
            assert refused(member.answer(challenge, "000000"), 401, "second_factor_invalid")
    assert refused(member.factor_login("000000"), 429, "too_many_attempts")
    limited = member.factor_login()
    assert refused(limited, 429, "too_many_attempts"), "the right one, too"
    assert 0 < int(limited.headers["Retry-After"]) <= 900
    assert refused(member.step_up(), 429, "too_many_attempts"), "step-up and logins share the limit"
    network = {"network": "127.0.0.1", "since": datetime.now(UTC)}
    stored.users.update_one({"username": member.username}, {"$set": {"usual_networks": [network]}})
    assert member.factor_login().status_code == 200, "the owner gets in from where the owner usually is"


def test_parallel_guesses_do_not_exceed_the_limit(member: Member, stored: Database[Document]) -> None:
    """CVE-2024-4629."""
    stored.users.update_one({"username": member.username}, {"$set": {"usual_networks": []}})
    challenges = [member.challenge() for _ in range(5)]
    send = member.service.send
    requests = [
        send("POST", "/auth/second-factor", json={"challenge": challenge, "code": f"{number:06}"})
        for challenge in challenges
        for number in range(5)
    ]
    statuses = [one.status_code for one in member.service.together(*requests)]
    assert statuses.count(401) <= 8
    assert set(statuses) <= {200, 401, 429}


def test_the_owner_is_told_of_the_first_wrong_code_after_a_right_password(member: Member) -> None:
    for _ in range(3):
        member.factor_login("000000")
    assert member.mails(subject="wrong code after your password")
    assert member.factor_login().status_code == 200
    assert len([one for one in member.mails() if "wrong code after" in one["Subject"]]) == 1


def test_the_failures_of_passwords_are_reset_only_by_a_complete_login(member: Member, guarded: Service) -> None:
    """Otherwise who knows the password could reset what guesses of others have counted, and guess codes for ever."""
    limited = guarded.config.model_copy(update={"LOGIN_FAILURES_PER_PAIR": "4/hour"})
    with Service(limited) as service:
        at_limited = member.at(service)
        for _ in range(3):
            assert refused(at_limited.password_login("a wrong password"), 401, "wrong_credentials")
        challenge = at_limited.challenge()
        assert refused(at_limited.password_login(), 429, "too_many_attempts"), "the fourth one is counted"
        assert at_limited.answer(challenge).status_code == 200
        for _ in range(3):
            assert refused(at_limited.password_login("a wrong password"), 401, "wrong_credentials")


def test_right_codes_do_not_use_up_the_limit(member: Member, stored: Database[Document]) -> None:
    for _ in range(12):
        assert member.step_up().status_code == 200
        member.wait(stored)


# Recovery codes


def test_a_recovery_code_logs_in_once_and_is_told(member: Member) -> None:
    code = member.recovery_codes[3]
    answered = member.factor_login(code.upper().replace("-", " "))
    assert answered.status_code == 200
    session = member.other(answered.json())
    assert session.claims["amr"] == ["pwd", "otp", "mfa"]
    assert factors(session)["recovery_codes_left"] == 9
    assert refused(member.factor_login(code), 401, "second_factor_invalid")
    mails = member.mails(subject="recovery code")
    assert "9 are left" in mails[-1].get_content()


def test_one_of_many_parallel_logins_with_a_recovery_code_succeeds(member: Member) -> None:
    challenges = [member.challenge() for _ in range(4)]
    body = {"code": member.recovery_codes[0]}
    send = member.service.send
    requests = [send("POST", "/auth/second-factor", json=body | {"challenge": one}) for one in challenges * 2]
    statuses = [one.status_code for one in member.service.together(*requests)]
    assert statuses.count(200) == 1
    assert factors(member)["recovery_codes_left"] == 9


def test_new_recovery_codes_void_those_before(member: Member) -> None:
    assert refused(member.post("/users/me/recovery-codes"), 401, "step_up_required"), "enrolled in a password session"
    assert member.step_up().status_code == 200
    response = member.post("/users/me/recovery-codes")
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    assert len(response.json()["recovery_codes"]) == 10
    assert refused(member.factor_login(member.recovery_codes[0]), 401, "second_factor_invalid")
    assert member.factor_login(response.json()["recovery_codes"][0]).status_code == 200
    assert member.mails(subject="New recovery codes")


def test_a_user_who_has_lost_the_authenticator_gets_rid_of_it(member: Member) -> None:
    session = member.other(member.factor_login(member.recovery_codes[0]).json())
    access = session.tokens["access_token"]
    assert session.service("DELETE", "/users/me/totp", token=access).status_code == 204
    assert factors(session) == {"totp": False, "passkeys": 0, "recovery_codes_left": 0}
    assert session.log_in().secret_status == 200


# Removal and step-up


def test_the_removal_needs_the_factor_and_ends_other_sessions(member: Member, stored: Database[Document]) -> None:
    def delete() -> httpx.Response:
        return member.service("DELETE", "/users/me/totp", token=member.tokens["access_token"])

    assert refused(delete(), 401, "step_up_required")
    assert refused(member.step_up(current_password=PASSWORD), 401, "second_factor_required")
    other = member.other(member.factor_login().json())
    member.wait(stored)
    assert member.step_up().status_code == 200
    assert delete().status_code == 204
    assert member.secret_status == 200
    assert other.secret_status == 401
    assert member.log_in().secret_status == 200
    assert member.mails(subject="second factor of your account")
    assert refused(delete(), 404, "not_found")


def test_step_up_by_code_gives_a_new_session_with_the_factor(member: Member) -> None:
    old = member.other(member.tokens)
    response = member.step_up()
    assert response.status_code == 200
    assert member.claims["sid"] != old.claims["sid"]
    assert member.claims["amr"] == ["pwd", "otp", "mfa"]
    assert old.secret_status == 401
    assert old.refresh().status_code == 401


@pytest.mark.parametrize("body", [{}, {"current_password": PASSWORD, "code": "123456"}, {"code": None}])
def test_step_up_takes_one_of_both(newcomer: Member, body: Document) -> None:
    response = newcomer.post("/auth/step-up", body)
    assert response.status_code == 422, response.text


def test_a_code_of_a_user_without_a_factor_is_wrong(newcomer: Member) -> None:
    assert refused(newcomer.step_up(code="123456"), 401, "second_factor_invalid")


def test_password_change_and_deletion_need_the_factor(member: Member, stored: Database[Document]) -> None:
    change = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    assert refused(member.post("/users/me/password", change), 401, "step_up_required")
    assert refused(member.post("/users/me/delete", {"current_password": PASSWORD}), 401, "step_up_required")
    assert member.step_up().status_code == 200
    auth_time = member.claims["auth_time"]
    changed = member.post("/users/me/password", change)
    assert changed.status_code == 200
    session = member.other(changed.json())
    assert session.claims["amr"] == ["pwd", "otp", "mfa"]
    assert session.claims["auth_time"] == auth_time, "a chain of changes does not stay fresh for ever"
    assert session.post("/users/me/delete", {"current_password": NEW_PASSWORD}).status_code == 204
    assert stored.factors.find_one({"_id": member.claims["sub"]}) is None


# What goes round the factor


def test_a_reset_asks_for_the_factor_and_does_not_remove_it(member: Member, stored: Database[Document]) -> None:
    sent = member.ask_for_reset()
    assert refused(member.reset(sent), 401, "second_factor_required")
    assert member.reset(sent).json()["factors"] == ["totp", "recovery_code"]
    body = {"token": sent, "new_password": NEW_PASSWORD}

    def reset(**others: str) -> httpx.Response:
        return member.service("POST", "/auth/reset/confirmation", json=body | others)

    assert refused(reset(code="000000"), 401, "second_factor_invalid")
    assert refused(reset(new_password="short", code=member.code()), 422, "invalid_fields")
    assert reset(code=member.code()).status_code == 204
    member.wait(stored)
    assert refused(member.password_login(NEW_PASSWORD), 401, "second_factor_required")


def test_five_wrong_or_missing_codes_void_a_reset(member: Member) -> None:
    sent = member.ask_for_reset()
    for code in (None, "000000", "000000", "000000", None):
        body = {"token": sent, "new_password": NEW_PASSWORD} | ({"code": code} if code else {})
        assert member.service("POST", "/auth/reset/confirmation", json=body).status_code == 401
    body = {"token": sent, "new_password": NEW_PASSWORD, "code": member.code()}
    response = member.service("POST", "/auth/reset/confirmation", json=body)
    assert refused(response, 401, "one_time_token_invalid")
    assert refused(member.password_login(), 401, "second_factor_required"), "the old password holds"


def test_one_code_completes_a_reset_once(member: Member) -> None:
    body = {"token": member.ask_for_reset(), "new_password": NEW_PASSWORD, "code": member.code()}
    requests = [member.service.send("POST", "/auth/reset/confirmation", json=body) for _ in range(4)]
    statuses = [one.status_code for one in member.service.together(*requests)]
    assert statuses.count(204) == 1
    assert set(statuses) <= {204, 401, 429, 503}


def test_no_session_exists_before_the_factor(member: Member, stored: Database[Document]) -> None:
    """Nothing can be refreshed, so a refresh cannot go round it."""
    before = stored.sessions.count_documents({"user_id": member.claims["sub"]})
    member.challenge()
    assert stored.sessions.count_documents({"user_id": member.claims["sub"]}) == before


def test_a_login_that_began_before_the_enrolment_opens_no_session(newcomer: Member) -> None:
    """Race condition: the password was right before the factor came."""
    ctx = newcomer.service.app.ctx
    opened: list[str] = []
    open_ = ctx.sessions.open

    async def enrol_first(*args: Any, **options: Any) -> Any:
        session = await open_(*args, **options)
        if not opened:
            opened.append(session.id)
            access = newcomer.tokens["access_token"]
            body = {"code": newcomer.code()}
            confirmed = await newcomer.service.send("POST", "/users/me/totp/confirmation", token=access, json=body)
            assert confirmed.status_code == 200, confirmed.text
        return session

    newcomer.begin()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ctx.sessions, "open", enrol_first)
        response = newcomer.password_login()
    assert response.status_code == 401
    assert opened


def test_a_name_that_is_registered_again_is_another_account(member: Member) -> None:
    assert member.step_up().status_code == 200
    assert member.post("/users/me/delete", {"current_password": PASSWORD}).status_code == 204
    again = {"username": member.username, "password": PASSWORD}
    assert member.service("POST", "/users/registration", json=again).status_code == 201
    assert member.password_login().status_code == 200


# OAuth 2.0


def test_standard_clients_complete_a_login_with_the_grant_of_the_second_factor(member: Member) -> None:
    form = {"grant_type": "password", "username": member.username, "password": PASSWORD}
    asked = member.service("POST", "/oauth/token", data=form)
    assert (asked.status_code, asked.json()["error"]) == (400, "mfa_required")
    assert asked.json()["factors"] == ["totp", "recovery_code"]
    grant = {"grant_type": SECOND_FACTOR_GRANT, "challenge": asked.json()["challenge"]}
    wrong = member.service("POST", "/oauth/token", data=grant | {"code": "000000"})
    assert (wrong.status_code, wrong.json()["error"]) == (400, "invalid_grant")
    missing = member.service("POST", "/oauth/token", data=grant)
    assert (missing.status_code, missing.json()["error"]) == (400, "invalid_request")
    answered = member.service("POST", "/oauth/token", data=grant | {"code": member.code()})
    assert answered.status_code == 200, answered.text
    assert member.other(answered.json()).claims["amr"] == ["pwd", "otp", "mfa"]
    metadata = member.service("GET", "/.well-known/oauth-authorization-server").json()
    assert grant["grant_type"] in metadata["grant_types_supported"]


# Undo


def test_the_notice_of_a_first_factor_undoes_it(newcomer: Member) -> None:
    """Who adds a factor with a stolen session does not keep the owner out."""
    newcomer.enrol()
    undo = token(newcomer.mails(subject="second factor was added")[-1])
    assert newcomer.service("POST", "/users/email/undo", json={"token": undo}).status_code == 204
    assert newcomer.secret_status == 401
    assert newcomer.reset(newcomer.ask_for_reset()).status_code == 204
    assert newcomer.password_login(NEW_PASSWORD).status_code == 200


def test_an_undo_asks_for_a_factor_that_was_there_before(member: Member, stored: Database[Document]) -> None:
    assert member.step_up().status_code == 200
    member.wait(stored)
    assert member.claim(f"{secrets.token_hex(6)}@example.com").status_code == 202
    undo = token(member.mails(subject="about to change")[-1])

    def send(**others: str) -> httpx.Response:
        return member.service("POST", "/users/email/undo", json={"token": undo, **others})

    assert refused(send(), 401, "second_factor_required")
    assert refused(send(code="000000"), 401, "second_factor_invalid")
    assert send(code=member.code()).status_code == 204
    member.wait(stored)
    user = stored.users.find_one({"username": member.username})
    assert user
    assert user["second_factor"]


def test_an_undo_removes_factors_that_were_added_since(newcomer: Member) -> None:
    assert newcomer.claim(f"{secrets.token_hex(6)}@example.com").status_code == 202
    undo = token(newcomer.mails(subject="about to change")[-1])
    newcomer.enrol()
    assert newcomer.service("POST", "/users/email/undo", json={"token": undo}).status_code == 204
    assert newcomer.reset(newcomer.ask_for_reset()).status_code == 204
    assert newcomer.password_login(NEW_PASSWORD).status_code == 200


# Administration


def administrator(member: Member, stored: Database[Document]) -> Member:
    """Make a user with an authenticator an administrator, who has just logged in."""
    stored.users.update_one({"username": member.username}, {"$set": {"access": Access.ADMIN}})
    admin = member.other(member.factor_login().json())
    member.wait(stored)
    return admin


def test_administrators_reset_the_factors_of_others(
    member: Member, guarded: Service, mailbox: Mailbox, stored: Database[Document]
) -> None:
    lost, admin = Member.enrolled(guarded, mailbox, stored), administrator(member, stored)
    path = f"/users/{lost.claims['sub']}/factors"
    assert refused(guarded("DELETE", path, token=lost.tokens["access_token"]), 403, "insufficient_scope")
    assert guarded("DELETE", path, token=admin.tokens["access_token"]).status_code == 204
    assert lost.secret_status == 401, "all sessions end"
    assert lost.password_login().status_code == 200
    assert lost.mails(subject="second factor of your account")
    unknown = guarded("DELETE", f"/users/{'0' * 24}/factors", token=admin.tokens["access_token"])
    assert refused(unknown, 404, "not_found")


def test_administrators_need_their_own_factor_for_that(
    newcomer: Member, member: Member, stored: Database[Document]
) -> None:
    stored.users.update_one({"username": newcomer.username}, {"$set": {"access": Access.ADMIN}})
    admin = newcomer.log_in()
    path = f"/users/{member.claims['sub']}/factors"
    response = admin.service("DELETE", path, token=admin.tokens["access_token"])
    assert refused(response, 401, "step_up_required")
    assert "second factor" in response.json()["detail"]


def commands(service: Service) -> Commands:
    """Return the commands, with the stores of a service."""

    @asynccontextmanager
    async def services() -> AsyncIterator[Context]:
        yield service.app.ctx

    return Commands(services)


def test_the_command_line_resets_factors(
    member: Member, stored: Database[Document], capsys: pytest.CaptureFixture[str]
) -> None:
    member.service.run(commands(member.service).reset_factors(username=member.username))
    assert f"{member.username} has no second factor" in capsys.readouterr().out
    assert member.secret_status == 401
    assert member.password_login().status_code == 200
    assert stored.factors.find_one({"_id": member.claims["sub"]}) is None
    assert member.mails(subject="second factor of your account")


def test_without_a_key_the_command_line_says_so(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (commands(service).rewrap(), commands(service).reset_factors(username="nobody")):
        with pytest.raises(SystemExit):
            service.run(command)
    assert "ENCRYPTION_KEY is not set" in capsys.readouterr().err


# Users who must have one


@pytest.fixture(scope="module")
def requiring(config: Config, mailbox: Mailbox) -> Iterator[Service]:
    """Run a service that requires a second factor of users."""
    with Service(settings(config, mailbox, REQUIRE_SECOND_FACTOR="user")) as service:
        yield service


def test_users_without_a_factor_can_only_enrol_one(
    requiring: Service, mailbox: Mailbox, stored: Database[Document]
) -> None:
    user = Member.register(requiring, mailbox)
    for method, path in (("GET", "/tests/secret"), ("GET", "/auth/sessions"), ("POST", "/users/me/email/code")):
        response = requiring(method, path, token=user.tokens["access_token"])
        assert refused(response, 403, "second_factor_enrolment_required"), path
    assert user.get("/auth/me").status_code == 200
    assert factors(user)["totp"] is False
    user.enrol()
    assert user.secret_status == 200, "in the session in which it was enrolled"
    user.wait(stored)
    assert user.other(user.factor_login().json()).secret_status == 200
    assert user.post("/auth/logout").status_code == 204


def test_guests_and_administrators_follow_the_level(
    config: Config, mailbox: Mailbox, member: Member, newcomer: Member, stored: Database[Document]
) -> None:
    with Service(settings(config, mailbox, REQUIRE_SECOND_FACTOR="admin")) as service:
        at = newcomer.at(service)
        assert at.secret_status == 200
        stored.users.update_one({"username": at.username}, {"$set": {"access": Access.ADMIN}})
        promoted = at.log_in()
        assert refused(promoted.get("/tests/secret"), 403, "second_factor_enrolment_required")
        assert refused(promoted.get("/users"), 403, "second_factor_enrolment_required")
        admin = administrator(member, stored)
        assert service("GET", "/users", token=admin.tokens["access_token"]).status_code == 200


# Off, and keys


def test_while_machines_of_an_earlier_release_serve_nobody_enrols(
    config: Config, mailbox: Mailbox, member: Member, newcomer: Member
) -> None:
    with Service(settings(config, mailbox, SECOND_FACTOR=False)) as service:
        at = newcomer.at(service)
        assert refused(at.begin(), 503, "not_enabled")
        assert refused(at.confirm("123456"), 503, "not_enabled")
        asked = service("POST", "/auth", json={"username": member.username, "password": PASSWORD})
        assert refused(asked, 401, "second_factor_required"), "who has one is asked for it"


def test_without_an_encryption_key_nobody_enrols(resident: Actor) -> None:
    assert refused(resident.post("/users/me/totp"), 503, "not_enabled")
    assert refused(resident.get("/users/me/factors"), 503, "not_enabled")


def test_secrets_at_rest_open_nothing(member: Member, stored: Database[Document]) -> None:
    """A dump of the database: neither the secret nor a code is in it, and a copied ciphertext is of no use."""
    document = stored.factors.find_one({"_id": member.claims["sub"]})
    assert document
    dump = repr(document)
    secret = base64.b32decode(member.authenticator.secret)
    for shown in (member.authenticator.secret, secret.hex(), repr(secret)[2:-1], *member.recovery_codes):
        assert shown not in dump
        assert shown.replace("-", "") not in dump
    ciphertext = document["totp"]["secret"]["ciphertext"]
    assert secret not in ciphertext
    assert len(ciphertext) == len(secret) + 16
    assert all(one["hash"].startswith("$argon2id$") for one in document["recovery_codes"])


def test_a_copied_ciphertext_is_of_no_use(
    member: Member, guarded: Service, mailbox: Mailbox, stored: Database[Document]
) -> None:
    """Who can write to the database, but does not know the key, cannot give a user another's authenticator."""
    attacker = Member.enrolled(guarded, mailbox, stored)
    mine = stored.factors.find_one({"_id": attacker.claims["sub"]})
    assert mine
    stored.factors.update_one({"_id": member.claims["sub"]}, {"$set": {"totp.secret": mine["totp"]["secret"]}})
    assert refused(member.factor_login(attacker.code()), 401, "second_factor_invalid")
    stored.factors.delete_one({"_id": member.claims["sub"]})  # or the renewal of keys would report it


def test_no_secret_is_listed(member: Member) -> None:
    for path in ("/auth/me", "/users/me/factors", "/auth/sessions", "/docs/openapi.json", "/metrics"):
        text = member.get(path).text
        assert member.authenticator.secret not in text
        assert not any(code in text for code in member.recovery_codes)


def test_every_change_of_factors_is_in_the_feed(member: Member, stored: Database[Document]) -> None:
    other = member.other(member.factor_login().json())
    member.wait(stored)
    assert member.step_up().status_code == 200
    access = member.tokens["access_token"]
    assert member.service("DELETE", "/users/me/totp", token=access).status_code == 204
    member.service.run(member.service.app.ctx.revocations.catch_up())
    assert other.claims["sid"] in feed_page(member.service)["sessions"]
    assert member.claims["sid"] not in feed_page(member.service)["sessions"]


# The database is away


STEPS: dict[str, tuple[str, str, Callable[[Member], httpx.Response]]] = {
    "begin": ("factors", "begin_totp", lambda member: member.begin()),
    "tries": ("factors", "try_pending", lambda member: member.confirm("123456")),
    "challenge": ("one_time_tokens", "add", lambda member: member.password_login()),
    "kinds": ("factors", "of", lambda member: member.password_login()),
    "answer": ("one_time_tokens", "try_token", lambda member: member.answer("A" * 43, "123456")),
    "use": ("factors", "use_totp", lambda member: member.step_up()),
    "open": ("sessions", "open", lambda member: member.step_up()),
}


@pytest.mark.parametrize("step", STEPS)
def test_without_the_database_nothing_is_half_made(member: Member, step: str) -> None:
    store, method, request = STEPS[step]

    async def unavailable(*_: object, **__: object) -> None:
        raise AutoReconnect("away")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(getattr(member.service.app.ctx, store), method, unavailable)
        response = request(member)
        if step == "begin":
            assert refused(response, 409, "already_enrolled")
        else:
            assert refused(response, 503, "store_unavailable"), response.text
    assert member.secret_status == 200, "the session is still there"
    assert member.step_up().status_code == 200, "and the code was not used up"


# Keys are renewed


def test_a_start_is_refused_with_secrets_under_another_key(
    member: Member, newcomer: Member, stored: Database[Document]
) -> None:
    """And not because of a user who is about to enrol, or of a damaged document."""
    known = encryption_key_name((member.service.config.ENCRYPTION_KEY or "").encode())
    assert newcomer.begin().status_code == 200
    damaged = {"_id": "damaged", "totp": {"secret": {"key": 7}}}
    stored.factors.insert_one(damaged)
    assert startup_error(stored, [known]) is None
    stored.factors.delete_one({"_id": "damaged"})
    reason = startup_error(stored, ["other"])
    assert reason
    assert known in reason


def rewrapped(service: Service) -> tuple[int, int]:
    """Run the command's use case."""
    numbers: tuple[int, int] = service.run(service.app.ctx.enrolment.rewrap())
    return numbers


def test_a_new_encryption_key_locks_nobody_out(
    config: Config, mailbox: Mailbox, member: Member, newcomer: Member, stored: Database[Document]
) -> None:
    newcomer.begin()
    old = member.service.config.ENCRYPTION_KEY
    keys = {"ENCRYPTION_KEY": secrets.token_urlsafe(48), "ENCRYPTION_PREVIOUS_KEYS": [old]}
    with Service(settings(config, mailbox, **keys)) as service:
        at = member.at(service)
        assert at.factor_login().status_code == 200, "before the renewal"
        done, left = rewrapped(service)
        assert done >= 2
        assert left == 0
        member.wait(stored)
        assert at.factor_login().status_code == 200, "and after it"
        assert newcomer.at(service).confirm().status_code == 200, "also if it came during an enrolment"
        assert rewrapped(service) == (0, 0)
    with Service(settings(config, mailbox, ENCRYPTION_PREVIOUS_KEYS=[keys["ENCRYPTION_KEY"]])) as service:
        assert rewrapped(service)[1] == 0, "back to the key of the other tests"


def test_no_code_is_refused_while_keys_are_renewed(
    config: Config, mailbox: Mailbox, member: Member, stored: Database[Document]
) -> None:
    """Two commands renew all secrets in turns, each with the key of the other one, as fast as they can."""
    old, new = member.service.config.ENCRYPTION_KEY or "", secrets.token_urlsafe(48)
    with Service(settings(config, mailbox, ENCRYPTION_PREVIOUS_KEYS=[new])) as service:
        at = member.at(service)
        renewing = [copy(service.app.ctx.enrolment) for _ in range(2)]
        for enrolment, keys in zip(renewing, ([old, new], [new, old]), strict=True):
            enrolment._encryption = Encryption([key.encode() for key in keys], product=SLUG)

        async def story() -> tuple[list[int], int]:
            statuses, renewed = list[int](), 0
            running = True

            async def renew() -> None:
                nonlocal renewed
                while running:
                    for enrolment in renewing:
                        renewed += (await enrolment.rewrap())[0]

            task = asyncio.create_task(renew())
            for _ in range(20):
                body = {"code": at.code()}
                response = await service.send("POST", "/auth/step-up", token=at.tokens["access_token"], json=body)
                statuses.append(response.status_code)
                at.tokens = response.json()
                await asyncio.to_thread(member.wait, stored)
            running = False
            await task
            return statuses, renewed

        statuses, renewed = service.run(story())
        assert statuses == [200] * 20
        assert renewed >= 20
        service.run(renewing[0].rewrap())
