"""The use cases of a user's e-mail address: claim, verify, change, remove, and undo a change.

Only a verified address counts. Verification needs the user's own session beside the code, so that neither a mail
scanner nor the owner of the mailbox verifies another user's account (OWASP ASVS 6.6.2, pre-hijacking).
"""

from datetime import datetime, timedelta

from app.http.client import Client
from app.logs.audit import audit
from app.models.one_time_tokens import OneTimeToken, OneTimeTokens
from app.models.outbox import Outbox
from app.models.sessions import SessionOver
from app.models.users import NO_PASSWORD, Email, EmailTaken, User, Users
from app.security.generations import Generations
from app.security.notices import Notices
from app.security.own_account import OwnAccount
from app.security.second_factor import Evidence, Proof, SecondFactor
from app.security.throttle import Throttle
from app.tokens.access import Claims
from app.tokens.one_time import Codes, Purpose, digest

UNDO_LIFETIME = timedelta(days=7)


class WrongCode(Exception):
    """The code is wrong, used or expired, or there were too many tries."""


class NothingToVerify(Exception):
    """There is no address that waits for a code."""


class InvalidOneTimeToken(Exception):
    """The token is unknown, used or expired, or of no use any more."""


class Emails:
    """What users do with their e-mail address."""

    def __init__(
        self,
        users: Users,
        tokens: OneTimeTokens,
        codes: Codes,
        outbox: Outbox,
        notices: Notices,
        throttle: Throttle,
        generations: Generations,
        own_account: OwnAccount,
        second_factor: SecondFactor,
    ) -> None:
        self._users = users
        self._own_account = own_account
        self._second_factor = second_factor
        self._tokens = tokens
        self._codes = codes
        self._outbox = outbox
        self._notices = notices
        self._throttle = throttle
        self._generations = generations

    async def claim(self, claims: Claims, email: Email) -> None:
        """Store an address that is to be verified, and send a code to it.

        A verified one stays until then, and is told. Raises SessionOver or TooManyAttempts.
        """
        await self._throttle.email_change(claims.sub)

        async def change(user: User) -> None:
            await self._users.claim_email(user, email)
            await self._tokens.void(user.id, [Purpose.VERIFICATION])
            await self._outbox.add_code(user, email)
            await self._notices.tell("email_change_requested", user, undo=True)

        user = await self._own_account.change(claims, change)
        audit("email_claimed", user_id=user.id)

    async def send_code(self, claims: Claims) -> None:
        """Send a new code. Raises NothingToVerify or SessionOver."""

        async def send(user: User) -> None:
            await self._outbox.add_code(user, _to_verify(user))

        await self._own_account.change(claims, send)

    async def verify(self, claims: Claims, code: str) -> User:
        """Verify the address that the code was sent to.

        Raises WrongCode, NothingToVerify, EmailTaken or SessionOver.
        """
        user = await self._users.by_id(claims.sub)
        if user is None:
            raise SessionOver
        email = _to_verify(user)
        # Taken off before the comparison, so that parallel guesses do not have more tries.
        token = await self._tokens.try_code(Purpose.VERIFICATION, user)
        about = (Purpose.VERIFICATION, user.id, email.key)
        if token is None or token.subject != email.key or not self._codes.matches(token.mac, code, *about):
            audit("code_rejected", user_id=user.id)
            raise WrongCode

        async def change(user: User) -> None:
            if _to_verify(user) != email or not await self._tokens.consume(token):
                raise WrongCode
            await self._users.verify_email(user, email, kept=UNDO_LIFETIME)
            if user.address and user.address.key != email.key:
                await self._tokens.void(user.id, [Purpose.RESET])
                await self._notices.tell("email_changed", user, undo=True)

        await self._own_account.change(claims, change)
        audit("email_verified", user_id=user.id)
        return await self._users.by_id(user.id) or user

    async def remove(self, claims: Claims) -> None:
        """Remove the address; a verified one is told.

        Raises SessionOver.
        """

        async def change(user: User) -> None:
            await self._users.remove_email(user, kept=UNDO_LIFETIME)
            await self._tokens.void(user.id, [Purpose.VERIFICATION, Purpose.RESET])
            await self._notices.tell("email_removed", user, undo=True)

        user = await self._own_account.change(claims, change)
        audit("email_removed", user_id=user.id)

    async def undo(self, token: str, client: Client, evidence: Evidence | None = None) -> None:
        """Restore the address that a notice was sent to.

        Later factors are removed, and all sessions end.

        The account has no usable password then, until it is reset by the restored address. Later changes are undone,
        too: an older notice wins over a younger one. A factor that the user had before is asked for. Raises
        InvalidOneTimeToken, SecondFactorRequired, WrongSecondFactor, HashingBusy or TooManyAttempts.
        """
        found = await self._tokens.find(digest(token), Purpose.UNDO)
        user = await self._users.by_id(found.user_id) if found else None
        if found is None or not found.facts or user is None:
            raise InvalidOneTimeToken
        if not await self._second_factor.had_before(user, _since(found)):
            return await self._undo(found)
        if evidence is None:
            raise await self._second_factor.required(user)
        async with self._second_factor.proven(user, evidence, client) as proof:
            return await self._undo(found, proof)

    async def _undo(self, found: OneTimeToken, proof: Proof | None = None) -> None:
        facts = found.facts or {}
        email = Email(facts["address"], facts["key"])

        async def right(user: User) -> None:
            if not await self._tokens.consume(found):
                raise InvalidOneTimeToken
            await self._second_factor.undo(user, _since(found), proof)
            await self._tokens.void(user.id, [Purpose.VERIFICATION, Purpose.RESET])
            await self._tokens.void_later(Purpose.UNDO, found)
            await self._users.restore_email(user, email)
            await self._notices.tell_at(email, "email_restored", user)

        try:
            user = await self._generations.change(found.user_id, right=right, password=NO_PASSWORD, second_factor=True)
        except EmailTaken:  # it is held as long as the token lives, but clocks differ
            user = None
        if user is None:
            raise InvalidOneTimeToken
        audit("email_restored", user_id=user.id)


def _since(undo: OneTimeToken) -> datetime:
    """Return since when changes are undone; tokens of an earlier release do not state it."""
    since: datetime = (undo.facts or {}).get("since", undo.created_at)
    return since


def _to_verify(user: User) -> Email:
    """Return the address that waits for a code. Raises NothingToVerify."""
    email = user.new_email or (None if user.email_verified else user.email)
    if email is None:
        raise NothingToVerify
    return email
