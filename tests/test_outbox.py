"""The outbox: mails are sent although the mail server fails, and requests do not notice."""

import asyncio
import logging
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from pymongo.database import Database

from app.mail import sender, smtp
from config import Config
from tests.conftest import PASSWORD, Document, Service
from tests.mail import Owner
from tests.mailbox import Mailbox, text, token, with_mail
from tests.processes import TIMEOUT_SECONDS


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    """Run a mail server."""
    with Mailbox() as mailbox:
        yield mailbox


@pytest.fixture
def mailing(config: Config, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """Run a service that sends mails, and tries again soon."""
    monkeypatch.setattr(sender, "LONGEST_PAUSE_SECONDS", 0.2)
    monkeypatch.setattr(smtp, "SEND_SECONDS", 0.5)
    with Service(with_mail(config, mailbox)) as service:
        yield service


def change_password(owner: Owner, current: str, new: str) -> None:
    """Change the password, which the user is told of."""
    response = owner.post("/users/me/password", {"current_password": current, "new_password": new})
    assert response.status_code == 200, response.text
    owner.tokens = response.json()


def test_a_mail_is_sent_when_the_server_is_back(mailing: Service, mailbox: Mailbox) -> None:
    owner = Owner.verified(mailing, mailbox)
    mailbox.stop()
    change_password(owner, PASSWORD, "a quite different sentence")
    assert mailing("POST", "/auth/reset", json={"email": owner.address}).status_code == 202
    assert mailing("GET", "/health/ready").status_code == 200
    mailbox.start()
    assert owner.mails(subject="was changed")
    assert owner.reset(token(owner.mails(subject="new password")[0])).status_code == 204


@pytest.mark.parametrize("failure", ["hangs", "refuses for now"])
def test_a_mail_is_sent_when_the_server_takes_it(mailing: Service, mailbox: Mailbox, failure: str) -> None:
    owner = Owner.verified(mailing, mailbox)
    asked: list[str] = []

    def later(address: str) -> str:
        asked.append(address)
        return "451 later"

    if failure == "hangs":
        mailbox.hangs.set()
    else:
        mailbox.reply = later
    change_password(owner, PASSWORD, "a quite different sentence")
    other = Owner.register(mailing, mailbox)
    mailing.run(asyncio.sleep(1.5))
    assert not [mail for mail in mailbox.to(owner.address) if "was changed" in mail["Subject"]]
    mailbox.hangs.clear()
    mailbox.reply = lambda _: None
    assert len(owner.mails(subject="was changed")) == 1
    assert other.mails()


def test_a_mail_that_is_refused_for_good_is_kept_for_operators_and_stops_no_other(
    mailing: Service, mailbox: Mailbox, database: Database[Document], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    mailbox.reply = lambda address: "550 no such user" if "gone" in address else None
    gone = Owner.register(mailing, mailbox, f"gone-{secrets.token_hex(4)}@example.com")
    assert Owner.register(mailing, mailbox).mails()
    row = database.outbox.find_one({"address": gone.address})
    assert row
    assert (row["dead"], row["due"]) == ("the server refused the mail (550)", None)
    lines = [record.getMessage() for record in caplog.records if record.name != "mail.log"]  # of the tests' server
    assert not [line for line in lines if gone.address in line]
    assert "a mail of the kind verification was not sent: the server refused the mail (550)" in caplog.text


def test_equal_notices_within_an_hour_are_one_with_their_number(
    mailing: Service, mailbox: Mailbox, database: Database[Document]
) -> None:
    owner = Owner.verified(mailing, mailbox)
    passwords = [PASSWORD, *(f"sentence number {number} of mine" for number in range(4))]
    change_password(owner, passwords[0], passwords[1])
    assert len(owner.mails(subject="was changed")) == 1
    for current, new in pairwise(passwords[1:]):
        change_password(owner, current, new)
    Owner.register(mailing, mailbox).mails()
    assert len(owner.mails(subject="was changed")) == 1
    query = {"address": owner.address, "message": "password_changed"}
    database.outbox.update_one(query, {"$set": {"due": datetime.now(UTC)}})
    assert "3 times" in text(owner.mails(2, subject="was changed")[1])


def test_what_is_too_old_is_not_sent(mailing: Service, mailbox: Mailbox, database: Database[Document]) -> None:
    owner = Owner.verified(mailing, mailbox)
    mailbox.stop()
    assert mailing("POST", "/auth/reset", json={"email": owner.address}).status_code == 202
    past = datetime.now(UTC) - timedelta(seconds=1)
    query = {"kind": "reset", "key": owner.address.lower()}
    database.outbox.update_one(query, {"$set": {"expires_at": past}})
    mailing.run(until_dead(database, query))
    mailbox.start()
    Owner.register(mailing, mailbox).mails()
    assert not [mail for mail in mailbox.to(owner.address) if "new password" in mail["Subject"]]


def test_a_mail_whose_worker_died_is_sent_by_another(
    mailing: Service, mailbox: Mailbox, database: Database[Document]
) -> None:
    """A claim is a lease."""
    owner = Owner.verified(mailing, mailbox)
    mailbox.stop()
    change_password(owner, PASSWORD, "a quite different sentence")
    future = datetime.now(UTC) + timedelta(hours=1)
    query = {"address": owner.address, "message": "password_changed"}
    database.outbox.update_one(query, {"$set": {"due": future, "attempts": 1}})
    mailbox.start()
    Owner.register(mailing, mailbox).mails()
    assert not [mail for mail in mailbox.to(owner.address) if "was changed" in mail["Subject"]]
    database.outbox.update_one(query, {"$set": {"due": datetime.now(UTC)}})
    assert owner.mails(subject="was changed")


def test_a_change_that_is_not_committed_is_not_told(mailing: Service, mailbox: Mailbox) -> None:
    """The row is part of the transaction."""
    owner = Owner.verified(mailing, mailbox)
    other = owner.login().json()
    assert owner.post("/auth/logout-all").status_code == 204
    body = {"current_password": PASSWORD, "new_password": "a quite different sentence"}
    refused = mailing("POST", "/users/me/password", token=other["access_token"], json=body)
    assert refused.status_code == 401
    Owner.register(mailing, mailbox).mails()
    assert not [mail for mail in mailbox.to(owner.address) if "was changed" in mail["Subject"]]


def test_the_outbox_contains_no_secret(mailing: Service, mailbox: Mailbox, database: Database[Document]) -> None:
    """A copy of the database opens nothing."""
    mailbox.reply = lambda _: "451 later"
    owner = Owner.register(mailing, mailbox)
    row = database.outbox.find_one({"address": owner.address})
    assert row
    assert row["facts"] == {}
    names = {name for name, value in row.items() if isinstance(value, str)}
    assert names == {"_id", "kind", "message", "user_id", "address", "key"}


def test_deleted_users_leave_only_the_notice_of_it(
    mailing: Service, mailbox: Mailbox, database: Database[Document]
) -> None:
    owner = Owner.verified(mailing, mailbox)
    user_id = owner.claims["sub"]
    owner.ask_for_reset()
    assert owner.post("/users/me/delete", {"current_password": PASSWORD}).status_code == 204
    assert owner.mails(subject="was deleted")
    assert database.one_time_tokens.count_documents({"user_id": user_id}) == 0
    assert {row["message"] for row in database.outbox.find({"user_id": user_id})} == {"account_deleted"}


async def until_dead(database: Database[Document], query: Document) -> None:
    """Wait until a mail will not be sent any more."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not database.outbox.find_one({**query, "dead": {"$type": "string"}}):  # noqa: ASYNC110 - another process may write
            await asyncio.sleep(0.05)
