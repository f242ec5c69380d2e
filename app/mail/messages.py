"""Make mails of texts (RFC 5322)."""

from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid

from app.mail.texts import REPEATED, TEXTS


def message(name: str, *, sender: str, to: str, facts: dict[str, str], count: int = 1) -> EmailMessage:
    """Return a mail with one of the texts.

    Raises ValueError for line breaks in headers (header injection).
    """
    text = TEXTS[name]
    mail = EmailMessage()
    mail["From"] = sender
    mail["To"] = to
    mail["Subject"] = text.subject.format_map(facts)
    mail["Date"] = format_datetime(datetime.now(UTC))
    mail["Message-ID"] = make_msgid(domain=mail["From"].addresses[0].domain)
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no vacation notes in return
    repeated = REPEATED.format(count=count) if count > 1 else ""
    mail.set_content((text.body + repeated).format_map(facts).lstrip("\n"))
    return mail
