"""All settings, with their units and reasons."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from config import texts
from config.addresses import has_domain, origin
from config.keys import EXAMPLE_JWT_SECRET_KEY
from config.mongo_uri import check_uri
from config.product import NAME, SLUG
from config.rules import conflicts
from config.values import (
    DAY,
    HOUR,
    AppendableFile,
    Bounds,
    CorsHeaders,
    FieldName,
    HeaderSecret,
    Issuer,
    Key,
    Keys,
    Origins,
    PublicUrl,
    Rate,
    Sender,
    SmtpUrl,
)

__all__ = ["EXAMPLE_JWT_SECRET_KEY", "STOP", "Config"]

KIBIBYTE = 1024
SESSION = Bounds(1, 400 * DAY, "browsers limit cookies to 400 days (draft-ietf-httpbis-rfc6265bis), too")
PATIENCE = Bounds(1, 600, "each waiting client holds a connection, and few wait for ten minutes")
STOP = Bounds(0, HOUR, "a stop takes as long, and process managers kill what does not stop in time")


class Config(BaseModel):
    """The settings that all environments share. Frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True)

    DEBUG: bool = False
    TESTING: bool = False

    # The key can forge every token. It signs; the previous keys still verify, so that a key rotation ends no session.
    JWT_SECRET_KEY: Key = Field(repr=False)
    JWT_PREVIOUS_SECRET_KEYS: Keys = Field(default=[], repr=False)

    # The `iss` claim (RFC 7519). The first signs; the previous ones still verify, so that a change ends no session.
    ISSUER: Issuer | None = None  # default: PUBLIC_URL, or the product's name without it
    PREVIOUS_ISSUERS: list[Issuer] = []

    # The signature of access tokens. Other services can verify the asymmetric ones; their keys are in the database.
    JWT_ALGORITHM: Literal["HS256", "EdDSA", "ES256"] = "HS256"
    # Encrypts what the database must not show, such as private keys. The previous ones still decrypt.
    ENCRYPTION_KEY: Key | None = Field(default=None, repr=False)
    ENCRYPTION_PREVIOUS_KEYS: Keys = Field(default=[], repr=False)
    SIGNING_KEY_DAYS: Annotated[float, Bounds(0.00001, 400, "a key that leaks unnoticed forges tokens for as long")] = (
        30
    )
    # A key is published for so long before it signs. Clients cache public keys: jose for ten minutes.
    SIGNING_KEY_LEAD_SECONDS: Annotated[float, Bounds(1, DAY, "a rotation takes at least as long")] = 15 * 60
    OAUTH_PASSWORD_GRANT: bool = True  # whether /oauth/token takes passwords (RFC 6749 section 4.3)

    ACCESS_TOKEN_SECONDS: Annotated[int, Bounds(1, HOUR, "a stolen access token works for as long")] = 15 * 60
    REFRESH_TOKEN_SECONDS: Annotated[int, SESSION] = 14 * DAY  # a session that is not refreshed for this long expires
    # Active sessions of one user. One more ends the one that was refreshed longest ago.
    SESSIONS_PER_USER: Annotated[int, Bounds(1, 1000, "a list of them and their end take time for each")] = 50
    SESSION_SECONDS: Annotated[int, SESSION] = 30 * DAY  # and after its login in any case (NIST SP 800-63B-4, AAL1)
    # A client whose response was lost may retry for this long.
    REFRESH_GRACE_SECONDS: Annotated[
        int, Bounds(0, 60, "a stolen refresh token can be used for as long without being detected")
    ] = 10
    # After an authentication, what RFC 9470 calls fresh.
    STEP_UP_SECONDS: Annotated[int, Bounds(30, HOUR, "a stolen access token can change the account for as long")] = 300
    # Whether users can enrol a second factor, with ENCRYPTION_KEY; false while machines of an earlier release serve,
    # which would not ask for it. Who has one is asked for it in any case.
    SECOND_FACTOR: bool = True
    # From this access level on, users without a second factor can only enrol one.
    REQUIRE_SECOND_FACTOR: Literal["", "user", "admin"] = ""
    # How often a worker reads the ended sessions: the delay of a logout at other workers.
    REVOCATION_POLL_SECONDS: Annotated[
        float, Bounds(0.05, 60, "an ended session is active at other workers for as long, and each read costs a query")
    ] = 1
    # Without news of ended sessions for this long, protected routes respond with 503.
    REVOCATION_STALE_SECONDS: Annotated[
        float, Bounds(0.1, 120, "while the database cannot be reached, an ended session is active for as long")
    ] = 10

    # May contain a password.
    MONGO_URI: Annotated[str, AfterValidator(check_uri)] = Field(
        default=f"mongodb://127.0.0.1:27017/{NAME}", repr=False
    )
    # The time budget of one request for all its calls of the database.
    MONGO_TIMEOUT_SECONDS: Annotated[
        float, Bounds(0.05, 60, "a round trip to the database takes milliseconds, and clients do not wait for a minute")
    ] = 3

    PASSWORD_MIN_LENGTH: Annotated[
        int, Bounds(8, 64, "NIST SP 800-63B-4 section 3.1.1.2 asks for at least 8, and for 64 to be accepted")
    ] = 8  # characters
    # Failed passwords, by account and address together, by account, by address; and registrations by address.
    LOGIN_FAILURES_PER_PAIR: Rate = "10/15minutes"
    LOGIN_FAILURES_PER_ACCOUNT: Rate = "100/hour"  # NIST SP 800-63B-4 section 3.2.2
    LOGIN_FAILURES_PER_ADDRESS: Rate = "100/15minutes"
    REGISTRATIONS_PER_ADDRESS: Rate = "20/minute"
    RESETS_PER_ADDRESS: Rate = "60/hour"  # resets of passwords asked for; more are passed over, with the same response
    LOGINS_PER_ACCOUNT: Rate = "30/minute"  # right passwords
    # Where they are counted: in memory only with a single worker on a single machine.
    THROTTLE_STORAGE: Literal["mongodb", "memory"] = "mongodb"
    # 19 MiB and one core each while they hash. As many workers as cores use all cores with one thread each; more
    # threads than cores do not hash faster, and delay requests: a thread that holds the GIL waits for another thread.
    PASSWORD_HASHING_THREADS: Annotated[int, Bounds(1, 64, "each takes 19 MiB and a core while it hashes")] = 1
    # Passwords that may wait for a thread; beyond it 503.
    PASSWORD_HASHING_QUEUE: Annotated[
        int, Bounds(0, 1000, "a core hashes fifty passwords in a second, so the last one would wait for twenty")
    ] = 64
    # Of one client network, waiting or being hashed; beyond it 429. The network that includes it has twice as many.
    PASSWORD_HASHING_PLACES: Annotated[
        int, Bounds(1, 64, "each is a fiftieth of a second for which others of the network wait")
    ] = 8

    CORS_ORIGINS: Origins = []  # origins whose scripts may call the service; empty: no CORS
    # With PUBLIC_URL, browsers can keep the tokens in cookies; of CORS_ORIGINS only exact ones may use them.
    COOKIE_MODE: bool = True
    CORS_HEADERS: CorsHeaders = ["authorization", "content-type", "x-request-id"]  # that these scripts may send

    # Mail is off without SMTP_URL, and with it the routes for e-mail addresses and forgotten passwords.
    SMTP_URL: SmtpUrl | None = Field(default=None, repr=False)  # contains a password
    MAIL_FROM: Sender | None = None
    # The service as its clients see it, and the pages that links in mails lead to; never taken from a request.
    PUBLIC_URL: PublicUrl | None = None
    ACCOUNT_URL: PublicUrl | None = None  # default: PUBLIC_URL/account, the pages of this service
    PAGES: bool = True
    # Of all accounts together; more mails wait.
    MAILS_PER_MINUTE: Annotated[int, Bounds(1, 100_000, "mail servers have limits, and block who exceeds them")] = 600
    LOGIN_NOTICES: bool = False  # a mail for each login from a network that is not usual for the account

    LOG_FORMAT: Literal["text", "json"] = "text"
    AUDIT_FILE: AppendableFile | None = None  # for the audit trail alone
    ACCESS_LOG: bool = False  # a line for each request; costs as much as a simple request

    # What operators may switch off, or protect by a token: the documentation page, and the metrics for Prometheus.
    DOCS: bool = True
    METRICS: bool = True
    METRICS_TOKEN: HeaderSecret | None = Field(default=None, repr=False)

    # Sanic's own. Its defaults accept 100 MB of body and wait a minute for a silent client.
    # Bytes of body. The largest body of a route, two passwords of which each character is escaped, has 25 kB.
    REQUEST_MAX_SIZE: Annotated[
        int,
        Bounds(
            8 * KIBIBYTE,
            1024 * KIBIBYTE,
            "two passwords must fit, and to parse a larger body would delay all other requests of the worker",
        ),
    ] = 32 * KIBIBYTE
    REQUEST_MAX_HEADER_SIZE: Annotated[
        int, Bounds(2 * KIBIBYTE, 16 * KIBIBYTE, "an access token must fit, and Sanic reads at most 16 KiB")
    ] = 8 * KIBIBYTE  # bytes
    REQUEST_TIMEOUT: Annotated[int, PATIENCE] = 15  # seconds of silence before the request is complete
    # Seconds for a response to be made, and for the client to read what waits for it (slow read).
    RESPONSE_TIMEOUT: Annotated[int, PATIENCE] = 30
    # Longer than the load balancer's idle timeout.
    KEEP_ALIVE_TIMEOUT: Annotated[int, Bounds(1, HOUR, "an idle connection holds a file descriptor")] = 120
    # Seconds for requests in progress when the service stops.
    GRACEFUL_SHUTDOWN_TIMEOUT: Annotated[float, STOP] = 15
    # Each byte restarts Sanic's timeouts, so this limits how long one request may take to arrive (slowloris).
    REQUEST_ARRIVAL_SECONDS: Annotated[
        float, Bounds(1, 600, "a slow client needs time, and a client that is slow on purpose holds a connection")
    ] = 60
    # Open connections of a worker; fewer if the limit of open files is lower. A few others are served for one request
    # each. A connection takes 10 kB of memory while it is idle, 45 kB while a large body arrives, and 110 kB while its
    # client does not read a large response.
    CONNECTIONS_PER_WORKER: Annotated[int, Bounds(16, 100_000, "a worker serves several clients, in 10 kB each")] = 4096
    # How long a stopping service still serves, not ready, until the load balancer has noticed. The process manager
    # must allow DRAIN_SECONDS + GRACEFUL_SHUTDOWN_TIMEOUT + 5 seconds before it kills.
    DRAIN_SECONDS: Annotated[float, STOP] = 0

    # The client's address is the peer's, unless one of these names a trusted proxy.
    PROXIES_COUNT: (
        Annotated[int, Bounds(1, 10, "with a number above that of the proxies, clients choose their address")] | None
    ) = None
    REAL_IP_HEADER: FieldName | None = None
    FORWARDED_SECRET: HeaderSecret | None = Field(default=None, repr=False)

    @property
    def issuers(self) -> list[str]:
        """The issuer of new tokens, then those whose tokens are still accepted."""
        return [self.ISSUER or self.PUBLIC_URL or SLUG, *self.PREVIOUS_ISSUERS, *([] if self.ISSUER else [SLUG])]

    @property
    def public_origin(self) -> str | None:
        """The service's own origin, if it has a public URL."""
        return origin(self.PUBLIC_URL) if self.PUBLIC_URL else None

    @property
    def cookies_enabled(self) -> bool:
        """Whether browsers can keep the tokens in cookies: not where scripts of every origin may call the service."""
        return self.COOKIE_MODE and self.PUBLIC_URL is not None and "*" not in self.CORS_ORIGINS

    @property
    def passkeys_enabled(self) -> bool:
        """Whether users can add passkeys.

        Their site is that of PUBLIC_URL, which must have a domain name.
        """
        return self.ENCRYPTION_KEY is not None and self.PUBLIC_URL is not None and has_domain(self.PUBLIC_URL)

    @field_validator("*", mode="before")
    @classmethod
    def _without_invisible_characters(cls, value: Any) -> Any:
        """Take line ends, spaces and the like off the ends of all texts, and empty items out of lists."""
        if isinstance(value, list):
            items = [texts.clean(item) if isinstance(item, str) else item for item in value]
            return [item for item in items if item != ""]
        return texts.clean(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        """Require what settings must be together."""
        if problems := conflicts(dict(self)):
            raise ValueError("\n  ".join(problems))
        return self
