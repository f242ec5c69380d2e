"""The use cases of passkeys: options, registration, removal, and the answers that log in or prove a second factor.

A challenge is a one-time token of its purpose: for a registration or a step-up bound to the user and the session, for a
login to nobody, since the options of a login must not tell who has an account. It is used up before the answer is
verified, so that a wrong answer costs a challenge, too, and the limit of options bounds the answers.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from fido2.utils import websafe_encode

from app.factors import recovery_codes
from app.factors.passkeys import (
    TIMEOUT_MILLISECONDS,
    Answer,
    Assertion,
    InvalidPasskey,
    RelyingParty,
    challenge_of,
    id_of,
    new_challenge,
    new_handle,
)
from app.http.client import Client
from app.logs.audit import audit
from app.models.factors import Enrolled, Factors, Passkey
from app.models.one_time_tokens import OneTimeToken, OneTimeTokens
from app.models.sessions import Sessions
from app.models.users import User
from app.security.enrolment import Enrolment
from app.security.factor_errors import NotEnrolled, WrongFactorCode, WrongSecondFactor
from app.security.generations import Generations
from app.security.notices import Notices
from app.security.own_account import OwnAccount
from app.security.throttle import Throttle
from app.tokens.access import Claims
from app.tokens.one_time import Purpose, digest

LIFETIME = timedelta(milliseconds=TIMEOUT_MILLISECONDS)  # of a challenge, as browsers are told


@dataclass(frozen=True, slots=True)
class Shown:
    """A verified answer; its challenge is used up."""

    passkey: Passkey
    assertion: Assertion


class Passkeys:
    """Adds, removes and verifies passkeys of the service's own site."""

    def __init__(
        self,
        origin: str,
        factors: Factors,
        tokens: OneTimeTokens,
        sessions: Sessions,
        throttle: Throttle,
        notices: Notices,
        generations: Generations,
        own_account: OwnAccount,
        enrolment: Enrolment,
        *,
        product: str,
    ) -> None:
        self._site = RelyingParty(origin, name=product)
        self._factors = factors
        self._tokens = tokens
        self._sessions = sessions
        self._throttle = throttle
        self._notices = notices
        self._generations = generations
        self._own_account = own_account
        self._enrolment = enrolment

    async def options_to_add(self, claims: Claims) -> dict[str, Any]:
        """Return the options of a registration. Raises SecondFactorOff or SessionOver."""
        self._enrolment.require_enabled()
        challenge = new_challenge()
        options: dict[str, Any] = {}

        async def change(user: User) -> None:
            handle = await self._factors.handle(user.id, new_handle())
            existing = [one.id for one in (await self._factors.of(user.id)).passkeys]
            await self._tokens.void(user.id, [Purpose.PASSKEY_REGISTRATION])
            await self._store(challenge, Purpose.PASSKEY_REGISTRATION, user, claims.sid)
            options.update(self._site.creation_options(challenge, handle, user.username, existing))

        await self._own_account.change(claims, change)
        return options

    async def add(self, claims: Claims, answer: Answer, name: str, client: Client) -> tuple[Passkey, list[str]]:
        """Add the passkey of an answer.

        Returns it with the recovery codes that come with the first factor. Raises SecondFactorOff, WrongFactorCode,
        PasskeyTaken, TooManyPasskeys, HashingBusy, TooManyAttempts or SessionOver.
        """
        self._enrolment.require_enabled()
        token = await self._take(answer, Purpose.PASSKEY_REGISTRATION, claims.sub, claims.sid)
        if token is None:
            raise WrongFactorCode
        try:
            new = self._site.register(challenge_of(answer), answer)
        except InvalidPasskey:
            raise WrongFactorCode from None
        first = not (await self._factors.of(claims.sub)).any
        codes = recovery_codes.new_codes() if first else []
        stored = await self._enrolment.hashed(codes, client)

        async def change(user: User) -> None:
            if token.generation != user.generation:
                raise WrongFactorCode
            await self._notices.tell("second_factor_added" if first else "passkey_added", user, undo=True)
            await self._factors.add_passkey(user.id, new, name, codes=stored)

        async def right(user: User) -> None:
            await self._sessions.carry_over(claims.sid, user)
            await change(user)

        if first:
            await self._generations.change(claims.sub, right=right, second_factor=True)
        else:
            await self._own_account.change(claims, change)
        audit("second_factor_added", user_id=claims.sub, factor="passkey")
        added = (await self._factors.of(claims.sub)).passkey(new.id)
        if added is None:
            raise NotEnrolled
        return added, codes

    async def remove(self, claims: Claims, id_: bytes) -> None:
        """Remove a passkey; other sessions end. Raises NotEnrolled or SessionOver."""
        await self._enrolment.remove_factor(claims, lambda user: self._factors.remove_passkey(user.id, id_), "passkey")

    async def options_to_log_in(self, client: Client) -> dict[str, Any]:
        """Return the options of a login, which name no account. Raises TooManyAttempts."""
        await self._throttle.passkey_options(client.networks)
        challenge = new_challenge()
        await self._tokens.add_anonymous(_digest(challenge), Purpose.PASSKEY_LOGIN, lifetime=LIFETIME)
        return self._site.request_options(challenge)

    async def options_to_step_up(self, claims: Claims) -> dict[str, Any]:
        """Return the options of a step-up in a session. Raises SessionOver."""
        challenge = new_challenge()

        async def change(user: User) -> None:
            await self._tokens.void(user.id, [Purpose.PASSKEY_STEP_UP])
            await self._store(challenge, Purpose.PASSKEY_STEP_UP, user, claims.sid)

        await self._own_account.change(claims, change)
        return self._site.request_options(challenge)

    async def identify(self, challenge: str, answer: Answer) -> tuple[Enrolled, Shown]:
        """Return whose passkey has answered the challenge of a login. Raises WrongSecondFactor."""
        if challenge != _challenge(answer) or not await self._take(answer, Purpose.PASSKEY_LOGIN):
            raise WrongSecondFactor
        try:
            found = await self._factors.by_passkey(id_of(answer))
        except InvalidPasskey:
            raise WrongSecondFactor from None
        if found is None:
            raise WrongSecondFactor
        return found, self._verified(found, answer)

    async def verify(self, enrolled: Enrolled, answer: Answer, *, session_id: str | None = None) -> Shown:
        """Verify the answer of a user's passkey, in a session or at a login. Raises WrongSecondFactor."""
        if session_id:
            token = await self._take(answer, Purpose.PASSKEY_STEP_UP, enrolled.user_id, session_id)
        else:
            token = await self._take(answer, Purpose.PASSKEY_LOGIN)
        if token is None:
            raise WrongSecondFactor
        return self._verified(enrolled, answer)

    def _verified(self, enrolled: Enrolled, answer: Answer) -> Shown:
        try:
            passkey = enrolled.passkey(id_of(answer))
            if passkey is None or enrolled.handle is None:
                raise WrongSecondFactor
            assertion = self._site.verify(
                challenge_of(answer),
                answer,
                public_key=passkey.public_key,
                handle=enrolled.handle,
                eligible=passkey.backup_eligible,
            )
        except InvalidPasskey:
            raise WrongSecondFactor from None
        return Shown(passkey, assertion)

    async def _store(self, challenge: bytes, purpose: Purpose, user: User, session_id: str) -> None:
        await self._tokens.add(_digest(challenge), purpose, user, session_id, lifetime=LIFETIME, mail="")

    async def _take(
        self, answer: Answer, purpose: Purpose, user_id: str = "", subject: str = ""
    ) -> OneTimeToken | None:
        return await self._tokens.take(digest(_challenge(answer)), purpose, user_id=user_id, subject=subject)


def _challenge(answer: Answer) -> str:
    """Return the challenge that an answer is for, or an empty text, which is none."""
    try:
        return websafe_encode(challenge_of(answer))
    except InvalidPasskey:
        return ""


def _digest(challenge: bytes) -> str:
    return digest(websafe_encode(challenge))
