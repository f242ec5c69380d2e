"""The public keys and the feed of ended sessions, as the service serves them, with answers that a test can replace."""

import asyncio
import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER = "http://issuer.test"
AUDIENCE = "orders"
TOKEN_SECONDS = 900
JWKS, FEED = "/.well-known/jwks.json", "/.well-known/revocations"
Json = dict[str, Any]
Query = dict[str, str]


def encode(data: bytes | Json) -> str:
    """Encode bytes or JSON as base64url without padding."""
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Key:
    """A key pair of the service or of an attacker."""

    def __init__(self, algorithm: str = "EdDSA") -> None:
        self.algorithm = algorithm
        es256 = algorithm == "ES256"
        self._private = ec.generate_private_key(ec.SECP256R1()) if es256 else ed25519.Ed25519PrivateKey.generate()
        public = self._private.public_key()
        if isinstance(public, ec.EllipticCurvePublicKey):
            numbers = public.public_numbers()
            point = {"x": encode(numbers.x.to_bytes(32)), "y": encode(numbers.y.to_bytes(32))}
            required = {"crv": "P-256", "kty": "EC", **point}
        else:
            required = {"crv": "Ed25519", "kty": "OKP", "x": encode(public.public_bytes_raw())}
        text = json.dumps(required, sort_keys=True, separators=(",", ":"))
        self.kid = encode(hashlib.sha256(text.encode()).digest())  # RFC 7638
        self.jwk = {**required, "kid": self.kid, "alg": algorithm, "use": "sig"}

    def pem(self) -> bytes:
        """Return the public key as text."""
        return self._private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def private_jwk(self) -> Json:
        """Return the JWK with its private part."""
        return {**self.jwk, "d": encode(self._private_number())}

    def _private_number(self) -> bytes:
        if isinstance(self._private, ed25519.Ed25519PrivateKey):
            return self._private.private_bytes_raw()
        return self._private.private_numbers().private_value.to_bytes(32)

    def sign(self, claims: Json, typ: str, **header: Any) -> str:
        """Sign any claims. Names in `header` replace those of the key."""
        signed = f"{encode({'alg': self.algorithm, 'kid': self.kid, 'typ': typ, **header})}.{encode(claims)}"
        return f"{signed}.{encode(self._signature(signed.encode()))}"

    def _signature(self, signed: bytes) -> bytes:
        if isinstance(self._private, ed25519.Ed25519PrivateKey):
            return self._private.sign(signed)
        r, s = decode_dss_signature(self._private.sign(signed, ec.ECDSA(SHA256())))
        return r.to_bytes(32) + s.to_bytes(32)


@dataclass
class Answer:
    """A response of the service."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    disconnect: bool = False  # in the middle of the body
    endless: bool = False


Fault = Callable[["FakeService", str, Query], Awaitable[Answer]]


class FakeService:
    """One service: its keys, its ended sessions and how old its answers are."""

    def __init__(self) -> None:
        self.key, self.other_key = Key("EdDSA"), Key("ES256")
        self.published = [self.key.jwk, self.other_key.jwk]
        self.ended: list[tuple[str, float]] = []  # session and until when, by place
        self.dropped: list[str] = []
        self.ages = [0.0]  # of the workers that answer in turn
        self.page = 1000
        self.requests: list[tuple[str, Query]] = []
        self.recorded: dict[bool, Answer] = {}  # the latest answers, with and without a nonce
        self.fault: Fault | None = None
        self.clock: Callable[[], float] = time.time

    def token(self, *, key: Key | None = None, header: Json | None = None, **claims: Any) -> str:
        """Issue an access token. A claim that is None is left out."""
        now = int(self.clock())
        usual = {"sub": "alice", "sid": secrets.token_urlsafe(16), "jti": secrets.token_urlsafe(16), "iat": now}
        usual |= {"exp": now + TOKEN_SECONDS, "iss": ISSUER, "aud": AUDIENCE, "scopes": ["user"]}
        chosen = {name: claim for name, claim in {**usual, **claims}.items() if claim is not None}
        return (key or self.key).sign(chosen, **{"typ": "at+jwt", **(header or {})})

    def end(self, session_id: str) -> None:
        """End a session."""
        self.ended.append((session_id, self.clock() + TOKEN_SECONDS))

    def claims(self, query: Query) -> Json:
        """Return the claims of the feed's answer."""
        place = int(query.get("after", 0))
        page = self.ended[place : place + self.page]
        self.ages.append(self.ages.pop(0))
        claims: Json = {
            "iss": ISSUER,
            "iat": self.clock(),
            "after": query.get("after"),
            "cursor": str(place + len(page)),
            "complete": place + len(page) >= len(self.ended),
            "sessions": dict(page),
            "dropped_keys": self.dropped,
            "age": self.ages[0],
        }
        return claims | ({"nonce": query["nonce"]} if "nonce" in query else {})

    def signed(self, claims: Json, key: Key | None = None, **header: Any) -> Answer:
        """Return an answer of the feed with these claims."""
        return Answer((key or self.key).sign(claims, **{"typ": "revocations+jwt", **header}).encode())

    async def honest(self, path: str, query: Query) -> Answer:
        """Answer as the service does."""
        if path == JWKS:
            return Answer(json.dumps({"keys": self.published}).encode())
        if path != FEED:
            return Answer(status=404)
        deadline = time.monotonic() + int(query.get("wait", 0))
        known = self.claims(query)
        while "nonce" not in query and time.monotonic() < deadline and not known["sessions"]:
            await asyncio.sleep(0.02)
            known = self.claims(query)
        answer = self.signed(known)
        self.recorded["nonce" in query] = answer
        return answer

    async def answer(self, path: str, query: Query) -> Answer:
        """Answer a request, with a fault if one is set."""
        self.requests.append((path, query))
        return await (self.fault(self, path, query) if self.fault else self.honest(path, query))


class FakeServer:
    """Any number of services at one port, each below a path of its own."""

    def __init__(self) -> None:
        self.services: dict[str, FakeService] = {}
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever)

    def add(self, name: str) -> FakeService:
        """Add a service."""
        return self.services.setdefault(name, FakeService())

    def url(self, name: str) -> str:
        """Return the URL of a service."""
        return f"http://127.0.0.1:{self.port}/{name}"

    def __enter__(self) -> "FakeServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            target = urlsplit(head.split()[1].decode())
            _, name, *rest = target.path.split("/")
            answer = await self.services[name].answer("/" + "/".join(rest), dict(parse_qsl(target.query)))
            await self._respond(writer, answer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the verifier or the test has ended
        finally:
            writer.close()

    async def _respond(self, writer: asyncio.StreamWriter, answer: Answer) -> None:
        length = len(answer.body) + answer.disconnect
        lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        lines += [] if answer.endless else [f"Content-Length: {length}"]
        writer.write("\r\n".join([*lines, "", ""]).encode() + answer.body)
        await writer.drain()
        while answer.endless:
            writer.write(b"." * 1000)
            await writer.drain()
            await asyncio.sleep(0.01)
