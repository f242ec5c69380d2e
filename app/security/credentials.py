"""Whose name and password these are; the one way in which a password is verified, on every route."""

import asyncio

from app.background import shielded
from app.http.client import network
from app.http.problems import Problem, token_refused, wrong_credentials
from app.logs import audit
from app.models.users import User, Users
from app.security.passwords import Passwords
from app.security.throttle import Attempt, Throttle


class Credentials:
    """Throttle, verify, count, and bring an old hash up to date."""

    def __init__(self, users: Users, passwords: Passwords, throttle: Throttle) -> None:
        self._users = users
        self._passwords = passwords
        self._throttle = throttle

    async def check(self, username: str, password: str, address: str) -> User:
        """Return the user whose name and password these are. Raises Problem 401, 429 or 503."""
        return await self._check(await self._users.by_name(username), username, password, address)

    async def check_again(self, user_id: str, password: str, address: str) -> User:
        """Return a user who is logged in and shows the password once more. Raises Problem 401, 429 or 503."""
        user = await self._users.by_id(user_id)
        if user is None:
            raise token_refused("session_ended", "The user is gone.")
        return await self._check(user, user.username, password, address)

    async def _check(self, user: User | None, username: str, password: str, address: str) -> User:
        place = network(address)
        attempt = await self._count(user, username, place)
        try:
            await self._passwords.wait_for_turn()
        except (Problem, asyncio.CancelledError):
            await self._throttle.withdraw(attempt)  # nothing was verified
            raise
        return await self._verify(user, password, place, attempt)

    @shielded
    async def _verify(self, user: User | None, password: str, place: str, attempt: Attempt) -> User:
        """Verify and settle the counts; shielded, or a right password whose client leaves would count as wrong."""
        right, better_hash = await self._passwords.verify(password, user.password_hash if user else None)
        if user is None or user.disabled or not right:
            audit("login_failed", user_id=user.id if user else None)
            raise wrong_credentials()
        await self._throttle.succeeded(attempt)
        if better_hash:
            await self._users.replace_hash(user, better_hash)
        if place not in user.usual_networks:
            await self._users.remember_network(user, place)
        return user

    async def _count(self, user: User | None, username: str, place: str) -> Attempt:
        try:
            return await self._throttle.attempt(
                username, place, usual=user is not None and place in user.usual_networks
            )
        except Problem:
            audit("login_throttled", user_id=user.id if user else None)
            raise
