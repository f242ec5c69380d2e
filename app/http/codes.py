"""The stable codes of all refusals, each with its status and its sentence."""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Self, TypeVar

CODES = "__codes__"  # the attribute that holds the codes of a handler's guards
FRESH = "__fresh__"  # the attribute of a handler whose guard requires a recent authentication: with a factor or not

Function = TypeVar("Function", bound=Callable[..., Any])


class Code(StrEnum):
    """A stable code for programs.

    `docs/errors.md` says what clients do about each.

    `error` is the error code of RFC 6750 section 3.1 or RFC 9470 section 3, for requests that presented a token.
    """

    status: int
    detail: str
    error: str | None

    def __new__(cls, code: str, status: int, detail: str, error: str | None = None) -> Self:
        """Make a member that equals its text."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.status, member.detail, member.error = status, detail, error
        return member

    BAD_REQUEST = "bad_request", 400, "The request is not well-formed."
    MALFORMED_JSON = "malformed_json", 400, "The body is not well-formed JSON."
    NOT_AN_OBJECT = "not_an_object", 400, "The body must be a JSON object."
    UNAUTHORIZED = "unauthorized", 401, "Authentication is required."
    TOKEN_MISSING = "token_missing", 401, "An access token is required: Authorization: Bearer <token>."
    TOKEN_EXPIRED = "token_expired", 401, "The access token has expired.", "invalid_token"
    TOKEN_INVALID = "token_invalid", 401, "The access token is not valid.", "invalid_token"
    SESSION_ENDED = "session_ended", 401, "The session has ended.", "invalid_token"
    REFRESH_TOKEN_INVALID = "refresh_token_invalid", 401, "The refresh token is not valid.", "invalid_token"
    REFRESH_TOKEN_REUSED = (
        "refresh_token_reused",
        401,
        "The refresh token was used before, so its session has been ended.",
        "invalid_token",
    )
    STEP_UP_REQUIRED = (
        "step_up_required",
        401,
        "A recent authentication is required: POST /auth/step-up.",
        "insufficient_user_authentication",
    )
    SECOND_FACTOR_REQUIRED = "second_factor_required", 401, "A code of the second factor is required."
    SECOND_FACTOR_INVALID = "second_factor_invalid", 401, "The code is wrong or was used, or the challenge is over."
    WRONG_CREDENTIALS = "wrong_credentials", 401, "The username or the password is wrong."
    ONE_TIME_TOKEN_INVALID = "one_time_token_invalid", 401, "The link is not valid any more."
    CROSS_SITE_REQUEST = "cross_site_request", 403, "Another site has caused the request."
    FORBIDDEN = "forbidden", 403, "Access is denied."
    INSUFFICIENT_SCOPE = "insufficient_scope", 403, "Insufficient permissions.", "insufficient_scope"
    SECOND_FACTOR_ENROLMENT_REQUIRED = (
        "second_factor_enrolment_required",
        403,
        "A second factor is required: POST /users/me/totp.",
    )
    NOT_FOUND = "not_found", 404, "The resource was not found."
    METHOD_NOT_ALLOWED = "method_not_allowed", 405, "The resource does not support this method."
    REQUEST_TIMEOUT = "request_timeout", 408, "The request did not arrive in time."
    USERNAME_TAKEN = "username_taken", 409, "The username is taken."
    LAST_ADMIN = "last_admin", 409, "The user is the last administrator."
    EMAIL_TAKEN = "email_taken", 409, "Another account has verified this address."
    ALREADY_ENROLLED = "already_enrolled", 409, "There is such a factor already."
    TOO_MANY_PASSKEYS = "too_many_passkeys", 409, "There are too many passkeys. Remove one first."
    NOTHING_TO_VERIFY = "nothing_to_verify", 409, "There is no address that waits for a code."
    NO_VERIFIED_ADDRESS = "no_verified_address", 409, "The user has no verified address."
    PAYLOAD_TOO_LARGE = "payload_too_large", 413, "The request is too large."
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type", 415, "The body must be application/json in UTF-8."
    EXPECTATION_FAILED = "expectation_failed", 417, "The expectation cannot be met."
    INVALID_FIELDS = "invalid_fields", 422, "Some fields are not valid."
    WRONG_CODE = "wrong_code", 422, "The code is wrong or has expired."
    TOO_MANY_ATTEMPTS = "too_many_attempts", 429, "Too many attempts. Please try again later."
    INTERNAL_ERROR = "internal_error", 500, "An unexpected error occurred. It was logged with the request id."
    CONNECTIONS_EXHAUSTED = "connections_exhausted", 503, "The worker has no connection left. Please try again."
    HASHING_BUSY = "hashing_busy", 503, "Too many passwords are being verified. Please try again."
    NOT_ENABLED = "not_enabled", 503, "This is not enabled at this service."
    REVOCATIONS_STALE = "revocations_stale", 503, "The session status is temporarily unavailable. Please try again."
    STOPPING = "stopping", 503, "The service is stopping."
    STORE_UNAVAILABLE = "store_unavailable", 503, "The database is temporarily unavailable. Please try again."
    UNAVAILABLE = "unavailable", 503, "The service could not respond in time. Please try again."


def answers_with(*codes: Code) -> Callable[[Function], Function]:
    """Declare the codes that a guard can answer with."""

    def decorate(function: Function) -> Function:
        setattr(function, CODES, (*codes, *declared_codes(function)))
        return function

    return decorate


def declared_codes(function: Callable[..., Any]) -> tuple[Code, ...]:
    """Return the codes that the function's guards declared."""
    declared: tuple[Code, ...] = getattr(function, CODES, ())
    return declared
