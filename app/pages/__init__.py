"""Pages for people: plain HTML, CSS and JavaScript of this service, which use nothing but its public API.

They are at `/account`. A link in a mail has its token in the fragment, which reaches no server, proxy, log or Referer.
Opening a page changes nothing, because scanners open the links of mails: the token is sent on a click.
"""

from pathlib import Path
from typing import Any

from sanic import Blueprint, Sanic

from app.http.static import PAGE_HEADERS, Content

HERE = Path(__file__).parent
PREFIX = "/account"
PAGES = ("reset", "undo")
FILES = {
    "account.css": "text/css; charset=utf-8",
    "account.js": "text/javascript; charset=utf-8",
    "reset.js": "text/javascript; charset=utf-8",
    "undo.js": "text/javascript; charset=utf-8",
}


def serve(app: Sanic[Any, Any]) -> None:
    """Serve the pages and their files."""
    blueprint = Blueprint("pages", url_prefix=PREFIX)
    for name, content_type in FILES.items():
        content = Content((HERE / name).read_bytes(), content_type)
        blueprint.add_route(content, f"/{name}", name=name.replace(".", "_"))
    for page in PAGES:
        html = (HERE / f"{page}.html").read_text().replace("{product}", app.name)
        blueprint.add_route(Content(html.encode(), "text/html; charset=utf-8", **PAGE_HEADERS), f"/{page}", name=page)
    app.blueprint(blueprint)
