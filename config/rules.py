"""What settings must be together, although each alone is valid."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """A rule of several settings.

    `broken` returns whether it is broken, and `problem` says what is then wrong with the first of them.
    """

    names: tuple[str, ...]
    broken: Callable[..., bool]
    problem: str


def _among(secret: str | None, *others: str | list[str] | None) -> bool:
    """Return whether a secret is also one of the others."""
    known = [one for other in others for one in (other if isinstance(other, list) else [other])]
    return secret is not None and secret in known


RULES = (
    Rule(
        ("REFRESH_TOKEN_SECONDS", "ACCESS_TOKEN_SECONDS"),
        lambda refresh, access: refresh < access,
        "is less than ACCESS_TOKEN_SECONDS",
    ),
    Rule(
        ("SESSION_SECONDS", "REFRESH_TOKEN_SECONDS"),
        lambda session, refresh: session < refresh,
        "is less than REFRESH_TOKEN_SECONDS",
    ),
    Rule(
        ("REVOCATION_STALE_SECONDS", "REVOCATION_POLL_SECONDS"),
        lambda stale, poll: stale < 2 * poll,
        "is less than two REVOCATION_POLL_SECONDS, so that one late read would cause responses with 503",
    ),
    Rule(
        ("MONGO_TIMEOUT_SECONDS", "RESPONSE_TIMEOUT"),
        lambda mongo, response: mongo >= response,
        "is not less than RESPONSE_TIMEOUT, so that no response could report that the database is unavailable",
    ),
    Rule(
        ("MAIL_FROM", "SMTP_URL"),
        lambda sender, server: server is not None and sender is None,
        "is missing: with SMTP_URL, mails need a sender",
    ),
    Rule(
        ("PUBLIC_URL", "SMTP_URL"),
        lambda url, server: server is not None and url is None,
        "is missing: with SMTP_URL, mails contain links to the service",
    ),
    Rule(
        ("ENCRYPTION_KEY", "JWT_ALGORITHM"),
        lambda key, algorithm: key is None and algorithm != "HS256",
        "is missing: with an asymmetric JWT_ALGORITHM, private keys are stored",
    ),
    Rule(
        ("PUBLIC_URL", "JWT_ALGORITHM"),
        lambda url, algorithm: url is None and algorithm != "HS256",
        "is missing: with an asymmetric JWT_ALGORITHM, other services find the keys by it",
    ),
    Rule(
        ("ENCRYPTION_KEY", "REQUIRE_SECOND_FACTOR"),
        lambda key, level: key is None and level != "",
        "is missing: with REQUIRE_SECOND_FACTOR, secrets of authenticators are stored",
    ),
    Rule(
        ("SECOND_FACTOR", "REQUIRE_SECOND_FACTOR"),
        lambda enabled, level: not enabled and level != "",
        "is false, so that nobody could enrol what REQUIRE_SECOND_FACTOR asks for",
    ),
    Rule(
        ("ENCRYPTION_KEY", "JWT_SECRET_KEY", "JWT_PREVIOUS_SECRET_KEYS"),
        _among,
        "is also a key that signs",
    ),
    Rule(
        ("ACCOUNT_URL", "SMTP_URL", "PAGES"),
        lambda url, server, pages: server is not None and url is None and not pages,
        "is missing: with SMTP_URL and without PAGES, links in mails need pages of yours",
    ),
    Rule(
        ("FORWARDED_SECRET", "JWT_SECRET_KEY", "JWT_PREVIOUS_SECRET_KEYS"),
        _among,
        "is also a signing key, so that the proxy could forge tokens",
    ),
    Rule(
        ("METRICS_TOKEN", "JWT_SECRET_KEY", "JWT_PREVIOUS_SECRET_KEYS", "FORWARDED_SECRET"),
        _among,
        "is also another secret, which Prometheus should not know",
    ),
)


def conflicts(values: Mapping[str, Any]) -> list[str]:
    """Return the problems of rules that are broken.

    A rule needs the values of all its settings.
    """
    return [
        f"{rule.names[0]}: {rule.problem}"
        for rule in RULES
        if all(name in values for name in rule.names) and rule.broken(*(values[name] for name in rule.names))
    ]
