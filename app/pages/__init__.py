"""Pages for people: plain HTML, CSS and JavaScript of this service, which use nothing but its public API.

They are at `/account`, in cookie mode, and are written to be read: people who build a front end can begin with them. A
link in a mail has its token in the fragment, which reaches no server, proxy, log or Referer. Opening a page changes
nothing, because scanners open the links of mails: the token is sent on a click.
"""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from sanic import Blueprint, HTTPResponse, Request, Sanic, redirect

from app.http.static import PAGE_HEADERS, Content

HERE = Path(__file__).parent
PREFIX = "/account"
OF_MAILS, OF_SESSIONS = ("reset", "undo", "forgotten"), ("index", "login", "register")
TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
NO_MARKUP = "; require-trusted-types-for 'script'; trusted-types 'none'"  # in scripts: it cannot be injected (XSS)
HEADERS = PAGE_HEADERS | {"content-security-policy": PAGE_HEADERS["content-security-policy"] + NO_MARKUP}


def pages(*, mail: bool, cookies: bool) -> tuple[str, ...]:
    """Return the names of the pages that the settings allow."""
    return (OF_MAILS if mail else ()) + (OF_SESSIONS if cookies else ())


def serve(app: Sanic[Any, Any], *, mail: bool, cookies: bool, passkeys: bool) -> None:
    """Serve the pages and their files, without what the settings do not allow."""
    missing = " ".join(name for name, on in {"no-mail": mail, "no-passkeys": passkeys}.items() if not on)
    blueprint = Blueprint("pages", url_prefix=PREFIX)
    for path in sorted(HERE.iterdir()):
        if path.suffix in TYPES:
            content = Content(path.read_bytes(), TYPES[path.suffix])
            blueprint.add_route(content, f"/{path.name}", name=path.name.replace(".", "_"))
    for page in pages(mail=mail, cookies=cookies):
        html = (HERE / f"{page}.html").read_text().replace("{product}", app.name).replace("{missing}", missing)
        content = Content(html.encode(), "text/html; charset=utf-8", **HEADERS)
        if page == "index":
            blueprint.add_route(_with_slash(content), "/", name=page)
        else:
            blueprint.add_route(content, f"/{page}", name=page)
    app.blueprint(blueprint)


def _with_slash(content: Content) -> Callable[[Request[Any, Any]], Coroutine[Any, Any, HTTPResponse]]:
    """Serve a page at an address that ends with a slash, to which its links are relative, also behind a prefix."""

    async def respond(request: Request[Any, Any]) -> HTTPResponse:
        return await content(request) if request.path.endswith("/") else redirect("account/", status=308)

    return respond
