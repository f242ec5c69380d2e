"""E-mail addresses: verification, change, removal, undo, and logins by address."""

import secrets
from datetime import UTC, datetime, timedelta

import pytest
from pymongo.database import Database

from tests.conftest import PASSWORD, Document, Service
from tests.mail import NEW_PASSWORD, Owner
from tests.mailbox import Mailbox, code, text, token


def address() -> str:
    """Return an address that nobody has."""
    return f"{secrets.token_hex(6)}@example.com"


def test_an_address_counts_when_its_code_was_shown_in_the_users_session(mailing: Service, mailbox: Mailbox) -> None:
    owner = Owner.register(mailing, mailbox)
    me = owner.get("/auth/me").json()
    assert (me["email"], me["email_verified"]) == (owner.address, False)
    assert owner.login(owner.address).status_code == 401
    sent = code(owner.mails()[0])
    verified = owner.verify(sent)
    assert (verified.status_code, verified.json()["email_verified"]) == (200, True)
    assert owner.login(owner.address).status_code == 200
    assert owner.login(owner.address.upper()).status_code == 200
    again = owner.verify(sent)
    assert (again.status_code, again.json()["code"]) == (409, "nothing_to_verify")


def test_a_code_is_worth_nothing_in_another_session_or_after_five_tries(mailing: Service, mailbox: Mailbox) -> None:
    """Pre-hijacking; guessing of codes."""
    shared = address()
    victim, attacker = Owner.register(mailing, mailbox, shared), Owner.register(mailing, mailbox, shared)
    first, second = (code(mail) for mail in victim.mails(2))
    codes = {victim.username: "", attacker.username: ""}
    for mail, sent in zip(victim.mails(2), (first, second), strict=True):
        owner = victim if victim.username in text(mail) else attacker
        codes[owner.username] = sent
    wrong = attacker.verify(codes[victim.username])
    assert (wrong.status_code, wrong.json()["code"]) == (422, "wrong_code")
    for _ in range(5):
        assert victim.verify("00000000").status_code == 422
    assert victim.verify(codes[victim.username]).status_code == 422
    assert victim.post("/users/me/email/code").status_code == 202
    assert victim.verify(code(victim.mails(3)[-1])).status_code == 200
    taken = attacker.verify(codes[attacker.username])
    assert (taken.status_code, taken.json()["code"]) == (409, "email_taken")


def test_of_two_accounts_that_verify_an_address_at_once_one_succeeds(mailing: Service, mailbox: Mailbox) -> None:
    shared = address()
    owners = [Owner.register(mailing, mailbox, shared) for _ in range(4)]
    sent = {
        owner.username: code(mail) for mail in owners[0].mails(4) for owner in owners if owner.username in text(mail)
    }
    requests = [
        mailing.send(
            "POST",
            "/users/me/email/verification",
            token=owner.tokens["access_token"],
            json={"code": sent[owner.username]},
        )
        for owner in owners
    ]
    assert sorted(one.status_code for one in mailing.together(*requests)) == [200, 409, 409, 409]


def test_a_change_keeps_the_old_address_until_the_new_one_is_verified(mailing: Service, mailbox: Mailbox) -> None:
    owner, new = Owner.verified(mailing, mailbox), address()
    old = owner.address
    assert owner.claim(new).status_code == 202
    me = owner.get("/auth/me").json()
    assert (me["email"], me["email_verified"]) == (old, True)
    assert owner.login(old).status_code == 200
    assert "undo#token=" in text(owner.mails(subject="about to change")[0])
    assert owner.verify(code(owner.mails(to=new)[0])).json()["email"] == new
    assert owner.login(new).status_code == 200
    assert owner.login(old).status_code == 401
    assert "undo#token=" in text(owner.mails(subject="was changed")[0])


def test_an_undo_restores_the_address_and_locks_everybody_out_until_a_reset(mailing: Service, mailbox: Mailbox) -> None:
    """An attacker with the password has changed the address twice."""
    owner = Owner.verified(mailing, mailbox)
    old, second, third = owner.address, address(), address()
    for new in (second, third):
        assert owner.claim(new).status_code == 202
        assert owner.verify(code(owner.mails(to=new)[0])).status_code == 200
    undo = token(owner.mails(to=old, subject="was changed")[0])
    younger = token(owner.mails(to=second, subject="was changed")[0])
    assert mailing("POST", "/users/email/undo", json={"token": undo}).status_code == 204
    assert owner.secret_status == 401
    assert owner.login().status_code == 401
    for used in (undo, younger):
        refused = mailing("POST", "/users/email/undo", json={"token": used})
        assert (refused.status_code, refused.json()["code"]) == (401, "one_time_token_invalid")
    assert owner.reset(owner.ask_for_reset()).status_code == 204
    assert owner.login(old, NEW_PASSWORD).status_code == 200
    assert owner.login(third, NEW_PASSWORD).status_code == 401


