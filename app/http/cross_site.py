"""The cross-site rule: no other site lets a browser change anything with our cookies (CSRF, login CSRF, logout CSRF).

It is that of Go's CrossOriginProtection, which the OWASP CSRF Prevention Cheat Sheet cites, made stricter: a request
with neither header is refused.
"""

from collections.abc import Container, Iterable, Sequence
from typing import Any

from sanic import Request

from app.http.codes import Code
from app.http.problems import Problem

OWN = ("same-origin", "none")  # caused by a page of this origin, or by a person
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110 section 9.2.1


def is_allowed(fetch_site: Sequence[str], origins: Sequence[str], allowed: Container[str]) -> bool:
    """Return whether a request passes, by its Sec-Fetch-Site and Origin.

    `allowed` are exact origins. Another subdomain of our site is another origin.
    """
    if len(fetch_site) > 1 or len(origins) > 1 or any("," in value for value in (*fetch_site, *origins)):
        return False
    if fetch_site and fetch_site[0] in OWN:
        return True
    return bool(origins) and origins[0] in allowed


class CrossSite:
    """The rule for requests: only this service's own origin and those of CORS_ORIGINS may cause them."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._allowed = frozenset(origins) - {"*", "null"}

    def require(self, request: Request[Any, Any], *, from_browsers_only: bool = False) -> None:
        """Require that no other site has caused a request.

        With `from_browsers_only` one with neither header passes, since it uses no cookie. Raises Problem 403.
        """
        fetch_site = request.headers.getall("sec-fetch-site", [])
        origins = request.headers.getall("origin", [])
        if from_browsers_only and not fetch_site and not origins:
            return
        if not is_allowed(fetch_site, origins, self._allowed):
            raise Problem(Code.CROSS_SITE_REQUEST)
