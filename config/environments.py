"""The differences between development, testing and production."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from config.addresses import DEVELOPMENT_URL
from config.base import STOP, Config
from config.mongo_uri import check_uri, check_verified
from config.product import NAME
from config.values import (
    DAY,
    HOUR,
    MAX_ATTEMPTS,
    Bounds,
    ProtectedSmtpUrl,
    PublicUrl,
    Rate,
    RateBounds,
    SecureOrigins,
    SecureUrl,
)

# NIST SP 800-63B-4 section 3.2.2. The limit of an account also holds for each of its pairs.
PAIR = RateBounds(100, 60, "NIST SP 800-63B-4 allows 100 failed attempts for one account")
ACCOUNT = RateBounds(100, HOUR, "NIST SP 800-63B-4 allows 100 failed attempts for one account")
NETWORK = RateBounds(MAX_ATTEMPTS, 600, "a higher rate is no limit for an address or account")


class DevelopmentConfig(Config):
    """A laptop: an access log, and a MongoDB on the same machine.

    DEBUG only names the environment.
    """

    DEBUG: bool = True
    PUBLIC_URL: PublicUrl | None = DEVELOPMENT_URL
    ACCESS_LOG: bool = True


class TestingConfig(Config):
    """The test suite: a separate database.

    TESTING only names the environment.
    """

    TESTING: bool = True
    MONGO_URI: Annotated[str, AfterValidator(check_uri)] = Field(
        default=f"mongodb://127.0.0.1:27017/{NAME}_test", repr=False
    )


class ProductionConfig(Config):
    """Production: no DEBUG, no default database, longer passwords, a JSON log, a drain before the stop.

    Settings that weaken a promise of docs/security.md have narrower bounds.
    """

    DEBUG: Literal[False] = False
    TESTING: Literal[False] = False
    MONGO_URI: Annotated[str, AfterValidator(check_uri), AfterValidator(check_verified)] = Field(repr=False)
    LOG_FORMAT: Literal["text", "json"] = "json"
    # A load balancer that probes every 5 seconds has noticed.
    DRAIN_SECONDS: Annotated[float, STOP] = 10
    PASSWORD_MIN_LENGTH: Annotated[
        int,
        Bounds(
            15, 64, "NIST SP 800-63B-4 section 3.1.1.2 asks for 15 characters where the password is the only factor"
        ),
    ] = 15
    LOGIN_FAILURES_PER_PAIR: Annotated[Rate, PAIR] = "10/15minutes"
    LOGIN_FAILURES_PER_ACCOUNT: Annotated[Rate, ACCOUNT] = "100/hour"
    LOGIN_FAILURES_PER_ADDRESS: Annotated[Rate, NETWORK] = "100/15minutes"
    REGISTRATIONS_PER_ADDRESS: Annotated[Rate, NETWORK] = "20/minute"
    RESETS_PER_ADDRESS: Annotated[Rate, NETWORK] = "60/hour"
    LOGINS_PER_ACCOUNT: Annotated[Rate, NETWORK] = "30/minute"
    REVOCATION_POLL_SECONDS: Annotated[
        float, Bounds(0.1, 5, "an ended session is active at other workers for as long")
    ] = 1
    REVOCATION_STALE_SECONDS: Annotated[
        float, Bounds(1, 60, "while the database cannot be reached, an ended session is active for as long")
    ] = 10
    SIGNING_KEY_DAYS: Annotated[float, Bounds(1, 400, "a key that leaks unnoticed forges tokens for as long")] = 30
    SIGNING_KEY_LEAD_SECONDS: Annotated[
        float, Bounds(15 * 60, DAY, "clients cache public keys for ten minutes and more, and refuse those they lack")
    ] = 15 * 60
    SMTP_URL: ProtectedSmtpUrl | None = Field(default=None, repr=False)
    PUBLIC_URL: SecureUrl | None = None
    ACCOUNT_URL: SecureUrl | None = None
    CORS_ORIGINS: SecureOrigins = Field(default=[])


ENVIRONMENTS: dict[str, type[Config]] = {
    "development": DevelopmentConfig,
    "testing": TestingConfig,
    "production": ProductionConfig,
}
