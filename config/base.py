"""All settings, with their units and reasons."""

import re
from typing import Annotated, Literal

from limits import parse_many
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from config.product import NAME, SLUG

EXAMPLE_JWT_SECRET_KEY = "replace-me-with-a-random-secret-of-at-least-32-bytes"
MIN_SECRET_BYTES = 32  # RFC 7518 section 3.2: an HS256 key has at least 256 bits
MIN_SECRET_VARIETY = 10  # distinct characters; hexadecimal random text of this length has 14 or more
ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]+)?", re.ASCII)


def check_rate(rate: str) -> str:
    """Return a valid rate of the limits package.

    Raises ValueError.
    """
    try:
        (item,) = parse_many(rate)
    except ValueError:
        raise ValueError("is not a rate such as 10/15minutes") from None
    if item.amount < 1:
        raise ValueError("would allow no attempt")
    return rate


def check_origin(origin: str) -> str:
    """Return a valid origin as browsers send it (RFC 6454), or *. Raises ValueError."""
    if origin != "*" and not ORIGIN.fullmatch(origin):
        raise ValueError("is not an origin such as https://app.example.com")
    return origin


Seconds = Annotated[int, Field(gt=0)]
Origin = Annotated[str, AfterValidator(check_origin)]
Rate = Annotated[str, AfterValidator(check_rate)]
Issuer = Annotated[str, Field(pattern=r"^[!-~]{1,255}$")]  # StringOrURI of RFC 7519 section 2, without spaces


def check_secret(secret: str) -> str:
    """Return a strong signing key.

    Raises ValueError with the reason.
    """
    if secret == EXAMPLE_JWT_SECRET_KEY:
        raise ValueError(
            "is the example: make one with scripts/run or python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
        )
    if len(secret.encode()) < MIN_SECRET_BYTES:
        raise ValueError(f"is shorter than {MIN_SECRET_BYTES} bytes")
    if len(set(secret)) < MIN_SECRET_VARIETY:
        raise ValueError(f"has fewer than {MIN_SECRET_VARIETY} different characters, so it is not random")
    return secret


