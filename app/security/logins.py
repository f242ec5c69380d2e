"""Open, continue and end sessions, and hand out their tokens."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar, Unpack

from app.background import shielded
from app.http.problems import token_refused, wrong_credentials
from app.logs import audit
from app.models.sessions import Client, LiveSession, Session, SessionOver, Sessions, TokenReused
from app.models.users import Access, ChangedMeanwhile, Changes, User, UsernameTaken, Users
from app.schemas.auth import Tokens
from app.security.access_tokens import AccessTokens, Claims
from app.security.refresh_tokens import InvalidRefreshToken, RefreshTokens
from app.security.revocations import Revocations

T = TypeVar("T")


def scopes(access: Access) -> list[str]:
    """Name the user's level and those below it."""
    return [level.name.lower() for level in Access if level <= access]


class Logins:
    """What a login, a refresh and a logout do, apart from HTTP.

    Whatever changes something is shielded: what the database has done, this worker knows and the audit trail says.
    """

    def __init__(
        self,
        users: Users,
        sessions: Sessions,
        revocations: Revocations,
        access_tokens: AccessTokens,
        refresh_tokens: RefreshTokens,
    ) -> None:
        self._users = users
        self._sessions = sessions
        self._revocations = revocations
        self._access_tokens = access_tokens
        self._refresh_tokens = refresh_tokens

    @shielded
    async def register(self, user: User, client: Client) -> Tokens:
        """Add a user and log in. Raises UsernameTaken.

        The session comes first: a session without a user is nothing, a user without an answer a name lost.
        """
        session = await self._sessions.open(user, client)
        try:
            await self._users.add(user)
        except UsernameTaken:
            await self._sessions.forget(session.id)
            raise
        audit("registered", user_id=user.id, session_id=session.id)
        return self._tokens(session)

    @shielded
    async def open(self, user: User, client: Client) -> Tokens:
        """Open a session for a user whose password was right. Raises Problem if that has changed meanwhile."""
        session = await self._sessions.open(user, client)
        # Whoever ends all sessions first starts a generation; either it shows here, or ours is ended with the rest.
        now = await self._users.by_id(user.id)
        if now is None or now.disabled or now.generation != user.generation:
            await self._sessions.forget(session.id)
            raise wrong_credentials()
        audit("logged_in", user_id=user.id, session_id=session.id)
        return self._tokens(session)

    @shielded
    async def refresh(self, refresh_token: str) -> Tokens:
        """Exchange a refresh token for its successor and a new access token. Raises Problem."""
        try:
            session_id, counter = self._refresh_tokens.decode(refresh_token)
        except InvalidRefreshToken:
            raise token_refused("refresh_token_invalid", "This is no refresh token of ours.") from None
        try:
            session = await self._sessions.rotate(session_id, counter)
        except SessionOver:
            raise token_refused("session_ended", "The session is over.") from None
        except TokenReused as reused:
            self._revocations.add(session_id)
            audit("refresh_token_reused", user_id=reused.user_id, session_id=session_id)
            detail = "The refresh token was used before, so its session is over."
            raise token_refused("refresh_token_reused", detail) from None
        audit("refreshed", user_id=session.user_id, session_id=session.id)
        return self._tokens(session)

    async def confirm(self, user: User, claims: Claims) -> None:
        """Make sure that a token's session goes on and is as new as the user. Raises Problem 401.

        Revocations may be a second late, which is too late for what would open another session.
        """
        if await self._sessions.generation(claims.sid) != user.generation:
            raise token_refused("session_ended", "The session is over.")

    async def live(self, user_id: str) -> list[LiveSession]:
        """Return the user's sessions that go on."""
        return await self._sessions.live(user_id)

    @shielded
    async def end(self, session_id: str, user_id: str) -> bool:
        """End one session of this user and tell whether it was still going."""
        was_going = await self._sessions.end(session_id, user_id)
        if was_going:
            self._revocations.add(session_id)
            audit("logged_out", user_id=user_id, session_id=session_id)
        return was_going

    @shielded
    async def log_out(self, claims: Claims) -> None:
        """End the session that a token speaks for."""
        await self.end(claims.sid, claims.sub)
        self._revocations.add(claims.sid)  # also if another worker was quicker, of which this one may not know yet

    @shielded
    async def change(self, user: User, *, by: str | None = None, **changes: Unpack[Changes]) -> User:
        """Change a user and end all its sessions, those included that are being opened; without changes, just end them.

        `by` is who does it, if not the user. Raises ChangedMeanwhile or LastAdmin.
        """
        changed = await self._users.change(user, **changes)
        _audit_change(user, changed, by)
        await self._carry_out(changed)
        return changed

    async def insist(self, user_id: str, change: Callable[[User], Awaitable[T]]) -> T | None:
        """Change a user as it is, however often others change it first; return None if there is no such user.

        Each try asks the database, so a request's patience ends the tries. Raises what `change` does, but for
        ChangedMeanwhile.
        """
        while user := await self._users.by_id(user_id):
            with suppress(ChangedMeanwhile):
                return await change(user)
        return None

    async def log_out_everywhere(self, user_id: str, *, by: str | None = None) -> None:
        """End all sessions of a user."""
        await self.insist(user_id, partial(self.change, by=by))

    @shielded
    async def delete(self, user: User, *, by: str | None = None) -> User:
        """Delete a user and end all its sessions. Raises ChangedMeanwhile or LastAdmin."""
        deleted = await self._users.delete(user)
        _audit("deleted", deleted, by)
        await self._carry_out(deleted)
        return deleted

    async def finish_interrupted(self) -> None:
        """End the sessions of users whose new generation somebody declared and did not live to carry out."""
        for user in await self._users.with_sessions_to_end():
            await self._carry_out(user)

    async def _carry_out(self, user: User) -> None:
        for session_id in await self._sessions.end_all(user.id, user.generation):
            self._revocations.add(session_id)
        await self._users.generation_started(user)

    def _tokens(self, session: Session) -> Tokens:
        access_token, seconds = self._access_tokens.sign(
            user_id=session.user_id,
            session_id=session.id,
            scopes=scopes(session.access),
            session_expires=session.expires_at.timestamp(),
        )
        refresh_token = self._refresh_tokens.encode(session.id, session.counter)
        return Tokens(access_token=access_token, refresh_token=refresh_token, expires_in=seconds)


def _audit_change(before: User, after: User, by: str | None) -> None:
    if before.password_hash != after.password_hash:
        _audit("password_changed", after, by)
    if before.access != after.access:
        _audit("access_changed", after, by, access=after.access.name.lower())
    if before.disabled != after.disabled:
        _audit("disabled" if after.disabled else "enabled", after, by)
    if (before.password_hash, before.access, before.disabled) == (after.password_hash, after.access, after.disabled):
        _audit("logged_out_everywhere", after, by)


def _audit(event: str, user: User, by: str | None, **facts: Any) -> None:
    audit(event, user_id=user.id, **facts, **({"by": by} if by else {}))
