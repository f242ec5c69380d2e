"""Forgotten passwords: resets by mail, their tokens, and what an attacker tries."""

import logging
import secrets
from datetime import UTC, datetime, timedelta

import pytest
from pymongo.database import Database

from app.database.collection import DECODING
from app.models.users import Access
from config import Config
from tests.conftest import PASSWORD, Document, Service
from tests.mail import NEW_PASSWORD, Owner
from tests.mailbox import LINK, Mailbox, text, token, with_mail

POISONED = {
    "Host": "evil.example",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "https",
    "Forwarded": "host=evil.example;proto=https",
    "Origin": "https://evil.example",
    "Referer": "https://evil.example/",
}


@pytest.fixture
def owner(mailing: Service, mailbox: Mailbox) -> Owner:
    """Return a user with a verified address."""
    return Owner.verified(mailing, mailbox)


def test_a_reset_sets_the_password_and_ends_all_sessions_without_a_login(owner: Owner) -> None:
    response = owner.reset(owner.ask_for_reset())
    assert (response.status_code, response.content) == (204, b"")
    assert owner.secret_status == 401
    assert owner.refresh().status_code == 401
    assert owner.login().status_code == 401
    assert owner.login(password=NEW_PASSWORD).status_code == 200
    assert owner.mails(subject="was reset")


def test_a_token_is_used_once_however_many_requests_present_it(owner: Owner) -> None:
    """Race condition."""
    sent = owner.ask_for_reset()
    body = {"token": sent, "new_password": NEW_PASSWORD}
    requests = [owner.service.send("POST", "/auth/reset/confirmation", json=body) for _ in range(50)]
    statuses = [one.status_code for one in owner.service.together(*requests)]
    assert statuses.count(204) == 1
    assert set(statuses) <= {204, 401, 429, 503}
    assert owner.reset(sent).status_code == 401


def test_a_weak_password_does_not_use_the_token_up(owner: Owner) -> None:
    sent = owner.ask_for_reset()
    for weak in ("short", owner.username, "passwordpassword"):
        refused = owner.reset(sent, weak)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "new_password")
    assert owner.reset(sent).status_code == 204


def test_a_token_is_worth_nothing_for_another_purpose(owner: Owner) -> None:
    sent = owner.ask_for_reset()
    assert owner.service("POST", "/users/email/undo", json={"token": sent}).status_code == 401
    assert owner.claim(f"{secrets.token_hex(6)}@example.com").status_code == 202
    undo = token(owner.mails(subject="about to change")[0])
    assert owner.reset(undo).status_code == 401
    assert owner.reset(sent).status_code == 204


@pytest.mark.parametrize("end", ["password", "logout-all", "removal", "change", "disabled", "deleted", "expiry"])
def test_a_token_dies_with_what_it_was_made_for(owner: Owner, database: Database[Document], end: str) -> None:
    sent = owner.ask_for_reset()
    query = {"username": owner.username}
    if end == "password":
        body = {"current_password": PASSWORD, "new_password": "another quite good sentence"}
        assert owner.post("/users/me/password", body).status_code == 200
    elif end == "logout-all":
        assert owner.post("/auth/logout-all").status_code == 204
    elif end == "removal":
        assert owner.remove().status_code == 204
    elif end == "change":
        new = f"{secrets.token_hex(6)}@example.com"
        assert owner.claim(new).status_code == 202
        code_mail = owner.mails(to=new)[0]
        assert owner.verify(text(code_mail).strip()[:8]).status_code == 200
    elif end == "disabled":
        database.users.update_one(query, {"$set": {"disabled": True}})
    elif end == "deleted":
        assert owner.post("/users/me/delete", {"current_password": PASSWORD}).status_code == 204
        assert owner.mails(subject="was deleted")
    else:
        past = datetime.now(UTC) - timedelta(seconds=1)
        database.one_time_tokens.update_many({"user_id": owner.claims["sub"]}, {"$set": {"expires_at": past}})
    refused = owner.reset(sent)
    assert (refused.status_code, refused.json()["code"]) == (401, "one_time_token_invalid")


def test_all_invalid_tokens_have_one_response(owner: Owner) -> None:
    sent = owner.ask_for_reset()
    assert owner.reset(sent).status_code == 204
    bodies = set()
    for invalid in (sent, secrets.token_urlsafe(32)):
        body = owner.reset(invalid).json()
        body.pop("request_id")
        bodies.add(str(body))
    assert len(bodies) == 1


def test_links_are_made_of_the_settings_whatever_the_request_says(owner: Owner, mailbox: Mailbox) -> None:
    """Host header poisoning (password reset poisoning)."""
    before = len(mailbox.to(owner.address))
    response = owner.service("POST", "/auth/reset", json={"email": owner.address}, headers=POISONED)
    assert response.status_code == 202
    link = LINK.search(text(owner.mails(before + 1)[-1]))
    assert link
    assert link[1] == "https://demo.example/account/reset"


def test_opening_a_link_changes_nothing(owner: Owner) -> None:
    """Mail scanners send GET, HEAD and POST to all links; the token is in the fragment, which they do not send."""
    sent = owner.ask_for_reset()
    for method in ("GET", "HEAD", "POST"):
        owner.service(method, "/account/reset")
        owner.service(method, "/auth/reset/confirmation")
    assert owner.reset(sent).status_code == 204


