"""A mail server for development: it prints each mail and keeps it in a folder."""

import email
import time
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tools.local_mongo import free_port

KEPT = 100  # the latest ones
LINE = "-" * 78


class Handler:
    """Takes every mail."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's
        """Print a mail and keep it."""
        content = envelope.original_content or b""
        mail: Any = email.message_from_bytes(content, policy=default)
        print(f"{LINE}\n{_printable(mail)}{LINE}", flush=True)
        self._keep(content)
        return "250 OK"

    def _keep(self, content: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / f"{time.time_ns()}.eml").write_bytes(content)
        for old in sorted(self._folder.glob("*.eml"))[:-KEPT]:
            old.unlink(missing_ok=True)


def server(folder: Path) -> Controller:
    """Return a server that serves in a thread from its start until this process ends."""
    return Controller(Handler(folder), hostname="127.0.0.1", port=free_port())


def _printable(mail: EmailMessage) -> str:
    head = "".join(f"{name}: {mail[name]}\n" for name in ("To", "Subject"))
    body: str = mail.get_content()
    return f"  A mail, kept in instance/mail/\n{head}\n" + body.replace("\r\n", "\n")
