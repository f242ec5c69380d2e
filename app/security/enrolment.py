"""The use cases of a user's second factor: enrol an authenticator, confirm it, remove it, make recovery codes."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from app.factors import qr, recovery_codes, totp
from app.http.client import Client
from app.logs.audit import audit
from app.models.factors import Enrolled, Factors, RecoveryCode
from app.models.sessions import Sessions
from app.models.users import User, Users
from app.schemas.factors import TotpSecret
from app.security.administration import Actor, Administration
from app.security.callers import caller
from app.security.factor_errors import AlreadyEnrolled, NotEnrolled, SecondFactorOff, WrongFactorCode
from app.security.generations import Generations
from app.security.notices import Notices
from app.security.own_account import OwnAccount
from app.security.passwords import Passwords
from app.security.second_factor import PURPOSE
from app.tokens.access import Claims
from app.tokens.keys import Encryption

PENDING_LIFETIME = timedelta(minutes=10)


class Enrolment:
    """Adds and removes second factors.

    Each change of whether a user has one starts a generation, so that no login that began before goes round it. The
    session that makes the change continues, all others end. With `enabled` false, nobody can enrol.
    """

    def __init__(
        self,
        users: Users,
        factors: Factors,
        sessions: Sessions,
        encryption: Encryption,
        passwords: Passwords,
        notices: Notices,
        generations: Generations,
        own_account: OwnAccount,
        administration: Administration,
        *,
        product: str,
        enabled: bool,
    ) -> None:
        self._users = users
        self._factors = factors
        self._sessions = sessions
        self._encryption = encryption
        self._passwords = passwords
        self._notices = notices
        self._generations = generations
        self._own_account = own_account
        self._administration = administration
        self._product = product
        self._enabled = enabled

    async def of(self, user_id: str) -> Enrolled:
        """Return the factors of a user."""
        return await self._factors.of(user_id)

    async def begin(self, claims: Claims) -> TotpSecret:
        """Make a secret that is to be confirmed with a code, and show it.

        Raises SecondFactorOff, AlreadyEnrolled or SessionOver.
        """
        self.require_enabled()
        secret = totp.new_secret()
        sealed = self._encryption.encrypt(secret, purpose=PURPOSE, record=claims.sub)

        async def change(user: User) -> None:
            if (await self._factors.of(user.id)).totp:
                raise AlreadyEnrolled
            await self._factors.begin_totp(user.id, sealed, lifetime=PENDING_LIFETIME)

        user = await self._own_account.change(claims, change)
        uri = totp.uri(secret, product=self._product, username=user.username)
        return TotpSecret(secret=totp.as_text(secret), uri=uri, qr=await asyncio.to_thread(qr.data_uri, uri))

    async def confirm(self, claims: Claims, code: str, client: Client) -> list[str]:
        """Turn on the authenticator that a code shows.

        Returns the recovery codes that come with the first factor.

        Raises SecondFactorOff, WrongFactorCode, HashingBusy, TooManyAttempts or SessionOver.
        """
        self.require_enabled()
        # Taken off before the comparison, so that parallel guesses do not have more tries.
        found = await self._factors.try_pending(claims.sub)
        if found is None or found.pending is None:
            raise WrongFactorCode
        secret = self._encryption.readable(found.pending.secret, purpose=PURPOSE, record=claims.sub)
        step = totp.matching_step(secret, code, found.now.timestamp()) if secret else None
        if step is None:
            raise WrongFactorCode
        codes = recovery_codes.new_codes() if not found.any else []
        stored, pending = await self.hashed(codes, client), found.pending

        async def right(user: User) -> None:
            await self._sessions.carry_over(claims.sid, user)
            if (await self._factors.of(user.id)).any != found.any:  # or it would replace codes that were just shown
                raise WrongFactorCode
            await self._notices.tell("second_factor_added", user, undo=True)
            if not await self._factors.confirm_totp(user.id, pending, step=step, codes=stored):
                raise WrongFactorCode

        await self._generations.change(claims.sub, right=right, second_factor=True)
        audit("second_factor_added", user_id=claims.sub, factor="totp")
        return codes

    async def remove(self, claims: Claims) -> None:
        """Remove the authenticator, and the recovery codes with the last factor.

        Raises NotEnrolled or SessionOver.
        """
        await self.remove_factor(claims, lambda user: self._factors.remove_totp(user.id), "totp")

    async def remove_factor(
        self, claims: Claims, removal: Callable[[User], Awaitable[Enrolled | None]], factor: str
    ) -> None:
        """Remove a factor; other sessions end. Raises NotEnrolled or SessionOver."""

        async def right(user: User) -> None:
            await self._sessions.carry_over(claims.sid, user)
            await self._notices.tell("second_factor_removed", user)
            left = await removal(user)
            if left is None:
                raise NotEnrolled
            if not left.any:
                await self._users.clear_second_factor(user)

        await self._generations.change(claims.sub, right=right, second_factor=True)
        audit("second_factor_removed", user_id=claims.sub, factor=factor)

    async def replace_recovery_codes(self, claims: Claims, client: Client) -> list[str]:
        """Make new recovery codes; those before are of no use any more.

        Raises NotEnrolled, HashingBusy, TooManyAttempts or SessionOver.
        """
        codes = recovery_codes.new_codes()
        stored = await self.hashed(codes, client)

        async def change(user: User) -> None:
            if not await self._factors.replace_recovery_codes(user.id, stored):
                raise NotEnrolled
            await self._notices.tell("recovery_codes_replaced", user)

        await self._own_account.change(claims, change)
        audit("recovery_codes_replaced", user_id=claims.sub)
        return codes

    async def reset(self, user_id: str, actor: Actor) -> None:
        """Remove all factors of a user who has lost them, and end all sessions.

        Raises NotAdministrator, SessionOver or UserNotFound.
        """

        async def change(user: User) -> None:
            await self._notices.tell("second_factor_removed", user)
            await self._factors.remove_user(user.id)

        await self._administration.change_together(user_id, actor, change, second_factor=False)
        audit("second_factor_reset", user_id=user_id, by=actor.name)

    async def rewrap(self) -> tuple[int, int]:
        """Encrypt all secrets again with the current key.

        Returns how many, and how many could not be read.
        """
        done = left = 0
        after = None
        while page := await self._factors.under_other_keys(self._encryption.current, after=after):
            for user_id, field, enrolment, stored in page:
                secret = self._encryption.renewed(stored, purpose=PURPOSE, record=user_id)
                if secret is None:
                    left += 1
                else:
                    done += await self._factors.rewrap(user_id, field, enrolment, secret)
            after = page[-1][0]
        return done, left

    async def hashed(self, codes: list[str], client: Client) -> list[RecoveryCode]:
        """Return what is stored of recovery codes. Raises HashingBusy or TooManyAttempts."""
        who, normalise = caller(client), recovery_codes.normalise
        hashes = [await self._passwords.hash(normalise(code), who) for code in codes]
        return [RecoveryCode(recovery_codes.prefix(code), one) for code, one in zip(codes, hashes, strict=True)]

    def require_enabled(self) -> None:
        """Require that users can enrol. Raises SecondFactorOff."""
        if not self._enabled:
            raise SecondFactorOff
