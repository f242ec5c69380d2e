"""The cookie mode: browsers keep the tokens in cookies that no script can read, instead of in the page."""

from typing import Any

from sanic import HTTPResponse, Request

from app.http.bodies import write
from app.http.codes import Code
from app.http.cookies import ACCESS, REFRESH, cookie, expire_cookies, set_cookie
from app.http.cross_site import SAFE_METHODS, CrossSite
from app.http.problems import Problem
from app.schemas.auth import InCookies, Tokens
from app.schemas.users import Registered, RegisteredInCookies, UserOut

Requests = Request[Any, Any]
COOKIES = (Code.CROSS_SITE_REQUEST, Code.NOT_ENABLED)  # what a request for cookies can be refused with


class CookieMode:
    """Reads the tokens of requests from cookies, and sets them in responses.

    A Bearer header wins, and cookies are then not read. Off without PUBLIC_URL, which the cross-site rule needs.
    """

    def __init__(self, cross_site: CrossSite, *, enabled: bool, refresh_seconds: int) -> None:
        self.enabled = enabled
        self._cross_site = cross_site
        self._refresh_seconds = refresh_seconds

    def access_token(self, request: Requests) -> str | None:
        """Return the access token of a request without a Bearer header. Raises Problem 401 or 403."""
        token = cookie(request, ACCESS) if self.enabled and not has_bearer(request) else None
        if token is None:
            return None
        if request.method not in SAFE_METHODS:
            self._cross_site.require(request)
        request.ctx.by_cookie = True
        return token

    def refresh_token(self, request: Requests) -> str | None:
        """Return the refresh token of a request in cookie mode.

        It has neither a body nor a Bearer header. Raises Problem 401 or 403.
        """
        if not self.enabled or request.body or has_bearer(request):
            return None
        token = cookie(request, REFRESH)
        if token is not None:
            self._cross_site.require(request)
            request.ctx.by_cookie = True
        return token

    def wanted(self, request: Requests, mode: str | None = None) -> bool:
        """Return whether tokens are to be set as cookies: it is asked for, or they came so.

        Raises Problem 403, or 503 if the cookie mode is off.
        """
        if mode is None:
            return by_cookie(request)
        if not self.enabled:
            raise Problem(Code.NOT_ENABLED)
        self._cross_site.require(request)
        return True

    def respond(self, tokens: Tokens, *, as_cookies: bool) -> HTTPResponse:
        """Respond with tokens, in the body or as cookies."""
        if not as_cookies:
            return write(tokens)
        return self._with_cookies(write(InCookies(expires_in=tokens.expires_in)), tokens)

    def respond_registered(self, tokens: Tokens, user: UserOut, *, as_cookies: bool) -> HTTPResponse:
        """Respond with a new user and its tokens, in the body or as cookies."""
        if not as_cookies:
            return write(Registered(**tokens.model_dump(), user=user), 201)
        return self._with_cookies(write(RegisteredInCookies(expires_in=tokens.expires_in, user=user), 201), tokens)

    def _with_cookies(self, response: HTTPResponse, tokens: Tokens) -> HTTPResponse:
        set_cookie(response, ACCESS, tokens.access_token, seconds=tokens.expires_in)
        set_cookie(response, REFRESH, tokens.refresh_token, seconds=self._refresh_seconds)
        return response


def has_bearer(request: Requests) -> bool:
    """Return whether a request has a Bearer token (RFC 6750).

    An Authorization header of a proxy, such as Basic, has none.
    """
    headers = request.headers.getall("authorization", ())
    return any(header.partition(" ")[0].lower() == "bearer" for header in headers)


def by_cookie(request: Requests) -> bool:
    """Return whether the token of a request came in a cookie."""
    return getattr(request.ctx, "by_cookie", False)


def without_cookies(request: Requests, response: HTTPResponse) -> HTTPResponse:
    """Let a browser forget the tokens of a session that the request has ended."""
    return expire_cookies(response) if by_cookie(request) else response
