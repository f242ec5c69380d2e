"""The way back in without the password: a link by mail to a verified address (OWASP Forgot Password Cheat Sheet)."""

from app.database.transactions import Transactions
from app.http.client import Client
from app.logs.audit import audit, audit_repeated
from app.models.one_time_tokens import OneTimeToken, OneTimeTokens
from app.models.outbox import Outbox
from app.models.users import Email, User, Users
from app.security.administration import Actor, Administration
from app.security.callers import caller
from app.security.emails import InvalidOneTimeToken
from app.security.generations import Generations
from app.security.notices import Notices
from app.security.passwords import Passwords
from app.security.second_factor import Evidence, Proof, SecondFactor
from app.security.throttle import Throttle, TooManyAttempts
from app.tokens.one_time import Purpose, digest


class NoVerifiedAddress(Exception):
    """The user has no address that a reset can be sent to."""


class Recovery:
    """Starts resets, and completes them."""

    def __init__(
        self,
        users: Users,
        tokens: OneTimeTokens,
        outbox: Outbox,
        notices: Notices,
        passwords: Passwords,
        throttle: Throttle,
        generations: Generations,
        administration: Administration,
        transactions: Transactions,
        second_factor: SecondFactor,
    ) -> None:
        self._second_factor = second_factor
        self._users = users
        self._tokens = tokens
        self._outbox = outbox
        self._notices = notices
        self._passwords = passwords
        self._throttle = throttle
        self._generations = generations
        self._administration = administration
        self._transactions = transactions

    async def request(self, email: Email, client: Client) -> None:
        """Send a reset to an address, if a user has verified it.

        Nothing is looked up: the sender of the outbox does, so that the response shows nothing, not even by its time
        (user enumeration). What a network asks for beyond its limit is passed over, with the same response: it could
        fill the outbox and delay the mails of others.
        """
        try:
            await self._throttle.reset(client.networks)
        except TooManyAttempts:
            return audit_repeated("reset_throttled", of=None)
        await self._outbox.add_reset(email.key)
        return audit_repeated("reset_requested", of=None)

    async def start_for(self, user_id: str, actor: Actor) -> None:
        """Send a reset to a user.

        The administrator neither chooses nor learns a password.

        Raises NotAdministrator, SessionOver, UserNotFound or NoVerifiedAddress.
        """

        async def work() -> User:
            user = await self._administration.require_right(user_id, actor)
            if not user.address:
                raise NoVerifiedAddress
            await self._outbox.add_reset(user.address.key)
            return user

        user = await self._transactions.run(work)
        audit("reset_started", user_id=user.id, by=actor.name)

    async def confirm(self, token: str, new_password: str, client: Client, evidence: Evidence | None = None) -> None:
        """Set a new password with the token of a mail.

        And with a code or passkey if the user has a second factor.

        All sessions, tokens and codes of the user end.

        It does not log in. Neither a weak password nor a wrong code uses the token up, but five wrong or missing codes
        do. Raises InvalidOneTimeToken, WeakPassword, SecondFactorRequired, WrongSecondFactor, HashingBusy or
        TooManyAttempts.
        """
        found, user = await self._valid(token)
        self._passwords.check_policy(new_password, user.username, field="new_password")
        if not user.second_factor:
            return await self._reset(found, user, new_password, client)
        if await self._tokens.try_token(found.id, Purpose.RESET) is None:
            raise InvalidOneTimeToken
        if evidence is None:
            raise await self._second_factor.required(user)
        async with self._second_factor.proven(user, evidence, client) as proof:
            return await self._reset(found, user, new_password, client, proof)

    async def _reset(
        self, found: OneTimeToken, user: User, new_password: str, client: Client, proof: Proof | None = None
    ) -> None:
        password_hash = await self._passwords.hash_new(
            new_password, caller(client, user), user.username, field="new_password"
        )

        async def right(before: User) -> None:
            if before.generation != found.generation or not await self._tokens.consume(found):
                raise InvalidOneTimeToken
            if proof:
                await self._second_factor.use(proof)
            await self._tokens.void(before.id, [Purpose.VERIFICATION, Purpose.RESET])
            await self._users.remember_network(before, client.network, at_once=True)
            await self._notices.tell("password_reset", before)

        changed = await self._generations.change(user.id, right=right, password=password_hash)
        if changed is None:
            raise InvalidOneTimeToken
        audit("password_reset", user_id=user.id)

    async def _valid(self, token: str) -> tuple[OneTimeToken, User]:
        """Return a token and its user. Raises InvalidOneTimeToken, with one text for every reason."""
        found = await self._tokens.find(digest(token), Purpose.RESET)
        user = await self._users.by_id(found.user_id) if found else None
        if found is None or user is None or user.disabled or user.generation != found.generation:
            raise InvalidOneTimeToken
        return found, user