def test_a_left_address_is_kept_for_its_user_for_a_week(
    mailing: Service, mailbox: Mailbox, database: Database[Document]
) -> None:
    owner = Owner.verified(mailing, mailbox)
    assert owner.remove().status_code == 204
    me = owner.get("/auth/me").json()
    assert (me["email"], me["email_verified"]) == (None, False)
    assert owner.login(owner.address).status_code == 401
    other = Owner.register(mailing, mailbox, owner.address)
    sent = code(next(mail for mail in owner.mails(3) if other.username in text(mail)))
    assert other.verify(sent).status_code == 409
    passed = datetime.now(UTC) - timedelta(seconds=1)
    database.users.update_one({"username": owner.username}, {"$set": {"held_emails.0.until": passed}})
    assert other.verify(sent).status_code == 200
    undo = token(owner.mails(subject="was removed")[0])
    assert mailing("POST", "/users/email/undo", json={"token": undo}).status_code == 401


@pytest.mark.parametrize("end", ["password", "logout-all", "reset"])
def test_a_pending_change_is_void_after_what_was_to_stop_it(mailing: Service, mailbox: Mailbox, end: str) -> None:
    """Unexpired email change attack (Sudhodanan and Paverd 2022)."""
    owner, new = Owner.verified(mailing, mailbox), address()
    assert owner.claim(new).status_code == 202
    sent = code(owner.mails(to=new)[0])
    if end == "password":
        body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
        owner.tokens = owner.post("/users/me/password", body).json()
    elif end == "logout-all":
        assert owner.post("/auth/logout-all").status_code == 204
        owner.tokens = owner.login().json()
    else:
        assert owner.reset(owner.ask_for_reset()).status_code == 204
        owner.tokens = owner.login(password=NEW_PASSWORD).json()
    assert owner.verify(sent).status_code == 409
    assert owner.get("/auth/me").json()["email"] == owner.address


def test_changes_of_the_address_need_a_fresh_login(
    mailing: Service, mailbox: Mailbox, database: Database[Document]
) -> None:
    owner = Owner.verified(mailing, mailbox)
    earlier = datetime.now(UTC) - timedelta(hours=1)
    database.sessions.update_one({"_id": owner.claims["sid"]}, {"$set": {"authenticated_at": earlier}})
    assert owner.refresh().status_code == 200
    for response in (owner.claim(address()), owner.remove()):
        assert (response.status_code, response.json()["code"]) == (401, "step_up_required")
        assert 'error="insufficient_user_authentication"' in response.headers["www-authenticate"]
    owner.tokens = owner.post("/auth/step-up", {"current_password": PASSWORD}).json()
    assert owner.claim(address()).status_code == 202


@pytest.mark.parametrize(
    "given",
    [
        "",
        "alice",
        "alice@",
        "@example.com",
        "alice@localhost",
        "alice@[127.0.0.1]",
        '"a b"@example.com',
        "alice@example.com\r\nBcc: bob@example.com",
        "alice\n@example.com",
        "\u0430lice@example.com",  # Cyrillic
        "alice@example.com.",
        "a" * 65 + "@example.com",
        "alice@" + "a" * 64 + ".com",
        "alice@" + "a." * 160 + "com",
        "alice@exa mple.com",
        "alice@example.com, bob@example.com",
        "Alice <alice@example.com>",
        "alice@example.com\x00",
    ],
)
def test_what_is_not_an_address_is_rejected(mailing: Service, given: str) -> None:
    """Header injection, look-alikes (homograph attack), lengths."""
    body = {"username": f"user-{secrets.token_hex(6)}", "password": PASSWORD, "email": given}
    for response in (
        mailing("POST", "/users/registration", json=body),
        mailing("POST", "/auth/reset", json={"email": given}),
    ):
        assert (response.status_code, response.json()["code"]) == (422, "invalid_fields")
        assert response.json()["errors"][0]["field"] == "email"


def test_tags_and_dots_are_part_of_an_address_and_domains_may_be_international(
    mailing: Service, mailbox: Mailbox
) -> None:
    name = secrets.token_hex(4)
    for given, stored in (
        (f"{name}.A+tag@Example.COM", f"{name}.A+tag@example.com"),
        (f"{name}@straße.example.org", f"{name}@xn--strae-oqa.example.org"),
    ):
        owner = Owner.register(mailing, mailbox, given)
        assert owner.get("/auth/me").json()["email"] == stored
        assert owner.mails(to=stored)


def test_registration_answers_the_same_whether_an_address_is_verified_or_not(
    mailing: Service, mailbox: Mailbox
) -> None:
    """User enumeration."""
    known, unknown = Owner.verified(mailing, mailbox).address, address()
    shapes = []
    for given in (known, unknown):
        body = {"username": f"user-{secrets.token_hex(6)}", "password": PASSWORD, "email": given}
        response = mailing("POST", "/users/registration", json=body)
        shapes.append((response.status_code, sorted(response.json()), response.json()["user"]["email_verified"]))
    assert shapes[0] == shapes[1]


def test_without_mail_there_are_no_routes_and_no_addresses(service: Service) -> None:
    for method, path in (("POST", "/auth/reset"), ("PUT", "/users/me/email"), ("POST", "/users/email/undo")):
        assert service(method, path, json={}).status_code == 404
    body = {"username": f"user-{secrets.token_hex(6)}", "password": PASSWORD, "email": address()}
    response = service("POST", "/users/registration", json=body)
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "email")
