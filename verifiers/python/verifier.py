"""Verify the access tokens of the service in another one, without a call per request. Copy this file."""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping, Sequence
from functools import partial, wraps
from typing import Any

import httpx
import jwt

KEYS = {("EdDSA", "OKP", "Ed25519", "sig"), ("ES256", "EC", "P-256", "sig")}  # alg, kty, crv and use of accepted ones
KEYS_SECONDS, UNKNOWN_KEY_SECONDS = 300, 30  # between fetches of the keys: regular ones, and for unknown key ids
MARGIN_SECONDS = 300  # for which ended sessions are remembered longer, in case the service's clock is set back
MAX_BYTES, MAX_TOKENS = 4 * 1024 * 1024, 10_000  # of one response; in the cache of valid signatures
TOKEN = {"sub": str, "sid": str, "jti": str, "iat": int, "exp": int, "scopes": list, "auth_time": int, "amr": list}
FEED = {"cursor": str, "complete": bool, "sessions": dict, "dropped_keys": list}
boot_clock = partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic


class Refusal(Exception):
    """A response with problem details (RFC 9457) instead of the handler's."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        problem = {"title": httpx.codes.get_reason_phrase(status), "status": status, "detail": detail, "code": code}
        self.status, self.body = status, json.dumps(problem).encode()
        error = "" if code == "token_missing" else f' error="invalid_token", error_description="{detail}"'
        self.headers = {"www-authenticate": "Bearer" + error} if status == 401 else {"retry-after": "2"}
        self.headers |= {"content-type": "application/problem+json", "cache-control": "no-store"}


def check_types(claims: dict[str, Any], types: Mapping[str, type]) -> None:
    """Require claims of exactly these types, and strings in lists. Raises KeyError or ValueError."""
    for name, kind in types.items():
        if type(claims[name]) is not kind or (kind is list and any(type(item) is not str for item in claims[name])):
            raise ValueError(f"{name} has the wrong type")


class Verifier:
    """The keys and ended sessions of the service.

    A signed answer that echoes the nonce just sent makes it fresh from when the request was sent, less the answer's
    age. Tokens are accepted within `stale_seconds` from then by the boot clock, and expire by the service's time.
    """

    def __init__(self, url: str, *, issuer: str, audience: str, stale_seconds: float = 10) -> None:
        self._url, self._issuer, self._audience, self._stale = url.rstrip("/"), issuer, audience, stale_seconds
        self._keys: dict[str, jwt.PyJWK] = {}  # by id
        self._keys_at, self._keys_lock = float("-inf"), asyncio.Lock()  # when they were last asked for
        self._dropped: set[str] = set()
        self._ended: dict[str, float] = {}  # when to forget each session
        self._cursor: str | None = None  # of the proofs: nothing before it is missing
        self._fresh_at, self._ahead = float("-inf"), 0.0  # the latter is the service's time less the boot clock
        self._verified: dict[str, tuple[str, dict[str, Any]]] = {}  # key id and claims, by token

    async def follow(self) -> None:
        """Follow the service until this is cancelled. In Sanic: `app.add_task(verifier.follow)`."""
        async with httpx.AsyncClient(timeout=60) as self._http, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._repeat(self._prove, self._stale / 4))
            tasks.create_task(self._repeat(self._listen, self._stale / 10))
            tasks.create_task(self._repeat(self._renew_keys, KEYS_SECONDS))

    async def _repeat(self, step: Callable[[], Awaitable[object]], seconds: float) -> None:
        while True:
            result, _ = await asyncio.gather(step(), asyncio.sleep(seconds), return_exceptions=True)
            if isinstance(result, Exception):
                logging.getLogger(__name__).warning("No news of the service: %r", result)

    async def authenticate(self, authorization: Sequence[str]) -> dict[str, Any]:
        """Return the claims of the valid token in a request's Authorization headers. Raises Refusal."""
        scheme, _, token = ", ".join(authorization).partition(" ")
        if scheme.lower() != "bearer" or not token.strip(" "):
            raise Refusal(401, "token_missing", "An access token is required.")
        if boot_clock() - self._fresh_at > self._stale:
            raise Refusal(503, "revocations_stale", "Session status is temporarily unavailable.")
        if token not in self._verified:
            await self._verify_token(token)
            return await self.authenticate(authorization)  # its key may have been fetched, which takes time
        kid, claims = self._verified[token]
        if kid not in self._keys or kid in self._dropped:
            raise Refusal(401, "token_invalid", "The access token is not valid.")
        if claims["exp"] <= boot_clock() + self._ahead:
            raise Refusal(401, "token_expired", "The access token has expired.")
        if claims["sid"] in self._ended:
            raise Refusal(401, "session_ended", "The session has ended.")
        return dict(claims)

    async def _verify_token(self, token: str) -> None:
        try:
            kid, claims = await self._verify(token.strip(" "), "at+jwt", self._audience)
            check_types(claims := {"auth_time": 0, "amr": ["pwd"]} | claims, TOKEN)
        except (jwt.PyJWTError, LookupError, ValueError, RecursionError):
            raise Refusal(401, "token_invalid", "The access token is not valid.") from None
        if len(self._verified) >= MAX_TOKENS:
            del self._verified[next(iter(self._verified))]  # the oldest
        self._verified[token] = kid, {name: tuple(v) if type(v) is list else v for name, v in claims.items()}

    async def _verify(self, jws: str, typ: str, audience: str | None = None) -> tuple[str, dict[str, Any]]:
        """Return the key id and claims of a signed token. The key id selects the key, and the key the algorithm."""
        kid = jwt.get_unverified_header(jws)["kid"]
        if kid not in self._keys and kid not in self._dropped:  # a client that leaves does not cancel the fetch
            await asyncio.shield(asyncio.gather(self._renew_keys(UNKNOWN_KEY_SECONDS), return_exceptions=True))
        key, options = self._keys[kid], jwt.types.Options(verify_exp=False, verify_iat=False, strict_aud=True)
        signed = jwt.decode_complete(jws, key, [key.algorithm_name], options, audience=audience, issuer=self._issuer)
        if signed["header"].get("typ") != typ or kid in self._dropped:  # RFC 8725 section 3.11
            raise ValueError("the type is wrong, or the key was dropped")
        return kid, signed["payload"]

    async def _renew_keys(self, min_age: float = 0) -> None:
        """Fetch the keys, unless they were asked for more recently. Concurrent callers share one fetch."""
        async with self._keys_lock:
            if boot_clock() - self._keys_at >= (min_age if self._keys else self._stale / 4):
                self._keys_at = boot_clock()
                jwks = json.loads(await self._get("/.well-known/jwks.json", {}))["keys"]
                keys = [k for k in jwks if tuple(map(k.get, ("alg", "kty", "crv", "use"))) in KEYS and "d" not in k]
                self._keys = {key["kid"]: jwt.PyJWK(key) for key in keys}

    async def _prove(self) -> None:
        """Read all news, page by page. The nonces show that no page is a recording."""
        began, age, complete = boot_clock(), 0.0, False
        while not complete:
            sent, feed = boot_clock(), await self._ask(self._cursor, nonce=secrets.token_urlsafe(16))
            self._cursor, complete, age = feed["cursor"], feed["complete"], max(age, feed["age"])
        self._fresh_at, self._ahead, self._heard = max(self._fresh_at, began - age), feed["iat"] - sent, self._cursor
        self._ended = {sid: forget_at for sid, forget_at in self._ended.items() if forget_at > sent}

    async def _listen(self) -> None:
        """Hear of news at once. These answers may be recordings, so no proof uses their cursor."""
        self._heard = self._cursor
        while self._heard is not None:
            self._heard = (await self._ask(self._heard, wait="25"))["cursor"]
            await asyncio.sleep(self._stale / 100)

    async def _ask(self, after: str | None, **query: str) -> dict[str, Any]:
        """Add the ended sessions and dropped keys after a cursor, and return the answer."""
        jws = await self._get("/.well-known/revocations", query if after is None else query | {"after": after})
        _, feed = await self._verify(jws.decode(), "revocations+jwt")
        check_types(feed, FEED)
        numbers = (feed["iat"], feed["age"], *feed["sessions"].values())
        valid = all(type(number) in (int, float) and 0 <= number < 1e12 for number in numbers)
        answered, asked = (feed["after"], feed.get("nonce")), (after, query.get("nonce"))
        if not valid or answered != asked or not (feed["complete"] or feed["cursor"] != after):
            raise ValueError("a number is invalid, or this answers another request, or does not advance")
        self._dropped.update(feed["dropped_keys"])
        for sid, until in feed["sessions"].items():  # `until` and `iat` are both by the service's clock
            self._ended[sid] = max(self._ended.get(sid, 0), boot_clock() + max(0, until - feed["iat"]) + MARGIN_SECONDS)
        return feed

    async def _get(self, path: str, query: Mapping[str, str]) -> bytes:
        """Return the body of a response that is successful, in time and not too large."""
        body, seconds = b"", self._stale / 3 + float(query.get("wait", 0))
        async with asyncio.timeout(seconds), self._http.stream("GET", self._url + path, params=query) as response:
            if response.status_code in (400, 422) and "nonce" in query:  # the cursor is of another release
                self._cursor = None  # so read the whole state again
            response.raise_for_status()  # also for redirects
            async for chunk in response.aiter_raw():
                if len(body := body + chunk) > MAX_BYTES:
                    raise ValueError("the response is too large")
        return body

    def protected(self, handler: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """Require a valid token for a Sanic handler, which finds the claims in `request.ctx.claims`."""
        return wraps(handler)(partial(self._guarded, handler))

    async def _guarded(self, handler: Callable[..., Awaitable[Any]], request: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            request.ctx.claims = await self.authenticate(request.headers.getall("authorization", []))
        except Refusal as refusal:
            response = await request.respond(status=refusal.status, headers=refusal.headers)
            return await response.send(refusal.body, end_stream=True)
        return await handler(request, *args, **kwargs)


class BearerMiddleware:
    """Require a valid token on all paths of an ASGI app but the public ones; `request.state.claims` are its claims."""

    def __init__(self, app: Callable[..., Awaitable[None]], verifier: Verifier, public: Collection[str] = ()) -> None:
        self._app, self._verifier, self._public = app, verifier, public
        self._following: asyncio.Task[None] | None = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Follow the service while the app runs, and authenticate its requests."""
        if not self._following or self._following.done():  # not every app and server has lifespan events
            self._following = asyncio.create_task(self._verifier.follow())
        try:
            if scope["type"] != "lifespan" and scope["path"] not in self._public:
                values = [value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"]
                scope.setdefault("state", {})["claims"] = await self._verifier.authenticate(values)
            await self._app(scope, receive, send)
        except Refusal as refusal:
            headers = [(name.encode(), value.encode()) for name, value in refusal.headers.items()]
            kind = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
            await send({"type": f"{kind}.start", "status": refusal.status, "headers": headers})
            await send({"type": f"{kind}.body", "body": refusal.body})
        finally:
            if scope["type"] == "lifespan":
                self._following.cancel()
