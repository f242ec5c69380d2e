"""Hand mails to a mail server, with TLS and time limits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.message import EmailMessage

import aiosmtplib

from app.mail.errors import NotDelivered, Undeliverable, Unreachable

SEND_SECONDS = 20  # for one mail, with its connection; a server that hangs counts as unreachable
PERMANENT = 500  # from this reply code on, RFC 5321 section 4.2.1


@dataclass(frozen=True)
class Server:
    """Where mails are handed over."""

    host: str
    port: int
    username: str | None
    password: str | None
    tls: str  # implicit, starttls or none


class Smtp:
    """Sends mails, each on a connection of its own."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def send(self, mail: EmailMessage) -> None:
        """Hand over a mail.

        Raises NotDelivered, Unreachable or Undeliverable, whose texts contain no address.
        """
        try:
            async with asyncio.timeout(SEND_SECONDS), self._connected() as client:
                await self._send(client, mail)
        except TimeoutError as error:
            raise Unreachable(_reason(error)) from None

    async def _send(self, client: aiosmtplib.SMTP, mail: EmailMessage) -> None:
        try:
            await client.send_message(mail)
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise _refused(error.recipients[0].code) from None
        except aiosmtplib.SMTPDataError as error:
            raise _refused(error.code) from None
        except (aiosmtplib.SMTPException, OSError) as error:
            raise NotDelivered(_reason(error)) from None

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[aiosmtplib.SMTP]:
        server = self._server
        client = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            username=server.username,
            password=server.password,
            timeout=SEND_SECONDS,
            use_tls=server.tls == "implicit",
            start_tls=server.tls == "starttls",  # None would be opportunistic, which an attacker can strip
        )
        try:
            await client.connect()
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            client.close()
            raise Unreachable(_reason(error)) from None
        try:
            yield client
        finally:
            client.close()


def _refused(code: int) -> Exception:
    reason = f"the server refused the mail ({code})"
    return Undeliverable(reason) if code >= PERMANENT else NotDelivered(reason)


def _reason(error: Exception) -> str:
    """Return a reason without anything that the server or a user wrote."""
    code = getattr(error, "code", None)
    return f"{type(error).__name__} {code}" if code else type(error).__name__
