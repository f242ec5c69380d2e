"""Public keys, metadata, and the ended sessions, for other services that accept the tokens."""

from sanic import Blueprint, HTTPResponse
from sanic.views import HTTPMethodView

from app.context import Request, published_keys
from app.http.bodies import read_query, write
from app.http.client import client
from app.http.codes import Code
from app.http.problems import Problem
from app.http.responses import respond
from app.http.static import Content
from app.models.users import Access
from app.openapi.operations import describe
from app.schemas.discovery import FeedQuery, JwkSet, Metadata
from app.security.logins import scopes

CACHING = "public, max-age=300"
FEED_TYPE = "application/jwt"  # RFC 7519 section 10.3.1
MARGIN_SECONDS = 5  # of the time limit for responses

blueprint = Blueprint("discovery", url_prefix="/.well-known")


class PublicKeys(HTTPMethodView, attach=blueprint, uri="/jwks.json"):
    """The keys that verify access tokens and the feed."""

    @describe(responses={200: JwkSet})
    async def get(self, request: Request) -> HTTPResponse:
        """Return the public keys (RFC 7517)."""
        keys = published_keys(request)
        body = JwkSet(keys=keys.set.jwks if keys else []).model_dump_json()
        return await Content(body.encode(), "application/json", caching=CACHING)(request)


class ServerMetadata(HTTPMethodView, attach=blueprint, uri="/oauth-authorization-server"):
    """What the service offers, for OAuth 2.0 clients."""

    @describe(responses={200: Metadata}, refuses=(Code.NOT_FOUND,))
    async def get(self, request: Request) -> HTTPResponse:
        """Return the metadata (RFC 8414), if the service knows its public URL."""
        url, config = request.app.config.PUBLIC_URL, request.app.config
        if not url:
            raise Problem(Code.NOT_FOUND)
        with_password = ["password", config.SECOND_FACTOR_GRANT] if config.OAUTH_PASSWORD_GRANT else []
        return write(
            Metadata(
                issuer=config.ISSUER,
                jwks_uri=f"{url}/.well-known/jwks.json",
                token_endpoint=f"{url}/oauth/token",
                revocation_endpoint=f"{url}/oauth/revoke",
                grant_types_supported=[*with_password, "refresh_token"],
                scopes_supported=scopes(Access.ADMIN),
            )
        )


class EndedSessions(HTTPMethodView, attach=blueprint, uri="/revocations"):
    """The feed of ended sessions."""

    @describe(query=FeedQuery, responses={200: None}, refuses=(Code.NOT_FOUND, Code.REVOCATIONS_STALE))
    async def get(self, request: Request) -> HTTPResponse:
        """Follow the ended sessions.

        The response is a signed page of what is new after a cursor.

        The page is a JWT of the type `revocations+jwt`; `verifiers/` has code that follows it.
        """
        query = read_query(request, FeedQuery)
        keys = published_keys(request)
        if keys is None:
            raise Problem(Code.NOT_FOUND)
        wait = max(0, min(query.wait, request.app.config.RESPONSE_TIMEOUT - MARGIN_SECONDS))
        follower = client(request)
        network = None if follower.alike else follower.network
        page = await keys.feed.page(query.after, wait=wait, nonce=query.nonce, network=network)
        return respond(page.encode(), content_type=FEED_TYPE)