class Config(BaseModel):
    """The settings that all environments share. Frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True)

    DEBUG: bool = False
    TESTING: bool = False

    # The key can forge every token. It signs; the previous keys still verify, so that a key rotation ends no session.
    JWT_SECRET_KEY: str = Field(repr=False)
    JWT_PREVIOUS_SECRET_KEYS: list[str] = Field(default=[], repr=False)

    # The `iss` claim (RFC 7519). The first signs; the previous ones still verify, so that a change ends no session.
    ISSUER: Issuer = SLUG
    PREVIOUS_ISSUERS: list[Issuer] = []

    ACCESS_TOKEN_SECONDS: Annotated[Seconds, Field(le=3600)] = 15 * 60
    REFRESH_TOKEN_SECONDS: Seconds = 14 * 24 * 3600  # a session that is not refreshed for this long expires
    SESSION_SECONDS: Seconds = 30 * 24 * 3600  # and this long after its login in any case (NIST SP 800-63B-4, AAL1)
    REFRESH_GRACE_SECONDS: Annotated[int, Field(ge=0, le=60)] = 10  # a client whose response was lost may retry
    REVOCATION_POLL_SECONDS: Annotated[float, Field(gt=0, le=60)] = 1  # the delay of a logout at other workers
    # Without news of ended sessions for this long, protected routes respond with 503.
    REVOCATION_STALE_SECONDS: Annotated[float, Field(gt=0, le=120)] = 10

    MONGO_URI: str = Field(default=f"mongodb://127.0.0.1:27017/{NAME}", repr=False)  # may contain a password
    # The time budget of one request for all its calls of the database.
    MONGO_TIMEOUT_SECONDS: Annotated[float, Field(gt=0, le=60)] = 3

    PASSWORD_MIN_LENGTH: Annotated[int, Field(ge=8, le=64)] = 8  # characters
    # Failed passwords, by account and address together, by account, by address; and registrations by address.
    LOGIN_FAILURES_PER_PAIR: Rate = "10/15minutes"
    LOGIN_FAILURES_PER_ACCOUNT: Rate = "100/hour"  # NIST SP 800-63B-4 section 3.2.2
    LOGIN_FAILURES_PER_ADDRESS: Rate = "100/15minutes"
    REGISTRATIONS_PER_ADDRESS: Rate = "20/minute"
    # Where they are counted: in memory only with a single worker on a single machine.
    THROTTLE_STORAGE: Literal["mongodb", "memory"] = "mongodb"
    # 19 MiB and one core each while they hash. As many workers as cores use all cores with one thread each; more
    # threads than cores do not hash faster, and delay requests: a thread that holds the GIL waits for another thread.
    PASSWORD_HASHING_THREADS: Annotated[int, Field(ge=1, le=64)] = 1
    PASSWORD_HASHING_QUEUE: Annotated[int, Field(ge=0)] = 64  # passwords that may wait for a thread; beyond it 503

    CORS_ORIGINS: list[Origin] = []  # origins whose scripts may call the service; empty: no CORS
    LOG_FORMAT: Literal["text", "json"] = "text"
    ACCESS_LOG: bool = False  # a line for each request; costs as much as a simple request

    # Sanic's own. Its defaults accept 100 MB of body and wait a minute for a silent client.
    REQUEST_MAX_SIZE: Annotated[int, Field(gt=0)] = 32_768  # bytes of body
    REQUEST_MAX_HEADER_SIZE: Annotated[int, Field(gt=0, le=16_384)] = 8192  # bytes
    REQUEST_TIMEOUT: Seconds = 15  # seconds of silence before the request is complete
    RESPONSE_TIMEOUT: Seconds = 30
    KEEP_ALIVE_TIMEOUT: Seconds = 120  # longer than the load balancer's idle timeout
    GRACEFUL_SHUTDOWN_TIMEOUT: Annotated[float, Field(ge=0)] = (
        15  # seconds for requests in progress when the service stops
    )
    # Each byte restarts Sanic's timeouts, so this limits how long one request may take to arrive (slowloris).
    REQUEST_ARRIVAL_SECONDS: Annotated[float, Field(gt=0)] = 60
    # How long a stopping service still serves, not ready, until the load balancer has noticed. The process manager
    # must allow DRAIN_SECONDS + GRACEFUL_SHUTDOWN_TIMEOUT + 5 seconds before it kills.
    DRAIN_SECONDS: Annotated[float, Field(ge=0)] = 0

    # The client's address is the peer's, unless one of these names a trusted proxy.
    PROXIES_COUNT: Annotated[int, Field(ge=1)] | None = None
    REAL_IP_HEADER: str | None = None
    FORWARDED_SECRET: str | None = Field(default=None, repr=False)

    @field_validator("MONGO_URI")
    @classmethod
    def _uri_can_be_read(cls, uri: str) -> str:
        try:
            if not uri.startswith("mongodb+srv://"):  # the hosts of which need a look-up in the network
                parse_uri(uri)
        except (PyMongoError, ValueError):
            raise ValueError("is not a MongoDB connection string") from None
        return uri

    @field_validator("JWT_SECRET_KEY")
    @classmethod
    def _secret_is_strong(cls, secret: str) -> str:
        return check_secret(secret)

    @field_validator("JWT_PREVIOUS_SECRET_KEYS")
    @classmethod
    def _previous_secrets_are_strong(cls, secrets: list[str]) -> list[str]:
        return [check_secret(secret) for secret in secrets]

    @field_validator("REFRESH_TOKEN_SECONDS")
    @classmethod
    def _refresh_outlives_access(cls, seconds: int, info: ValidationInfo) -> int:
        if seconds < info.data.get("ACCESS_TOKEN_SECONDS", 0):
            raise ValueError("is less than ACCESS_TOKEN_SECONDS")
        return seconds

    @field_validator("SESSION_SECONDS")
    @classmethod
    def _session_outlives_refresh(cls, seconds: int, info: ValidationInfo) -> int:
        if seconds < info.data.get("REFRESH_TOKEN_SECONDS", 0):
            raise ValueError("is less than REFRESH_TOKEN_SECONDS")
        return seconds

    @field_validator("REVOCATION_STALE_SECONDS")
    @classmethod
    def _stale_is_later_than_poll(cls, seconds: float, info: ValidationInfo) -> float:
        if seconds < 2 * info.data.get("REVOCATION_POLL_SECONDS", 0):
            raise ValueError("is less than two REVOCATION_POLL_SECONDS")
        return seconds