def test_the_response_is_the_same_for_known_and_unknown_addresses(owner: Owner) -> None:
    """User enumeration. One write for both, and nothing is looked up."""
    responses = []
    for address in (owner.address, f"{secrets.token_hex(6)}@example.com"):
        response = owner.service("POST", "/auth/reset", json={"email": address})
        headers = {name: value for name, value in response.headers.items() if name != "x-request-id"}
        responses.append((response.status_code, response.content, headers))
    assert responses[0] == responses[1]
    assert responses[0][:2] == (202, b"")


def test_mails_to_one_address_are_limited_over_all_accounts(mailing: Service, mailbox: Mailbox) -> None:
    """Mail bombing: the response does not tell."""
    victim = f"{secrets.token_hex(6)}@example.com"
    for _ in range(8):
        Owner.register(mailing, mailbox, victim)
    for _ in range(20):
        assert mailing("POST", "/auth/reset", json={"email": victim}).status_code == 202
    other = Owner.verified(mailing, mailbox)
    mailing.run(mailbox.arrived(other.address))
    assert len(mailbox.to(victim)) == 5


def test_no_more_than_three_tokens_are_alive(owner: Owner, mailbox: Mailbox) -> None:
    tokens = [owner.ask_for_reset() for _ in range(3)]
    assert len(set(tokens)) == 3
    assert owner.service("POST", "/auth/reset", json={"email": owner.address}).status_code == 202
    marker = Owner.register(owner.service, mailbox)
    marker.mails()
    assert len([mail for mail in mailbox.to(owner.address) if "new password" in mail["Subject"]]) == 3
    assert owner.reset(tokens[0]).status_code == 204
    assert [owner.reset(one).status_code for one in tokens[1:]] == [401, 401]


def test_an_administrator_starts_a_reset_and_never_learns_a_password(
    owner: Owner, mailbox: Mailbox, database: Database[Document]
) -> None:
    admin = Owner.verified(owner.service, mailbox)
    assert admin.post(f"/users/{owner.claims['sub']}/reset").status_code == 403
    database.users.update_one({"username": admin.username}, {"$set": {"access": Access.ADMIN}})
    admin.tokens = admin.login().json()
    assert admin.post(f"/users/{owner.claims['sub']}/reset").status_code == 202
    assert owner.reset(token(owner.mails(subject="new password")[-1])).status_code == 204
    bare = Owner.register(owner.service, mailbox)
    refused = admin.post(f"/users/{bare.claims['sub']}/reset")
    assert (refused.status_code, refused.json()["code"]) == (409, "no_verified_address")
    earlier = datetime.now(UTC) - timedelta(hours=1)
    database.sessions.update_one({"_id": admin.claims["sid"]}, {"$set": {"authenticated_at": earlier}})
    assert admin.refresh().status_code == 200
    assert admin.post(f"/users/{owner.claims['sub']}/reset").json()["code"] == "step_up_required"


def test_no_secret_of_a_mail_is_stored_or_logged(
    owner: Owner, database: Database[Document], caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever reads the database or the log cannot reset a password."""
    caplog.set_level(logging.DEBUG)
    sent = owner.ask_for_reset()
    names = ("users", "sessions", "one_time_tokens", "outbox", "attempts")
    stored = [document for name in names for document in database.get_collection(name, codec_options=DECODING).find()]
    assert sent not in str(stored)
    assert owner.reset(sent).status_code == 204
    assert sent not in caplog.text


def test_the_network_of_a_reset_is_usual_at_once(owner: Owner, database: Database[Document]) -> None:
    database.users.update_one({"username": owner.username}, {"$set": {"usual_networks": []}})
    assert owner.reset(owner.ask_for_reset()).status_code == 204
    user = database.users.find_one({"username": owner.username})
    assert user
    (usual,) = user["usual_networks"]
    assert usual["network"] == "127.0.0.1"
    assert usual["since"] < datetime.now(UTC) - timedelta(days=1)


def test_resets_beyond_the_limit_of_a_network_are_passed_over(
    config: Config, mailbox: Mailbox, database: Database[Document]
) -> None:
    """One network cannot fill the outbox."""
    with Service(with_mail(config, mailbox, RESETS_PER_ADDRESS="3/hour")) as service:
        owner = Owner.verified(service, mailbox)
        database.attempts.delete_many({"_id": {"$regex": "^reset "}})
        addresses = [*(f"{secrets.token_hex(8)}@example.com" for _ in range(3)), owner.address]
        responses = [service("POST", "/auth/reset", json={"email": address}) for address in addresses]
        assert {(one.status_code, one.content) for one in responses} == {(202, b"")}
        Owner.register(service, mailbox).mails()  # which is sent later
        assert len(mailbox.to(owner.address)) == 1
        assert not database.outbox.count_documents({"kind": "reset", "key": owner.address})
    database.attempts.delete_many({"_id": {"$regex": "^reset "}})


def test_unknown_addresses_take_no_room_from_others(config: Config, mailbox: Mailbox) -> None:
    """Only mails that will be sent count for MAILS_PER_MINUTE."""
    with Service(with_mail(config, mailbox)) as service:
        owner = Owner.verified(service, mailbox)
    with Service(with_mail(config, mailbox, MAILS_PER_MINUTE=100)) as service:
        for _ in range(150):
            unknown = f"{secrets.token_hex(8)}@example.com"
            assert service("POST", "/auth/reset", json={"email": unknown}).status_code == 202
        again = Owner(service, mailbox, owner.address, owner.username, owner.tokens)
        assert again.ask_for_reset()
