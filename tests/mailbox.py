"""A mail server of the tests, whose mails they read, and the settings of a service that sends to it."""

import asyncio
import email
import re
import threading
import time
from collections.abc import Callable
from email.message import EmailMessage
from email.policy import default
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from config import Config
from tests.processes import TIMEOUT_SECONDS
from tools.local_mongo import free_port

LINK = re.compile(r"^(\S+)#token=(\S+)$", re.MULTILINE)
CODE = re.compile(r"^([0-9]{8})$", re.MULTILINE)


class Mailbox:
    """Takes all mails, unless `reply` says otherwise."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.reply: Callable[[str], str | None] = lambda _: None  # to a recipient
        self.hangs = threading.Event()
        self.port = free_port()
        self._controller: Controller | None = None

    def __enter__(self) -> "Mailbox":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The value of SMTP_URL."""
        return f"smtp://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen."""
        if self._controller:
            return
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)
        self._controller.start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        if self._controller:
            self._controller.stop()
            self._controller = None

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Answer RCPT TO."""
        while self.hangs.is_set():  # noqa: ASYNC110 - set in another thread
            await asyncio.sleep(0.05)
        if refused := self.reply(address):
            return refused
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Take a mail."""
        mail: Any = email.message_from_bytes(envelope.original_content or b"", policy=default)
        self.recipients.extend(envelope.rcpt_tos)
        self.mails.append(mail)
        return "250 OK"

    def to(self, address: str) -> list[EmailMessage]:
        """Return the mails to an address."""
        return [mail for mail in self.mails if mail["To"] == address]

    async def arrived(self, address: str, number: int = 1, *, subject: str = "") -> list[EmailMessage]:
        """Wait until so many mails to an address, with a text in their subjects, have arrived; return them."""
        end = time.monotonic() + TIMEOUT_SECONDS
        while True:
            found = [mail for mail in self.to(address) if subject in mail["Subject"]]
            if len(found) >= number or time.monotonic() > end:
                assert len(found) >= number, [(mail["To"], mail["Subject"]) for mail in self.mails]
                return found
            await asyncio.sleep(0.02)


def with_mail(config: Config, mailbox: Mailbox, **settings: Any) -> Config:
    """Return settings with which mails go to the mailbox."""
    mail = {"SMTP_URL": mailbox.url, "MAIL_FROM": "Demo <no-reply@demo.example>", "PUBLIC_URL": "https://demo.example"}
    return config.model_copy(update={**mail, **settings})


def text(mail: EmailMessage) -> str:
    """Return the text of a mail."""
    content: str = mail.get_content()
    return content.replace("\r\n", "\n")


def token(mail: EmailMessage) -> str:
    """Return the token of the link in a mail."""
    link = LINK.search(text(mail))
    assert link, text(mail)
    return link[2]


def code(mail: EmailMessage) -> str:
    """Return the code in a mail."""
    found = CODE.search(text(mail))
    assert found, text(mail)
    return found[1]
