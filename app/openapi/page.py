"""The documentation page: Swagger UI from files of this service, so that no other host learns of readers.

All its addresses are relative, so that it also works behind a proxy that strips a prefix of the path.
"""

import asyncio
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from sanic import Blueprint, HTTPResponse, Request, Sanic

from app.http.static import IMMUTABLE, PAGE_HEADERS, Content

HERE = Path(__file__).parent
SWAGGER_UI = HERE / "swagger_ui"  # npm's files, renewed by tools/swagger_ui.py
PREFIX = "/docs"
# All files that are served besides the page and the description; no name that a client sends is looked up.
FILES = {
    SWAGGER_UI / "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    SWAGGER_UI / "swagger-ui.css": "text/css; charset=utf-8",
    SWAGGER_UI / "favicon-32x32.png": "image/png",
    HERE / "start.js": "text/javascript; charset=utf-8",
    HERE / "page.css": "text/css; charset=utf-8",
}
PAGES = {"": "page.html", "/errors": "errors.html"}  # tools/errors_page.py writes the second one


def serve(app: Sanic[Any, Any], document: Callable[[Sanic[Any, Any]], dict[str, Any]]) -> None:
    """Serve the page, its files, the page of errors and the description.

    The description is made once, when it is first asked for. `/` redirects to the page.
    """
    blueprint = Blueprint("docs", url_prefix=PREFIX)
    pages = {path: (HERE / name).read_text().replace("{title}", app.name) for path, name in PAGES.items()}
    for path, content_type in FILES.items():
        content = Content(path, content_type, caching=IMMUTABLE)
        versioned = f"/{content.digest}/{path.name}"
        for page, html in pages.items():
            pages[page] = html.replace(f'"{PREFIX}/{path.name}"', f'"{PREFIX}{versioned}"')
        blueprint.add_route(content, versioned, name=path.name.replace("-", "_").replace(".", "_"))
    for page, html in pages.items():
        for address in (page, f"{page}/"):
            content = Content(_relative(html, address).encode(), "text/html; charset=utf-8", **PAGE_HEADERS)
            blueprint.add_route(content, address, name=f"page{address.replace('/', '_')}", strict_slashes=True)

    def description() -> Content:
        return Content(json.dumps(document(app), ensure_ascii=False).encode(), "application/json")

    @cache
    def described() -> asyncio.Task[Content]:
        return asyncio.create_task(asyncio.to_thread(description))

    @blueprint.get("/openapi.json", name="description")
    async def describe(request: Request[Any, Any]) -> HTTPResponse:
        content = await asyncio.shield(described())
        return await content(request)

    @app.get("/", name="root")
    async def redirect(_: Request[Any, Any]) -> HTTPResponse:
        return HTTPResponse(None, 302, {"location": PREFIX.removeprefix("/")})  # relative, for proxies with a prefix

    app.blueprint(blueprint)


def _relative(html: str, address: str) -> str:
    """Make the addresses in a page relative to its own, which may end with a slash (RFC 3986 section 5.2)."""
    return html.replace(f'"{PREFIX}/', f'"{"../" * address.count("/")}{PREFIX.removeprefix("/")}/')
