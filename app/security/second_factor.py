"""The second factor of a login: asked for after the right password, counted before it is verified, used once."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from app.background import start
from app.factors import recovery_codes, totp
from app.http.client import Client
from app.logs.audit import audit
from app.models.factors import Enrolled, Factors, RecoveryCode, Totp
from app.models.one_time_tokens import OneTimeToken, OneTimeTokens
from app.models.users import User, Users
from app.security.callers import caller
from app.security.factor_errors import PasskeyCopied, SecondFactorOff, SecondFactorRequired, WrongSecondFactor
from app.security.notices import Notices
from app.security.passwords import Passwords, UnusableHash
from app.security.throttle import Attempt, FactorAttempt, Throttle
from app.tokens.one_time import Purpose, digest, new_token

if TYPE_CHECKING:
    from app.security.passkeys import Passkeys, Shown
    from app.tokens.keys import Encryption

PURPOSE = "totp"  # of the encryption
CHALLENGE_LIFETIME = timedelta(minutes=5)
BY_CODE, BY_PASSKEY = ("otp", "mfa"), ("pop", "mfa")  # RFC 8176

Evidence = str | Mapping[str, Any]  # a code, or the answer of a passkey


@dataclass(frozen=True, slots=True)
class Proof:
    """What proves a second factor, and was not used yet.

    The step of an authenticator, a recovery code, or a passkey.
    """

    user: User
    enrolled: Enrolled
    totp: Totp | None = None
    step: int = 0
    code: RecoveryCode | None = None
    shown: "Shown | None" = None

    @property
    def amr(self) -> tuple[str, ...]:
        """How the user authenticated (RFC 8176)."""
        return BY_PASSKEY if self.shown else BY_CODE

    def is_recent(self, since: datetime) -> bool:
        """Return whether the factor was added since a time; recovery codes state none."""
        factor = self.shown.passkey if self.shown else self.totp
        return factor is not None and factor.added_at >= since

    @property
    def codes_left(self) -> int:
        """How many recovery codes are left when this one is used."""
        return len(self.enrolled.recovery_codes) - 1


class SecondFactor:
    """Asks for the second factor of a user, and verifies codes.

    Without `encryption` (ENCRYPTION_KEY is not set) only recovery codes can be verified.
    """

    def __init__(
        self,
        users: Users,
        factors: Factors,
        tokens: OneTimeTokens,
        encryption: "Encryption | None",
        passwords: Passwords,
        throttle: Throttle,
        notices: Notices,
    ) -> None:
        self._users = users
        self.passkeys: Passkeys | None = None  # if there is a PUBLIC_URL
        self._factors = factors
        self._tokens = tokens
        self._encryption = encryption
        self._passwords = passwords
        self._throttle = throttle
        self._notices = notices

    async def required(self, user: User) -> SecondFactorRequired:
        """Return the refusal of a request without a code."""
        return SecondFactorRequired((await self._factors.of(user.id)).kinds)

    async def challenge(self, user: User, attempt: Attempt) -> SecondFactorRequired:
        """Return the refusal of a login without a factor.

        The password was right; a challenge is to be answered with a code.

        The challenge is bound to the user, the generation and the attempt, which stays counted until the login is
        complete: guessing codes does not reset what guessing passwords has counted.
        """
        challenge = new_token()
        await self._tokens.add(
            digest(challenge),
            Purpose.CHALLENGE,
            user,
            "",
            lifetime=CHALLENGE_LIFETIME,
            mail="",
            facts=attempt.to_document(),
        )
        return SecondFactorRequired((await self._factors.of(user.id)).kinds, challenge)

    async def try_challenge(self, challenge: str) -> OneTimeToken:
        """Take one of the tries of a challenge off.

        Raises WrongSecondFactor if there is none.
        """
        found = await self._tokens.try_token(digest(challenge), Purpose.CHALLENGE)
        if found is None:
            raise WrongSecondFactor
        return found

    @asynccontextmanager
    async def proven(
        self,
        user: User,
        evidence: Evidence,
        client: Client,
        *,
        after_password: bool = False,
        session_id: str | None = None,
    ) -> AsyncIterator[Proof]:
        """Verify a code or passkey, for a context that uses it as part of a transaction.

        A passkey answers a challenge of a session, or of a login.

        The attempt is counted before (CVE-2024-4629), and taken back unless the code is wrong or was used meanwhile.
        `after_password` says that the right password was given, so that the user is told of a wrong code. Raises
        WrongSecondFactor, TooManyAttempts, HashingBusy or SecondFactorOff.
        """
        attempt = await self._throttle.factor(user.id, usual=client.network in user.usual_networks)
        try:
            proof = await self._match(user, evidence, client, session_id)
            yield proof
        except WrongSecondFactor as wrong:
            await self._failed(user, attempt, tell=after_password)
            if isinstance(wrong, PasskeyCopied):
                await self.tell_of_copy(user)
            raise
        except (Exception, asyncio.CancelledError):
            start(self._throttle.take_back_factor(attempt))
            raise
        if proof.code:
            audit("recovery_code_used", user_id=user.id, left=proof.codes_left)
        await self._throttle.take_back_factor(attempt)

    async def use(self, proof: Proof) -> None:
        """Use a code up, as part of a transaction.

        Raises WrongSecondFactor if it was used meanwhile (replay).
        """
        user_id = proof.user.id
        if proof.shown:
            return await self.use_passkey(user_id, proof.shown)
        if proof.totp:
            used = await self._factors.use_totp(user_id, proof.totp, proof.step)
        else:
            used = proof.code is not None and await self._factors.use_recovery_code(user_id, proof.code)
        if not used:
            raise WrongSecondFactor
        if proof.code:
            await self._notices.tell("recovery_code_used", proof.user, left=proof.codes_left)
        return None

    async def use_passkey(self, user_id: str, shown: "Shown") -> None:
        """Count an answer, as part of a transaction.

        Raises WrongSecondFactor if the passkey was removed meanwhile, or PasskeyCopied if it counts back.
        """
        assertion, id_ = shown.assertion, shown.passkey.id
        if await self._factors.use_passkey(user_id, id_, counter=assertion.counter, backed_up=assertion.backed_up):
            return
        raise PasskeyCopied if (await self._factors.of(user_id)).passkey(id_) else WrongSecondFactor

    async def tell_of_copy(self, user: User) -> None:
        """Tell a user that a passkey may have been copied."""
        audit("passkey_copied", user_id=user.id)
        await self._notices.tell("passkey_copied", user)

    async def had_before(self, user: User, since: datetime) -> bool:
        """Return whether the user has a factor that was not added since a time."""
        enrolled = await self._factors.of(user.id)
        times = [one.added_at for one in (enrolled.totp, *enrolled.passkeys) if one]
        return user.second_factor and any(added_at < since for added_at in times)

    async def undo(self, user: User, since: datetime, proof: Proof | None) -> None:
        """Remove the factors that were added since a time, as part of a transaction.

        One that the user had before must have been proven. Raises WrongSecondFactor.
        """
        if proof and not proof.is_recent(since):
            await self.use(proof)
        elif await self.had_before(user, since):
            raise WrongSecondFactor
        left = await self._factors.remove_added_since(user.id, since)
        if not left.any:
            await self._users.clear_second_factor(user)

    async def _match(self, user: User, evidence: Evidence, client: Client, session_id: str | None) -> Proof:
        """Return what a code or an answer proves. Raises WrongSecondFactor."""
        enrolled = await self._factors.of(user.id)
        if isinstance(evidence, str):
            return await self._match_code(user, enrolled, evidence, client)
        if self.passkeys is None:
            raise SecondFactorOff
        return Proof(user, enrolled, shown=await self.passkeys.verify(enrolled, evidence, session_id=session_id))

    async def _match_code(self, user: User, enrolled: Enrolled, code: str, client: Client) -> Proof:
        text = recovery_codes.normalise(code)
        if enrolled.totp and len(text) == totp.DIGITS and (secret := self._secret(user, enrolled.totp)):
            step = totp.matching_step(secret, text, enrolled.now.timestamp())
            if step is not None and step > enrolled.totp.step:
                return Proof(user, enrolled, enrolled.totp, step)
        for stored in enrolled.recovery_codes:
            if stored.prefix == recovery_codes.prefix(text) and await self._is(stored, text, user, client):
                return Proof(user, enrolled, code=stored)
        raise WrongSecondFactor

    async def _is(self, stored: RecoveryCode, text: str, user: User, client: Client) -> bool:
        with await self._passwords.turns.take(caller(client, user)) as place:
            await place.turn()
            try:
                right, _ = await self._passwords.verify(place, text, stored.hash)
            except UnusableHash:
                return False
        return right

    def _secret(self, user: User, found: Totp) -> bytes | None:
        """Return the secret of an authenticator, or None if it cannot be read. Raises SecondFactorOff."""
        if self._encryption is None:
            raise SecondFactorOff
        secret = self._encryption.readable(found.secret, purpose=PURPOSE, record=user.id)
        if secret is None:
            self._factors.report(user.id, "the secret of its authenticator cannot be decrypted")
        return secret

    async def _failed(self, user: User, attempt: FactorAttempt, *, tell: bool) -> None:
        await self._throttle.factor_failed(attempt)
        audit("second_factor_failed", user_id=user.id)
        if tell and await self._throttle.first_wrong_factor(user.id):
            await self._notices.tell("second_factor_failed", user)
