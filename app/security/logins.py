"""Open, continue and end sessions, and hand out their tokens."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from app.errors import token_refused, wrong_credentials
from app.models.sessions import Client, Session, SessionOver, Sessions, TokenReused
from app.models.users import Access, User, UsernameTaken, Users
from app.schemas import Tokens
from app.security.access_tokens import AccessTokens, Claims
from app.security.refresh_tokens import InvalidRefreshToken, RefreshTokens
from app.security.revocations import Revocations


def scopes(access: Access) -> list[str]:
    """Name the user's level and those below it."""
    return [level.name.lower() for level in Access if level <= access]


class Logins:
    """What a login, a refresh and a logout do, apart from HTTP."""

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
        self._unfinished: set[asyncio.Task[Any]] = set()

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
        return self._tokens(session)

    async def open(self, user: User, client: Client) -> Tokens:
        """Open a session for a user whose password was right. Raises Problem if that has changed meanwhile."""
        session = await self._sessions.open(user, client)
        # Whoever ends all sessions first starts a generation; either it shows here, or ours is ended with the rest.
        now = await self._users.by_id(user.id)
        if now is None or now.disabled or now.generation != user.generation:
            await self._sessions.forget(session.id)
            raise wrong_credentials()
        return self._tokens(session)

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
        except TokenReused:
            self._revocations.add(session_id)
            raise token_refused(
                "refresh_token_reused", "The refresh token was used before; its session is over."
            ) from None
        return self._tokens(session)

    async def end(self, claims: Claims) -> None:
        """End the session that the token speaks for."""
        await self._sessions.end(claims.sid, claims.sub)
        self._revocations.add(claims.sid)

    async def end_all(self, user_id: str) -> None:
        """End every session of the user, those included that are being opened right now."""
        await self._whole(self._end_all(user_id))

    async def finish_interrupted(self) -> None:
        """End the sessions of users whose new generation somebody started and did not live to carry out."""
        for user in await self._users.with_sessions_to_end():
            await self._carry_out(user)

    async def _end_all(self, user_id: str) -> None:
        user = await self._users.start_generation(user_id)
        if user:
            await self._carry_out(user)

    async def _carry_out(self, user: User) -> None:
        for session_id in await self._sessions.end_all(user.id, user.generation):
            self._revocations.add(session_id)
        await self._users.generation_started(user)

    async def _whole(self, steps: Coroutine[Any, Any, None]) -> None:
        """Take all steps, also when the client leaves after the first."""
        task = asyncio.ensure_future(steps)
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)
        await asyncio.shield(task)

    def _tokens(self, session: Session) -> Tokens:
        access_token, seconds = self._access_tokens.sign(
            user_id=session.user_id,
            session_id=session.id,
            scopes=scopes(session.access),
            session_expires=session.expires_at.timestamp(),
        )
        refresh_token = self._refresh_tokens.encode(session.id, session.counter)
        return Tokens(access_token=access_token, refresh_token=refresh_token, expires_in=seconds)
