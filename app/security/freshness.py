"""What a recent authentication is (RFC 9470), and which of them had a second factor (RFC 8176)."""

import time
from collections.abc import Callable

from app.tokens.access import Claims

FACTORS = {"otp", "mfa"}


class StepUpRequired(Exception):
    """The user must authenticate again.

    `seconds` is how old an authentication may be, and `factor` whether it needs the second factor.
    """

    def __init__(self, seconds: int, *, factor: bool) -> None:
        super().__init__()
        self.seconds = seconds
        self.factor = factor


def with_factor(claims: Claims) -> bool:
    """Return whether the user authenticated with a second factor."""
    return not FACTORS.isdisjoint(claims.amr)


class Freshness:
    """Requires that the user of a token authenticated within so many seconds."""

    def __init__(self, seconds: int, clock: Callable[[], float] = time.time) -> None:
        self._seconds = seconds
        self._clock = clock

    def require(self, claims: Claims, *, factor: bool = False) -> None:
        """Require a recent authentication, with the second factor if `factor` says so.

        Raises StepUpRequired.
        """
        if claims.auth_time < self._clock() - self._seconds or (factor and not with_factor(claims)):
            raise StepUpRequired(self._seconds, factor=factor)
