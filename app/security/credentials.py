"""Authenticate users by password: the only place where a password is verified."""

import asyncio

from app.background import shielded
from app.http.client import Client
from app.logs import audit
from app.models.sessions import SessionOver
from app.models.users import User, Users
from app.security.passwords import HashingBusy, Passwords, UnusableHash
from app.security.throttle import Attempt, Throttle, TooManyAttempts


class WrongCredentials(Exception):
    """The user does not exist or is disabled, or the password is wrong."""


class CredentialsVerifier:
    """Counts an attempt, verifies the password, settles the counts, and upgrades an outdated hash."""

    def __init__(self, users: Users, passwords: Passwords, throttle: Throttle) -> None:
        self._users = users
        self._passwords = passwords
        self._throttle = throttle

    async def authenticate(self, username: str, password: str, client: Client) -> User:
        """Return the user with this name and password.

        Raises WrongCredentials, TooManyAttempts or HashingBusy.
        """
        return await self._authenticate(await self._users.by_name(username), username, password, client)

    async def reauthenticate(self, user_id: str, password: str, client: Client) -> User:
        """Return a logged-in user who gives the password again.

        Also raises SessionOver.
        """
        user = await self._users.by_id(user_id)
        if user is None:
            raise SessionOver
        return await self._authenticate(user, user.username, password, client)

    async def _authenticate(self, user: User | None, username: str, password: str, client: Client) -> User:
        attempt = await self._count(user, username, client.network)
        try:
            await self._passwords.wait_for_turn()
        except (HashingBusy, asyncio.CancelledError):
            await self._throttle.withdraw(attempt)  # nothing was verified
            raise
        return await self._verify(user, password, client.network, attempt)

    @shielded
    async def _verify(self, user: User | None, password: str, network: str, attempt: Attempt) -> User:
        """Verify and settle the counts; shielded, or a right password whose client leaves would count as wrong."""
        try:
            right, better_hash = await self._passwords.verify(password, user.password_hash if user else None)
        except UnusableHash:
            right, better_hash = False, None
            if user:
                self._users.report(user, "its password hash cannot be verified")
        if user is None or user.disabled or not right:
            audit("login_failed", user_id=user.id if user else None)
            raise WrongCredentials
        await self._throttle.succeeded(attempt)
        if better_hash:
            await self._users.replace_hash(user, better_hash)
        if network not in user.usual_networks:
            await self._users.remember_network(user, network)
        return user

    async def _count(self, user: User | None, username: str, network: str) -> Attempt:
        usual = user is not None and network in user.usual_networks
        try:
            return await self._throttle.attempt(username, network, usual=usual)
        except TooManyAttempts:
            audit("login_throttled", user_id=user.id if user else None)
            raise
