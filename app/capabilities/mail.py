"""Mail: e-mail addresses of users, resets of forgotten passwords, notices."""

from app.database.reports import Reports
from app.mail.messages import message
from app.mail.sender import Sender
from app.mail.smtp import Server, Smtp
from app.models.attempts import Attempts
from app.models.one_time_tokens import OneTimeTokens
from app.models.outbox import Outbox
from app.models.users import Users
from app.security.mailings import Mailings
from app.tokens.one_time import Codes
from config import Config
from config.addresses import smtp_server
from config.product import NAME


class Mail:
    """Sends what is in the outbox."""

    def __init__(
        self,
        config: Config,
        users: Users,
        tokens: OneTimeTokens,
        codes: Codes,
        outbox: Outbox,
        attempts: Attempts,
        reports: Reports,
    ) -> None:
        server = smtp_server(config.SMTP_URL or "")
        self._smtp = Smtp(Server(server.host, server.port, server.username, server.password, server.tls))
        self._from = config.MAIL_FROM or ""
        mailings = Mailings(
            users,
            tokens,
            codes,
            attempts,
            sender=self._from,
            product=NAME,
            links=config.ACCOUNT_URL or f"{config.PUBLIC_URL}/account",
            per_minute=config.MAILS_PER_MINUTE,
        )
        self.sender = Sender(outbox, self._smtp, mailings.compose, reports)

    async def test(self, to: str) -> None:
        """Send a mail past the outbox. Raises MailError."""
        await self._smtp.send(message("test", sender=self._from, to=to, facts={"product": NAME}))
