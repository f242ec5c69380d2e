"""Passkeys of the service's own site."""

from app.factors.passkeys import RelyingParty
from app.models.factors import Factors
from app.models.one_time_tokens import OneTimeTokens
from app.models.sessions import Sessions
from app.security.enrolment import Enrolment
from app.security.generations import Generations
from app.security.notices import Notices
from app.security.own_account import OwnAccount
from app.security.passkeys import Passkeys
from app.security.throttle import Throttle
from config.product import NAME


def passkeys(
    public_url: str,
    factors: Factors,
    tokens: OneTimeTokens,
    sessions: Sessions,
    throttle: Throttle,
    notices: Notices,
    generations: Generations,
    own_account: OwnAccount,
    enrolment: Enrolment,
) -> Passkeys:
    """Return the use cases of passkeys."""
    site = RelyingParty(public_url, name=NAME)
    return Passkeys(site, factors, tokens, sessions, throttle, notices, generations, own_account, enrolment)
