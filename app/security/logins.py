"""Log in, refresh and log out: open, continue and end sessions, and issue their tokens."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pymongo.errors import PyMongoError
from sanic.log import logger

from app.background import shielded
from app.database.failures import summary
from app.database.transactions import Transactions
from app.http.client import Client
from app.logs.audit import audit, audit_repeated
from app.models.one_time_tokens import OneTimeTokens
from app.models.sessions import ActiveSession, Device, Session, SessionOver, Sessions, TokenReused
from app.models.users import Access, User, Users
from app.schemas.auth import Tokens
from app.security.credentials import CredentialsVerifier, WrongCredentials
from app.security.factor_errors import PasskeyCopied, SecondFactorOff, WrongSecondFactor
from app.security.notices import Notices
from app.security.revocations import Revocations
from app.security.second_factor import BY_PASSKEY, Evidence, SecondFactor
from app.security.throttle import Attempt
from app.tokens.access import AccessTokens, Claims
from app.tokens.refresh import InvalidRefreshToken, RefreshTokens

if TYPE_CHECKING:
    from app.security.passkeys import Shown

BY_PASSWORD = ("pwd",)  # RFC 8176
# What RFC 6749 calls an invalid grant.
NOT_GRANTED = (WrongCredentials, WrongSecondFactor, InvalidRefreshToken, SessionOver, TokenReused)


def device(client: Client) -> Device:
    """Return what a session states about its client."""
    return Device(client.address, client.user_agent)


def scopes(access: Access) -> list[str]:
    """Return the names of an access level and of those below it."""
    return [level.name.lower() for level in Access if level <= access]


class Logins:
    """The use cases of sessions.

    Writes are shielded: what the database has done, this worker knows and the audit trail states, also if the client
    disconnects in between.
    """

    def __init__(
        self,
        users: Users,
        sessions: Sessions,
        revocations: Revocations,
        credentials: CredentialsVerifier,
        transactions: Transactions,
        notices: Notices,
        access_tokens: AccessTokens,
        refresh_tokens: RefreshTokens,
        tokens: OneTimeTokens,
        second_factor: SecondFactor,
    ) -> None:
        self._tokens = tokens
        self._second_factor = second_factor
        self._users = users
        self._transactions = transactions
        self._notices = notices
        self._sessions = sessions
        self._revocations = revocations
        self._credentials = credentials
        self._access_tokens = access_tokens
        self._refresh_tokens = refresh_tokens

    async def log_in(self, username: str, password: str, client: Client) -> Tokens:
        """Open a session for a username and password.

        Raises SecondFactorRequired, WrongCredentials, TooManyAttempts or HashingBusy.
        """
        user = await self._credentials.authenticate(username, password, client)
        try:
            return await self.open(user, client)
        except SessionOver:
            raise WrongCredentials from None

    @shielded
    async def log_in_with_factor(self, challenge: str, evidence: Evidence, client: Client) -> Tokens:
        """Complete a login whose password was right with a second factor.

        Raises WrongSecondFactor, TooManyAttempts or HashingBusy.
        """
        token = await self._second_factor.try_challenge(challenge)
        user = await self._users.by_id(token.user_id)
        if user is None:
            raise WrongSecondFactor
        async with self._second_factor.proven(user, evidence, client, after_password=True) as proof:

            async def open_() -> Session:
                now = await self._users.lock(user.id)
                if now is None or now.disabled or now.generation != token.generation:
                    raise WrongSecondFactor
                if not await self._tokens.consume(token):
                    raise WrongSecondFactor
                await self._second_factor.use(proof)
                return await self._sessions.open(now, device(client), amr=(*BY_PASSWORD, *proof.amr))

            await self._credentials.settle(user, Attempt.from_document(token.facts or {}), client.network)
            session = await self._transactions.run(open_)
        return await self._opened(user, session)

    @shielded
    async def log_in_with_passkey(self, challenge: str, answer: Mapping[str, Any], client: Client) -> Tokens:
        """Open a session for the answer of a passkey, which is two factors in one.

        Raises WrongSecondFactor or SecondFactorOff.
        """
        passkeys = self._second_factor.passkeys
        if passkeys is None:
            raise SecondFactorOff
        try:
            enrolled, shown = await passkeys.identify(challenge, answer)
            user, session = await self._open_for_passkey(enrolled.user_id, shown, client)
        except WrongSecondFactor:
            audit_repeated("passkey_rejected", of=None)
            raise
        await self._credentials.remember(user, client.network)
        return await self._opened(user, session)

    async def _open_for_passkey(self, user_id: str, shown: "Shown", client: Client) -> tuple[User, Session]:
        async def open_() -> tuple[User, Session]:
            now = await self._users.lock(user_id)
            if now is None or now.disabled:
                raise WrongSecondFactor
            await self._second_factor.use_passkey(now.id, shown)
            return now, await self._sessions.open(now, device(client), amr=BY_PASSKEY)

        try:
            return await self._transactions.run(open_)
        except PasskeyCopied:
            if user := await self._users.by_id(user_id):
                await self._second_factor.tell_of_copy(user)
            raise

    @shielded
    async def open(
        self, user: User, client: Client, *, amr: Sequence[str] = BY_PASSWORD, since: datetime | None = None
    ) -> Tokens:
        """Open a session for a user who was authenticated, now or at an earlier time.

        Raises SessionOver if the user was changed meanwhile.
        """
        session = await self._sessions.open(user, device(client), amr=amr, authenticated_at=since)
        # Whatever ends all sessions first starts a generation: either it is seen here, or it ends this session, too.
        now = await self._users.by_id(user.id)
        if now is None or now.disabled or now.generation != user.generation:
            await self._sessions.discard(session.id)
            raise SessionOver
        return await self._opened(user, session)

    async def _opened(self, user: User, session: Session) -> Tokens:
        audit("logged_in", user_id=user.id, session_id=session.id, amr=" ".join(session.amr))
        await self._end_surplus(user.id)
        return self.issue(session)

    @shielded
    async def refresh(self, refresh_token: str) -> Tokens:
        """Exchange a refresh token for new tokens.

        Raises InvalidRefreshToken, SessionOver or TokenReused.
        """
        try:
            session_id, counter = self._refresh_tokens.decode(refresh_token)
            session = await self._rotate(session_id, counter)
        except (InvalidRefreshToken, SessionOver):
            audit_repeated("refresh_rejected", of=None)
            raise
        audit_repeated("refreshed", of=session.id, user_id=session.user_id, session_id=session.id)
        return self.issue(session)

    async def _rotate(self, session_id: str, counter: int) -> Session:
        try:
            return await self._sessions.rotate(session_id, counter)
        except TokenReused as reused:
            await self._end_reused(session_id, reused.user_id)
            raise

    async def _end_reused(self, session_id: str, user_id: str) -> None:
        """End a session whose refresh token was used twice, and tell its user."""

        async def start() -> None:
            if await self._sessions.start_end(session_id, user_id) and (user := await self._users.by_id(user_id)):
                await self._notices.tell("refresh_token_reused", user)

        if self._notices.on:
            await self._transactions.run(start)
        await self._sessions.end(session_id)
        self._revocations.add(session_id)
        audit("refresh_token_reused", user_id=user_id, session_id=session_id)

    async def active(self, user_id: str) -> list[ActiveSession]:
        """Return the user's active sessions, newest first."""
        return await self._sessions.active(user_id)

    @shielded
    async def end(self, session_id: str, claims: Claims) -> bool:
        """End a session of the token's user and return whether it was active.

        Raises SessionOver if the token's own session is not.
        """

        async def start() -> bool:
            await self._sessions.require_active(claims.sid, claims.sub)
            return await self._sessions.start_end(session_id, claims.sub)

        started = await self._transactions.run(start)
        if started:
            await self.finish_end(session_id, claims.sub)
        return started

    @shielded
    async def log_out(self, claims: Claims) -> None:
        """End the session of a token."""
        await self.finish_end(claims.sid, claims.sub)

    @shielded
    async def revoke(self, token: str, claims: Claims | None) -> None:
        """End the session of a refresh token, or of an access token with these claims (RFC 7009)."""
        if claims:
            return await self.finish_end(claims.sid, claims.sub)
        with suppress(InvalidRefreshToken):
            session_id, _ = self._refresh_tokens.decode(token)
            await self.finish_end(session_id, None)
        return None

    async def finish_interrupted(self) -> None:
        """Finish ends of sessions whose worker died after it had started them."""
        for session_id, user_id in await self._sessions.with_unfinished_end():
            await self.finish_end(session_id, user_id)

    async def _end_surplus(self, user_id: str) -> None:
        """Keep the number of a user's sessions bounded (session flooding).

        A failure does not fail the login, whose session is open: the next one ends what is left.
        """
        try:
            surplus = await self._sessions.end_surplus(user_id)
        except PyMongoError as error:
            logger.warning("sessions beyond SESSIONS_PER_USER were not ended: %s", summary(error))
            return
        for session_id in surplus:
            self._revocations.add(session_id)
            audit("session_displaced", user_id=user_id, session_id=session_id)

    async def finish_end(self, session_id: str, user_id: str | None) -> None:
        """End a session.

        What the database did not acknowledge, this worker does not remember.
        """
        if await self._sessions.end(session_id):
            audit("logged_out", user_id=user_id, session_id=session_id)
        self._revocations.add(session_id)  # also if another worker ended it, of which this one may not know yet

    def issue(self, session: Session) -> Tokens:
        """Return new tokens of a session."""
        access_token, seconds = self._access_tokens.encode(
            user_id=session.user_id,
            session_id=session.id,
            scopes=scopes(session.access),
            session_expires=session.expires_at.timestamp(),
            auth_time=session.authenticated_at.timestamp() if session.authenticated_at else None,
            amr=session.amr,
        )
        refresh_token = self._refresh_tokens.encode(session.id, session.counter)
        return Tokens(access_token=access_token, refresh_token=refresh_token, expires_in=seconds)
