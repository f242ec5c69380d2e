"""Static responses, and pages that load nothing but them."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

from sanic import HTTPResponse, Request

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",  # a style sheet may contain its pictures
    "connect-src": "'self'",
    "frame-ancestors": "'none'",
    "base-uri": "'none'",
    "form-action": "'none'",
}
PAGE_HEADERS = {
    "content-security-policy": "; ".join(f"{name} {value}" for name, value in POLICY.items()),
    "referrer-policy": "no-referrer",
}
IMMUTABLE = "public, max-age=31536000, immutable"  # for paths that contain the digest of the content
REVALIDATE = "no-cache"
DIGEST_LENGTH = 16


class Content:
    """A static response with an ETag: bytes, or a file that is read once, when it is first asked for."""

    def __init__(self, body: bytes | Path, content_type: str, *, caching: str = REVALIDATE, **headers: str) -> None:
        self._body = body
        self._content_type = content_type
        content = body if isinstance(body, bytes) else body.read_bytes()
        self.digest = hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH]
        self._tag = f'"{self.digest}"'
        self._reading = asyncio.Lock()  # many first requests at once would read the file as many times
        self._headers = {"cache-control": caching, "etag": self._tag, **headers}

    async def __call__(self, request: Request[Any, Any]) -> HTTPResponse:
        """Respond with the content, or with 304 if the client has it (RFC 9110 section 13.1.2)."""
        if self._tag in request.headers.getone("if-none-match", ""):
            return HTTPResponse(None, 304, self._headers)
        if isinstance(self._body, Path):
            async with self._reading:
                if isinstance(self._body, Path):
                    self._body = await asyncio.to_thread(self._body.read_bytes)
        return HTTPResponse(self._body, 200, self._headers, self._content_type)
