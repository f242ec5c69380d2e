"""Types of settings: each refusal says which values are allowed, and why."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from limits import RateLimitItem, parse_many
from pydantic import AfterValidator, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from config.addresses import (
    check_protected_smtp_url,
    check_public_url,
    check_secure_url,
    check_sender,
    check_smtp_url,
)
from config.keys import TOKEN, check_header_secret, check_key

ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]+)?", re.ASCII)
# The same machine, which no network can read (W3C Secure Contexts section 3.1).
LOOPBACK_ORIGIN = re.compile(r"http://([a-z0-9-]+\.)*(localhost|127\.[0-9.]+)(:[0-9]+)?", re.ASCII)
DAY = 24 * 3600
HOUR = 3600
MAX_ATTEMPTS = 1_000_000  # in one window of a rate


class Checked:
    """A check of a setting, in the annotation of its type."""

    check: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check after the type."""
        return core_schema.no_info_after_validator_function(self.check, handler(source))


@dataclass(frozen=True)
class Bounds(Checked):
    """The lowest and the highest value of a number, and the reason.

    Infinity and NaN are outside.
    """

    low: float
    high: float
    why: str

    def check(self, value: float) -> float:
        """Return a value within the bounds. Raises ValueError."""
        if not self.low <= value <= self.high:
            raise ValueError(f"must be from {self.low} to {self.high}: {self.why}")
        return value


@dataclass(frozen=True)
class RateBounds(Checked):
    """The highest rate, by its attempts in one window and in a period of seconds, and the reason."""

    attempts: int
    seconds: int
    why: str

    def check(self, rate: str) -> str:
        """Return a rate that is at most this one. Raises ValueError."""
        item = parse_rate(rate)
        if item.amount > self.attempts or item.amount * self.seconds > self.attempts * item.get_expiry():
            raise ValueError(f"must be at most {self.attempts} attempts in {self.seconds} seconds: {self.why}")
        return rate


def parse_rate(rate: str) -> RateLimitItem:
    """Return a rate of the limits package.

    Raises ValueError.
    """
    try:
        (item,) = parse_many(rate)
    except ValueError:
        raise ValueError("is not a rate such as 10/15minutes") from None
    return item


def check_rate(rate: str) -> str:
    """Return a valid rate. Raises ValueError."""
    item = parse_rate(rate)
    if item.amount < 1:
        raise ValueError("would allow no attempt")
    if item.amount > MAX_ATTEMPTS:
        raise ValueError(f"must allow at most {MAX_ATTEMPTS} attempts in one window: more are no limit")
    if item.get_expiry() > DAY:
        raise ValueError("must have a window of at most one day: a lock lasts as long")
    return rate


def check_origin(origin: str) -> str:
    """Return a valid origin as browsers send it (RFC 6454), or *.

    Raises ValueError.
    """
    if origin != "*" and not ORIGIN.fullmatch(origin):
        raise ValueError("is not an origin such as https://app.example.com")
    return origin


def check_secure_origin(origin: str) -> str:
    """Return an origin that no network can impersonate.

    Raises ValueError.
    """
    if origin == "*":
        raise ValueError("must not be * in production: every page on the web could call the service")
    if origin.startswith("http://") and not LOOPBACK_ORIGIN.fullmatch(origin):
        raise ValueError(
            "must begin with https:// in production: a network can replace scripts that are sent over http"
        )
    return origin


def check_field_name(name: str) -> str:
    """Return a valid name of a header (RFC 9110 section 5.1).

    Raises ValueError.
    """
    if name == "*" or not TOKEN.fullmatch(name):
        raise ValueError("is not the name of a header such as X-Real-IP")
    return name


def check_script_headers(names: list[str]) -> list[str]:
    """Return the names of request headers in lower case.

    Raises ValueError, also for *, which would not include Authorization (Fetch standard).
    """
    lower = [name.lower() for name in names]
    missing = {"authorization", "content-type"} - set(lower)
    if missing:
        raise ValueError(f"lacks {' and '.join(sorted(missing))}, without which no script can call the service")
    return lower


def check_appendable(path: str) -> str:
    """Return the path of a file that can be written. Raises ValueError."""
    try:
        with Path(path).open("a"):
            return path
    except OSError as error:
        raise ValueError(f"cannot be written ({error.strerror})") from None


def each(check: Callable[[str], str]) -> Callable[[list[str]], list[str]]:
    """Return a check of all items of a list, whose refusal names the place of an item."""

    def check_all(items: list[str]) -> list[str]:
        for place, item in enumerate(items, 1):
            try:
                check(item)
            except ValueError as error:
                raise ValueError(f"item {place} {error}" if len(items) > 1 else str(error)) from None
        return items

    return check_all


Key = Annotated[str, AfterValidator(check_key)]
Keys = Annotated[list[str], AfterValidator(each(check_key))]
HeaderSecret = Annotated[str, AfterValidator(check_header_secret)]
Origins = Annotated[list[str], AfterValidator(each(check_origin))]
SecureOrigins = Annotated[Origins, AfterValidator(each(check_secure_origin))]
Rate = Annotated[str, AfterValidator(check_rate)]
SmtpUrl = Annotated[str, AfterValidator(check_smtp_url)]
ProtectedSmtpUrl = Annotated[SmtpUrl, AfterValidator(check_protected_smtp_url)]
PublicUrl = Annotated[str, AfterValidator(check_public_url)]
SecureUrl = Annotated[PublicUrl, AfterValidator(check_secure_url)]
Sender = Annotated[str, AfterValidator(check_sender)]
FieldName = Annotated[str, AfterValidator(check_field_name)]
CorsHeaders = Annotated[list[str], AfterValidator(each(check_field_name)), AfterValidator(check_script_headers)]
AppendableFile = Annotated[str, AfterValidator(check_appendable)]
Issuer = Annotated[str, Field(pattern=r"^[!-~]{1,255}$")]  # StringOrURI of RFC 7519 section 2, without spaces
