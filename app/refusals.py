"""How the exceptions of the layers below views are answered."""

from app.database.failures import is_unavailable, summary
from app.http.codes import Code
from app.http.problems import FieldError, Problem, invalid_fields
from app.models.factors import PasskeyTaken, TooManyPasskeys
from app.models.sessions import SessionOver, TokenReused
from app.models.users import EmailTaken, LastAdmin, UsernameTaken
from app.security.administration import NotAdministrator, UserNotFound
from app.security.credentials import WrongCredentials
from app.security.emails import InvalidOneTimeToken, NothingToVerify, WrongCode
from app.security.factor_errors import (
    AlreadyEnrolled,
    NotEnrolled,
    PasskeyCopied,
    SecondFactorOff,
    SecondFactorRequired,
    WrongFactorCode,
    WrongSecondFactor,
)
from app.security.freshness import StepUpRequired
from app.security.key_errors import NoKey, StaleFeed, UnknownCursor
from app.security.passwords import WeakPassword
from app.security.recovery import NoVerifiedAddress
from app.security.throttle import TooManyAttempts
from app.security.turns import HashingBusy
from app.tokens.key_set import KeysNotRead
from app.tokens.refresh import InvalidRefreshToken

WITH_FACTOR = "An authentication with a second factor in the last {} seconds is required: POST /auth/step-up."
CODES: dict[type[Exception], Code] = {
    AlreadyEnrolled: Code.ALREADY_ENROLLED,
    EmailTaken: Code.EMAIL_TAKEN,
    HashingBusy: Code.HASHING_BUSY,
    KeysNotRead: Code.STORE_UNAVAILABLE,
    InvalidOneTimeToken: Code.ONE_TIME_TOKEN_INVALID,
    InvalidRefreshToken: Code.REFRESH_TOKEN_INVALID,
    LastAdmin: Code.LAST_ADMIN,
    NoKey: Code.NOT_FOUND,
    NoVerifiedAddress: Code.NO_VERIFIED_ADDRESS,
    NotEnrolled: Code.NOT_FOUND,
    NotAdministrator: Code.INSUFFICIENT_SCOPE,
    NothingToVerify: Code.NOTHING_TO_VERIFY,
    StaleFeed: Code.REVOCATIONS_STALE,
    SessionOver: Code.SESSION_ENDED,
    TokenReused: Code.REFRESH_TOKEN_REUSED,
    TooManyPasskeys: Code.TOO_MANY_PASSKEYS,
    UserNotFound: Code.NOT_FOUND,
    UsernameTaken: Code.USERNAME_TAKEN,
    PasskeyCopied: Code.SECOND_FACTOR_INVALID,
    PasskeyTaken: Code.ALREADY_ENROLLED,
    SecondFactorOff: Code.NOT_ENABLED,
    WrongCode: Code.WRONG_CODE,
    WrongCredentials: Code.WRONG_CREDENTIALS,
    WrongFactorCode: Code.WRONG_CODE,
    WrongSecondFactor: Code.SECOND_FACTOR_INVALID,
}


def refusal(error: Exception) -> Problem | None:
    """Return the refusal that an exception stands for, or None for an unexpected exception."""
    if isinstance(error, WeakPassword):
        return invalid_fields(FieldError(field=error.field, message=error.rule))
    if isinstance(error, TooManyAttempts):
        return Problem(Code.TOO_MANY_ATTEMPTS, retry_after=error.seconds)
    if isinstance(error, StepUpRequired):
        detail = WITH_FACTOR.format(error.seconds) if error.factor else None
        return Problem(Code.STEP_UP_REQUIRED, detail, challenge={"max_age": str(error.seconds)})
    if isinstance(error, SecondFactorRequired):
        challenge = {"challenge": error.challenge} if error.challenge else {}
        return Problem(Code.SECOND_FACTOR_REQUIRED, members={**challenge, "factors": error.factors})
    if isinstance(error, UnknownCursor):
        return invalid_fields(FieldError(field="after", message="is not a cursor of this database"))
    if is_unavailable(error):
        return Problem(Code.STORE_UNAVAILABLE, log=summary(error))
    code = CODES.get(type(error))
    return Problem(code, str(error) or None) if code else None
