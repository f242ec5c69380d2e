"""The use cases of a user's own account: register, change the password, log out everywhere, delete."""

from datetime import UTC, datetime

from app.background import shielded
from app.database.transactions import Transactions
from app.http.client import Client
from app.logs.audit import audit, audit_repeated
from app.models.outbox import Outbox
from app.models.sessions import SessionOver, Sessions
from app.models.users import Email, User, UsernameTaken, Users
from app.schemas.auth import Tokens
from app.security.callers import caller
from app.security.credentials import CredentialsVerifier
from app.security.freshness import Freshness
from app.security.generations import Generations, Right
from app.security.logins import BY_PASSWORD, Logins, device
from app.security.passwords import Passwords
from app.security.throttle import Throttle, TooManyAttempts
from app.tokens.access import Claims


class Accounts:
    """What users do with their own accounts.

    Passwords are verified by CredentialsVerifier.
    """

    def __init__(
        self,
        users: Users,
        sessions: Sessions,
        passwords: Passwords,
        throttle: Throttle,
        credentials: CredentialsVerifier,
        logins: Logins,
        generations: Generations,
        transactions: Transactions,
        outbox: Outbox | None,
        freshness: Freshness,
    ) -> None:
        self._freshness = freshness
        self._transactions = transactions
        self._outbox = outbox
        self._users = users
        self._sessions = sessions
        self._passwords = passwords
        self._throttle = throttle
        self._credentials = credentials
        self._logins = logins
        self._generations = generations

    async def register(
        self, username: str, password: str, client: Client, *, email: Email | None = None
    ) -> tuple[User, Tokens]:
        """Add a user and log in.

        Raises WeakPassword, TooManyAttempts, HashingBusy or UsernameTaken.
        """
        self._passwords.check_policy(password, username)
        try:
            await self._throttle.registration(client.networks)
        except TooManyAttempts:
            audit_repeated("registration_throttled", of=None)
            raise
        password_hash = await self._passwords.hash_new(password, caller(client), username)
        user = User.new(username, password_hash, network=client.network, email=email)
        return user, await self._add(user, client)

    @shielded
    async def _add(self, user: User, client: Client) -> Tokens:
        """Open the session first: a session without a user is harmless, a user without a response is a lost name."""
        session = await self._sessions.open(user, device(client), amr=BY_PASSWORD)
        try:
            await self._insert(user)
        except UsernameTaken:
            await self._sessions.discard(session.id)
            raise
        audit("registered", user_id=user.id, session_id=session.id)
        return self._logins.issue(session)

    async def _insert(self, user: User) -> None:
        """Insert a user, together with the mail for the address. Raises UsernameTaken."""
        email, outbox = user.email, self._outbox
        if email is None or outbox is None:
            return await self._users.add(user)

        async def work() -> None:
            await self._users.add(user)
            await outbox.add_code(user, email)

        return await self._transactions.run(work)

    async def get(self, user_id: str) -> User:
        """Return the user of a token.

        Raises SessionOver if it was deleted.
        """
        user = await self._users.by_id(user_id)
        if user is None:
            raise SessionOver
        return user

    async def change_password(
        self, claims: Claims, *, current_password: str, new_password: str, client: Client
    ) -> Tokens:
        """Change the password, and open a new session.

        All others end. It is as fresh as the one before.

        Raises StepUpRequired, WrongCredentials, TooManyAttempts, HashingBusy, WeakPassword or SessionOver.
        """
        has_factor = await self._require_factor(claims)
        user = await self._credentials.reauthenticate(claims.sub, current_password, client)
        self._passwords.check_policy(new_password, user.username, field="new_password")
        new_hash = await self._passwords.hash_new(
            new_password, caller(client, user), user.username, field="new_password"
        )
        changed = await self._generations.change(
            user.id, right=self._own(claims), tell="password_changed", password=new_hash
        )
        if changed is None:
            raise SessionOver
        try:
            if has_factor:
                since = datetime.fromtimestamp(claims.auth_time, UTC)
                return await self._logins.open(changed, client, amr=claims.amr, since=since)
            return await self._logins.open(changed, client)
        except SessionOver:
            raise SessionOver("The password was changed, but all sessions were ended. Please log in again.") from None

    async def log_out_everywhere(self, claims: Claims) -> None:
        """End all sessions of a user. Raises SessionOver."""

        async def right(user: User) -> None:
            # Of any generation, so that a logout that failed halfway can be repeated.
            await self._sessions.require_active(claims.sid, user.id)

        await self._generations.change(claims.sub, right=right)

    async def delete(self, claims: Claims, *, current_password: str, client: Client) -> None:
        """Delete the account and end its sessions.

        Raises StepUpRequired, WrongCredentials, TooManyAttempts, HashingBusy, LastAdmin or SessionOver.
        """
        await self._require_factor(claims)
        user = await self._credentials.reauthenticate(claims.sub, current_password, client)
        await self._generations.delete(user.id, right=self._own(claims), tell="account_deleted")

    async def _require_factor(self, claims: Claims) -> bool:
        """Require a recent authentication with the second factor of users who have one, and return whether they do.

        Raises StepUpRequired or SessionOver.
        """
        user = await self.get(claims.sub)
        if user.second_factor:
            self._freshness.require(claims, factor=True)
        return user.second_factor

    def _own(self, claims: Claims) -> Right:
        """Return the right of a user to change the own account: an active session of the current generation.

        The token alone cannot show it: revocations may be late. If the generation is an earlier one, another change
        came first.
        """

        async def right(user: User) -> None:
            await self._sessions.require_active(claims.sid, user.id, user.generation)

        return right
