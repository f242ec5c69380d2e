"""Compose the mails of the outbox: look up whom they are for, and make their secrets."""

from email.message import EmailMessage

from app.mail.errors import Later
from app.mail.messages import message
from app.models.attempts import Attempts
from app.models.one_time_tokens import ALIVE, OneTimeTokens
from app.models.outbox import LIFETIMES, Kind, Mail
from app.models.users import Email, User, Users
from app.security.emails import UNDO_LIFETIME
from app.tokens.one_time import Codes, Purpose, digest, new_token

PER_HOUR, PER_DAY = 5, 20  # codes and resets to one address, over all accounts (mail bombing)
MINUTE, HOUR, DAY = 60, 3600, 24 * 3600


class Mailings:
    """Makes the mail of a row, unless it is of no use any more.

    `links` is the address of the pages that read a token from the fragment, which reaches no server, proxy or log.
    """

    def __init__(
        self,
        users: Users,
        tokens: OneTimeTokens,
        codes: Codes,
        attempts: Attempts,
        *,
        sender: str,
        product: str,
        links: str,
        per_minute: int,
    ) -> None:
        self._per_minute = per_minute
        self._users = users
        self._tokens = tokens
        self._codes = codes
        self._attempts = attempts
        self._sender = sender
        self._product = product
        self._links = links

    async def compose(self, mail: Mail) -> EmailMessage | None:
        """Return the mail of a row, or None if nothing is to be sent.

        Raises Later if too many mails were sent. Notices do not wait: they tell of attacks.
        """
        if mail.kind is Kind.NOTICE:
            return await self._notice(mail)
        return await (self._code(mail) if mail.kind is Kind.CODE else self._reset(mail))

    async def _notice(self, mail: Mail) -> EmailMessage:
        facts = dict(mail.facts)
        if facts.pop("undo", False) and (user := await self._users.by_id(mail.user_id)):
            token, subject = new_token(), {"address": mail.address, "key": mail.key, "since": mail.created_at}
            await self._tokens.add(
                digest(token),
                Purpose.UNDO,
                user,
                mail.key,
                lifetime=UNDO_LIFETIME,
                mail=str(mail.number),
                facts=subject,
            )
            facts["undo_link"] = f"{self._links}/undo#token={token}"
        facts.setdefault("undo_link", "")
        return self._message(mail.message, mail.address, facts, count=mail.count)

    async def _code(self, mail: Mail) -> EmailMessage | None:
        user = await self._users.by_id(mail.user_id)
        claimed = (user.new_email or user.email) if user else None
        if user is None or claimed != Email(mail.address, mail.key) or not await self._allowed(mail, user):
            return None
        code, mac = self._codes.new(Purpose.VERIFICATION, user.id, mail.key)
        await self._tokens.add_code(Purpose.VERIFICATION, user, mail.key, mac, lifetime=LIFETIMES[Kind.CODE])
        return self._message(mail.message, mail.address, {"code": code, "username": user.username})

    async def _reset(self, mail: Mail) -> EmailMessage | None:
        user = await self._users.by_email(mail.key)
        if user is None or user.address is None or not await self._allowed(mail, user):
            return None
        if await self._tokens.alive(Purpose.RESET, user.id, besides=str(mail.number)) >= ALIVE:
            return None
        token, lifetime = new_token(), LIFETIMES[Kind.RESET]
        await self._tokens.add(digest(token), Purpose.RESET, user, mail.key, lifetime=lifetime, mail=str(mail.number))
        link = f"{self._links}/reset#token={token}"
        return self._message(mail.message, user.address.address, {"reset_link": link, "username": user.username})

    async def _allowed(self, mail: Mail, user: User) -> bool:
        """Return whether a secret may be sent: the user is enabled, nothing has ended it, and the address has room.

        Raises Later.
        """
        if user.disabled or (user.generation_at and user.generation_at > mail.created_at):
            return False
        if mail.attempts > 1:  # it was counted
            return True
        # After the look-up: requests with unknown addresses take no room from others.
        window = await self._attempts.count("mails", MINUTE)
        if window.attempts > self._per_minute:
            raise Later(window.left)
        hour = await self._attempts.count(f"mails hour {mail.key}", HOUR)
        day = await self._attempts.count(f"mails day {mail.key}", DAY)
        return hour.attempts <= PER_HOUR and day.attempts <= PER_DAY

    def _message(self, name: str, to: str, facts: dict[str, str], *, count: int = 1) -> EmailMessage:
        known = {"product": self._product, **facts}
        return message(name, sender=self._sender, to=to, facts=known, count=count)
