"""Step-up authentication (RFC 9470): make a session fresh for what a stolen token alone must not do."""

from collections.abc import Sequence

from app.background import shielded
from app.database.transactions import Transactions
from app.http.client import Client
from app.logs.audit import audit
from app.models.sessions import Session, SessionOver, Sessions
from app.models.users import User, Users
from app.schemas.auth import Tokens
from app.security.credentials import CredentialsVerifier
from app.security.logins import BY_PASSWORD, Logins, device
from app.security.second_factor import Evidence, Proof, SecondFactor
from app.tokens.access import Claims


class StepUp:
    """Replaces a session by one whose user has just authenticated."""

    def __init__(
        self,
        users: Users,
        sessions: Sessions,
        credentials: CredentialsVerifier,
        logins: Logins,
        transactions: Transactions,
        second_factor: SecondFactor,
    ) -> None:
        self._second_factor = second_factor
        self._users = users
        self._sessions = sessions
        self._credentials = credentials
        self._logins = logins
        self._transactions = transactions

    async def by_password(self, claims: Claims, current_password: str, client: Client) -> Tokens:
        """Authenticate by the current password, which suffices for users without a second factor.

        Raises SecondFactorRequired, WrongCredentials, TooManyAttempts, HashingBusy or SessionOver.
        """
        user = await self._user(claims)
        if user.second_factor:
            raise await self._second_factor.required(user)
        user = await self._credentials.reauthenticate(claims.sub, current_password, client)
        return await self._replace(claims, user, client, amr=BY_PASSWORD)

    @shielded
    async def by_factor(self, claims: Claims, evidence: Evidence, client: Client) -> Tokens:
        """Authenticate by the second factor.

        Raises WrongSecondFactor, TooManyAttempts, HashingBusy or SessionOver.
        """
        user = await self._user(claims)
        async with self._second_factor.proven(user, evidence, client, session_id=claims.sid) as proof:
            amr = tuple(dict.fromkeys((*claims.amr, *proof.amr)))
            return await self._replace(claims, user, client, amr=amr, proof=proof)

    async def _user(self, claims: Claims) -> User:
        user = await self._users.by_id(claims.sub)
        if user is None:
            raise SessionOver
        return user

    @shielded
    async def _replace(
        self, claims: Claims, user: User, client: Client, *, amr: Sequence[str], proof: Proof | None = None
    ) -> Tokens:
        """Open a session in place of the token's, which keeps its age: a stepped-up session lives no longer."""

        async def start() -> Session:
            current = await self._users.lock(user.id)
            if current is None or current.disabled or current.generation != user.generation:
                raise SessionOver
            created_at = await self._sessions.require_active(claims.sid, user.id, user.generation)
            if proof:
                await self._second_factor.use(proof)
            await self._sessions.start_end(claims.sid, user.id)
            return await self._sessions.open(current, device(client), amr=amr, created_at=created_at)

        session = await self._transactions.run(start)
        audit("stepped_up", user_id=user.id, session_id=session.id, replaced=claims.sid)
        await self._logins.finish_end(claims.sid, user.id)
        return self._logins.issue(session)
