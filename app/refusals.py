"""How the exceptions of the layers below views are answered."""

from app.database.failures import is_unavailable, summary
from app.http.codes import Code
from app.http.problems import FieldError, Problem, invalid_fields
from app.models.sessions import SessionOver, TokenReused
from app.models.users import EmailTaken, LastAdmin, UsernameTaken
from app.security.administration import NotAdministrator, UserNotFound
from app.security.credentials import WrongCredentials
from app.security.emails import InvalidOneTimeToken, NothingToVerify, WrongCode
from app.security.key_errors import NoKey, StaleFeed, UnknownCursor
from app.security.passwords import WeakPassword
from app.security.recovery import NoVerifiedAddress
from app.security.throttle import TooManyAttempts
from app.security.turns import HashingBusy
from app.tokens.key_set import KeysNotRead
from app.tokens.refresh import InvalidRefreshToken

CODES: dict[type[Exception], Code] = {
    EmailTaken: Code.EMAIL_TAKEN,
    HashingBusy: Code.HASHING_BUSY,
    KeysNotRead: Code.STORE_UNAVAILABLE,
    InvalidOneTimeToken: Code.ONE_TIME_TOKEN_INVALID,
    InvalidRefreshToken: Code.REFRESH_TOKEN_INVALID,
    LastAdmin: Code.LAST_ADMIN,
    NoKey: Code.NOT_FOUND,
    NoVerifiedAddress: Code.NO_VERIFIED_ADDRESS,
    NotAdministrator: Code.INSUFFICIENT_SCOPE,
    NothingToVerify: Code.NOTHING_TO_VERIFY,
    StaleFeed: Code.REVOCATIONS_STALE,
    SessionOver: Code.SESSION_ENDED,
    TokenReused: Code.REFRESH_TOKEN_REUSED,
    UserNotFound: Code.NOT_FOUND,
    UsernameTaken: Code.USERNAME_TAKEN,
    WrongCode: Code.WRONG_CODE,
    WrongCredentials: Code.WRONG_CREDENTIALS,
}


def refusal(error: Exception) -> Problem | None:
    """Return the refusal that an exception stands for, or None for an unexpected exception."""
    if isinstance(error, WeakPassword):
        return invalid_fields(FieldError(field=error.field, message=error.rule))
    if isinstance(error, TooManyAttempts):
        return Problem(Code.TOO_MANY_ATTEMPTS, retry_after=error.seconds)
    if isinstance(error, UnknownCursor):
        return invalid_fields(FieldError(field="after", message="is not a cursor of this database"))
    if is_unavailable(error):
        return Problem(Code.STORE_UNAVAILABLE, log=summary(error))
    code = CODES.get(type(error))
    return Problem(code, str(error) or None) if code else None
