"""Authenticate users by password: the only place where a password is verified."""

import asyncio

from app.background import shielded
from app.database.transactions import Transactions
from app.http.client import Client
from app.logs.audit import audit, audit_repeated
from app.models.sessions import SessionOver
from app.models.users import User, Users
from app.security.callers import caller
from app.security.notices import Notices
from app.security.passwords import Passwords, UnusableHash
from app.security.second_factor import SecondFactor
from app.security.throttle import Attempt, Throttle, TooManyAttempts
from app.security.turns import HashingBusy, Place


class WrongCredentials(Exception):
    """The user does not exist or is disabled, or the password is wrong."""


class CredentialsVerifier:
    """Counts an attempt, verifies the password, settles the counts, and upgrades an outdated hash.

    With `notices`, users are told of logins from networks that are not usual for them.
    """

    def __init__(
        self,
        users: Users,
        passwords: Passwords,
        throttle: Throttle,
        transactions: Transactions,
        notices: Notices | None,
        second_factor: SecondFactor,
    ) -> None:
        self._second_factor = second_factor
        self._transactions = transactions
        self._notices = notices
        self._users = users
        self._passwords = passwords
        self._throttle = throttle

    async def authenticate(self, username: str, password: str, client: Client) -> User:
        """Return the user with this name and password, who has no second factor.

        Raises SecondFactorRequired, WrongCredentials, TooManyAttempts or HashingBusy.
        """
        user = await self._users.by_login(username)
        return await self._authenticate(user, username, password, client, is_login=True)

    async def reauthenticate(self, user_id: str, password: str, client: Client) -> User:
        """Return a logged-in user who gives the password again.

        Raises WrongCredentials, TooManyAttempts, HashingBusy or SessionOver.
        """
        user = await self._users.by_id(user_id)
        if user is None:
            raise SessionOver
        return await self._authenticate(user, user.username, password, client, is_login=False)

    async def settle(self, user: User, attempt: Attempt, network: str) -> None:
        """Settle the counts of a login that is complete, and remember its network.

        Raises TooManyAttempts if the user has too many logins.
        """
        try:
            await self._throttle.succeeded(attempt)
        except TooManyAttempts:
            audit_repeated("login_throttled", of=user.id, user_id=user.id)
            raise
        await self.remember(user, network)

    async def _authenticate(
        self, user: User | None, username: str, password: str, client: Client, *, is_login: bool
    ) -> User:
        # A place first, which costs nothing: whoever has too many of them does not reach the database.
        with await self._passwords.turns.take(caller(client, user)) as place:
            attempt = await self._count(user, username, client)
            try:
                await place.turn()
            except (HashingBusy, asyncio.CancelledError):
                await self._throttle.withdraw(attempt)  # nothing was verified
                raise
            return await self._verify(user, password, client.network, attempt, place, is_login=is_login)

    @shielded
    async def _verify(
        self, user: User | None, password: str, network: str, attempt: Attempt, place: Place, *, is_login: bool
    ) -> User:
        """Verify and settle the counts; shielded, or a right password whose client leaves would count as wrong.

        Whether a user has a second factor, nobody learns without the right password, not even by the time it takes.
        """
        try:
            password_hash = user.verifiable_hash if user else None
            right, better_hash = await self._passwords.verify(place, password, password_hash)
        except UnusableHash:
            right, better_hash = False, None
            if user:
                self._users.report(user, "its password hash cannot be verified")
        if user is None or user.disabled or not right:
            await self._throttle.failed(attempt)
            audit("login_failed", user_id=user.id if user else None)
            raise WrongCredentials
        if better_hash:
            await self._users.replace_hash(user, better_hash)
        if is_login and user.second_factor:
            raise await self._second_factor.challenge(user, attempt)
        await self.settle(user, attempt, network)
        return user

    async def remember(self, user: User, network: str) -> None:
        """Remember the network of a login, and tell the user of a new one."""
        if network in user.usual_networks:
            return None
        if not self._notices:
            return await self._users.remember_network(user, network)
        notices = self._notices

        async def work() -> None:
            await self._users.remember_network(user, network)
            await notices.tell("new_network", user, address=network)

        return await self._transactions.run(work)

    async def _count(self, user: User | None, username: str, client: Client) -> Attempt:
        usual = user is not None and client.network in user.usual_networks
        try:
            account = user.username if user else username  # an address that stands for the account shares its limit
            return await self._throttle.attempt(username, client.networks, usual=usual, account=account)
        except TooManyAttempts:
            user_id = user.id if user else None  # of unknown names, which may be passwords, only the number is logged
            audit_repeated("login_throttled", of=user_id, user_id=user_id)
            raise
