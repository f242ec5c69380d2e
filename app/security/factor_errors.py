"""Refusals of the second factor, which cost no import of it."""

from collections.abc import Sequence


class SecondFactorRequired(Exception):
    """The password was right, or is not enough: a code is required.

    `factors` names what the user has. A `challenge` is answered with a code to complete a login.
    """

    def __init__(self, factors: Sequence[str], challenge: str | None = None) -> None:
        super().__init__()
        self.factors = list(factors)
        self.challenge = challenge


class WrongSecondFactor(Exception):
    """The code is wrong or was used.

    Or the challenge is used up or has expired.
    """


class PasskeyCopied(WrongSecondFactor):
    """The counter of a passkey went back, so there are two authenticators with its key."""


class WrongFactorCode(Exception):
    """The code does not show the authenticator that is to be confirmed."""


class SecondFactorOff(Exception):
    """Second factors cannot be enrolled: SECOND_FACTOR is off, or ENCRYPTION_KEY is not set."""


class AlreadyEnrolled(Exception):
    """The user has such a factor already."""


class NotEnrolled(Exception):
    """The user has no such factor."""
