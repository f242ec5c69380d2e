"""Changes of a user's own account that leave its sessions as they are."""

from collections.abc import Awaitable, Callable

from app.background import shielded
from app.database.transactions import Transactions
from app.models.sessions import SessionOver, Sessions
from app.models.users import User, Users
from app.tokens.access import Claims


class OwnAccount:
    """Changes the user of a token.

    In one transaction with its session, whose right it is.
    """

    def __init__(self, users: Users, sessions: Sessions, transactions: Transactions) -> None:
        self._users = users
        self._sessions = sessions
        self._transactions = transactions

    @shielded
    async def change(self, claims: Claims, change: Callable[[User], Awaitable[None]]) -> User:
        """Run a change, and return the user as it was.

        Raises SessionOver, and what the change raises.
        """

        async def work() -> User:
            user = await self._users.lock(claims.sub)
            if user is None or user.disabled:
                raise SessionOver
            await self._sessions.require_active(claims.sid, user.id, user.generation)
            await change(user)
            return user

        return await self._transactions.run(work)
