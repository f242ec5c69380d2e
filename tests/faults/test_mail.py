"""Mails while workers are killed at any moment and the mail server is away: each is sent, and hardly one twice."""

import os
import secrets
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from pymongo import MongoClient

from app.security.passwords import CONTEXT
from tests.conftest import Document
from tests.faults.conftest import Server, serving
from tests.mailbox import Mailbox
from tests.processes import until
from tools.local_mongo import LocalMongo
from tools.verified_users import verified_user

Note = Callable[[str], None]

USERS = 200
SECONDS = 60  # of requests, and of kills
AWAY_SECONDS = 20  # of the mail server, in the middle
KILL_SECONDS = 1.5  # between two kills
BACK_SECONDS = 60  # after the server's return, or after the last event, all is sent
MOST_TWICE = 0.01
OLD, NEW = "correct horse battery staple", "a quite different sentence"


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    """Run a mail server."""
    with Mailbox() as mailbox:
        yield mailbox


@pytest.fixture
def server(mongo: LocalMongo, mailbox: Mailbox) -> Iterator[Server]:
    """Run two workers that send mails."""
    mail = {"SMTP_URL": mailbox.url, "MAIL_FROM": "no-reply@demo.example", "PUBLIC_URL": "http://localhost:8000"}
    with serving(mongo.uri, **mail) as server:
        yield server


class Killer:
    """Kills one worker after the other, whatever it does."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.killed = 0

    def __enter__(self) -> "Killer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(KILL_SECONDS * (0.5 + secrets.randbelow(1000) / 1000)):
            if workers := self._server.workers:
                os.kill(secrets.choice(workers).pid, signal.SIGKILL)
                self.killed += 1


def add_users(uri: str) -> list[str]:
    """Add users with verified addresses, and return their names."""
    names = [f"user-{secrets.token_hex(6)}" for _ in range(USERS)]
    password_hash = CONTEXT.hash(OLD)
    with MongoClient[Document](uri) as client:
        documents = [verified_user(name, password_hash, f"{name}@example.com") for name in names]
        client.get_default_database().users.insert_many(documents)
    return names


def change_password(server: Server, name: str) -> bool:
    """Change the password of a user, and return whether that was acknowledged."""
    try:
        login = server.post("/auth", username=name, password=OLD)
        if login.status_code != 200:
            return False
        body = {"current_password": OLD, "new_password": NEW}
        return server.post("/users/me/password", login.json()["access_token"], **body).status_code == 200
    except Exception:
        return False


def test_every_notice_is_sent_although_workers_are_killed_and_the_mail_server_is_away(
    server: Server, mailbox: Mailbox, mongo: LocalMongo, note: Note
) -> None:
    names = add_users(mongo.uri)
    acknowledged: list[str] = []
    began = time.monotonic()
    with Killer(server) as killer:
        for name in names:
            elapsed = time.monotonic() - began
            if elapsed > SECONDS:
                break
            if SECONDS / 2 - AWAY_SECONDS / 2 < elapsed < SECONDS / 2 + AWAY_SECONDS / 2:
                mailbox.stop()
            else:
                mailbox.start()
            if change_password(server, name):
                acknowledged.append(f"{name}@example.com")
    mailbox.start()
    back = time.monotonic()

    def missing() -> set[str]:
        return set(acknowledged) - set(mailbox.recipients)

    until(lambda: not missing(), "every notice is sent", seconds=BACK_SECONDS)
    sent = Counter(mailbox.recipients)
    twice = sum(number > 1 for number in sent.values())
    note(
        f"{killer.killed} workers killed, server away for {AWAY_SECONDS} s: {len(acknowledged)} changes acknowledged, "
        f"{len(sent)} told, {twice} twice, the last one {time.monotonic() - back:.1f} s after the last request"
    )
    assert killer.killed > SECONDS / KILL_SECONDS / 3
    assert len(acknowledged) > USERS / 4
    assert twice <= max(1, MOST_TWICE * len(sent))
