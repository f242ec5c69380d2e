"""Attacks on the cookie mode by real pages of other origins in Chromium: CSRF, login CSRF, cookie tossing, framing.

A victim is logged in at http://api.demo.localhost, and the attacker's page is open in another tab. `app` is the one
origin that CORS_ORIGINS allows; `blog` is on the same site, so the browser sends the cookies along.
"""

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Frame, Page

from app.http.cookies import ACCESS, REFRESH
from tests.browser.sites import one_worker, static_site
from tests.conftest import PASSWORD, Document
from tests.processes import TIMEOUT_SECONDS, Command, until
from tests.serving import new_name
from tools.local_mongo import free_port

ATTACKER = "mallory"
WITHOUT_HTTPS = "http://attacker.example"  # browsers trust it less than localhost
# Where the attacker's page is, and whether the browser sends the victim's cookies in its requests.
ATTACKERS = {
    "sibling": ("http://blog.demo.localhost:{site}", True),
    "other port": ("http://api.demo.localhost:{site}", True),
    "other site": ("http://evil.localhost:{site}", False),
    "sandboxed frame": ("http://evil.localhost:{site}", False),
    "site without https": (WITHOUT_HTTPS, False),
}
ALLOWED = "http://app.demo.localhost:{site}"

FORM = """([url, enctype, fields]) => {
    const form = Object.assign(document.createElement("form"), { method: "post", action: url, enctype });
    for (const [name, value] of Object.entries(fields))
        form.append(Object.assign(document.createElement("input"), { type: "hidden", name, value }));
    document.body.append(form);
    form.submit();
}"""
FETCH = """([url, options]) =>
    fetch(url, { credentials: "include", ...options }).then((response) => response.status, () => "blocked")"""
BEACON = "([url]) => navigator.sendBeacon(url)"
IMAGES = """(urls) => Promise.all(urls.map((url) => new Promise((resolve) => {
    Object.assign(new Image(), { src: url, onload: resolve, onerror: resolve });
})))"""
SANDBOXED_FRAME = """() => new Promise((resolve) => {
    const frame = Object.assign(document.createElement("iframe"), { srcdoc: "<p>", onload: resolve });
    frame.sandbox = "allow-forms allow-scripts";
    document.body.append(frame);
})"""
OWN_CALL = """async ([path, body]) => {
    const headers = { "Content-Type": "application/json" };
    const response = await fetch(path, body ? { method: "POST", headers, body: JSON.stringify(body) } : {});
    return { status: response.status, ...(await response.json()) };
}"""

URLENCODED, TEXT, MULTIPART = "application/x-www-form-urlencoded", "text/plain", "multipart/form-data"
DELETION = json.dumps({"current_password": PASSWORD})  # the attacker even knows the password
LOGIN = json.dumps({"username": ATTACKER, "password": PASSWORD, "mode": "cookie"})
JSON_TYPE = {"Content-Type": "application/json"}


@dataclass(frozen=True, kw_only=True)
class Attack:
    """A request that a page causes, and the status of the response: a number, or None if the browser sends nothing."""

    script: str
    path: str
    arguments: tuple[Any, ...] = ()
    method: str = "POST"
    own: int  # from a page of the service, where it works, or the attack would be none
    with_cookies: int | None = 403
    without_cookies: int | None = 401

    def expected(self, *, cookies: bool) -> list[int]:
        """Return the statuses of the responses to an attacker."""
        status = self.with_cookies if cookies else self.without_cookies
        return [] if status is None else [status]


def as_text(document: str) -> Document:
    """Return the field of a form that is JSON when it is sent as text/plain."""
    return {document[:-1] + ', "rest": "': '"}'}


def form(path: str, enctype: str, fields: Document, **statuses: Any) -> Attack:
    """Return the submission of a form."""
    return Attack(script=FORM, path=path, arguments=(enctype, fields), **statuses)


def request(path: str, options: Document, **statuses: Any) -> Attack:
    """Return a request of a script."""
    return Attack(script=FETCH, path=path, arguments=(options,), method=options["method"], **statuses)


POST, NO_CORS = {"method": "POST"}, {"method": "POST", "mode": "no-cors"}
BLOCKED: Document = {"with_cookies": None, "without_cookies": None}  # by the preflight
FORMS = {
    "logout CSRF by a form": form("/auth/logout", URLENCODED, {}, own=204),
    "logout CSRF by a form, everywhere": form("/auth/logout-all", MULTIPART, {}, own=204),
    "refresh by a form": form("/auth/refresh", URLENCODED, {}, own=200, without_cookies=415),
    "deletion by a text form that spells JSON": form("/users/me/delete", TEXT, as_text(DELETION), own=415),
    "deletion by a multipart form": form("/users/me/delete", MULTIPART, json.loads(DELETION), own=415),
    "method override": form(
        "/auth/sessions/{session}?_method=DELETE",
        URLENCODED,
        {"_method": "DELETE"},
        own=405,
        with_cookies=405,
        without_cookies=405,
    ),
    "login CSRF by a text form that spells JSON": form(
        "/auth", TEXT, as_text(LOGIN), own=415, with_cookies=415, without_cookies=415
    ),
    "login CSRF by an OAuth form": form(
        "/oauth/token",
        URLENCODED,
        {"grant_type": "password", "username": ATTACKER, "password": PASSWORD},
        own=200,
        without_cookies=403,
    ),
}
SCRIPTS = {
    "logout CSRF by a beacon": Attack(script=BEACON, path="/auth/logout", own=204),
    "logout CSRF without CORS": request("/auth/logout", NO_CORS, own=204),
    "logout CSRF with CORS": request("/auth/logout", POST, own=204),
    "refresh without CORS": request("/auth/refresh", NO_CORS, own=200, without_cookies=415),
    "deletion without CORS": request("/users/me/delete", {**NO_CORS, "body": DELETION}, own=415),
    "deletion with CORS": request(
        "/users/me/delete", {**POST, "headers": JSON_TYPE, "body": DELETION}, own=204, **BLOCKED
    ),
    "end of a session with CORS": request("/auth/sessions/{session}", {"method": "DELETE"}, own=204, **BLOCKED),
    "login CSRF without CORS": request(
        "/auth", {**NO_CORS, "body": LOGIN}, own=415, with_cookies=415, without_cookies=415
    ),
    "login CSRF with CORS": request("/auth", {**POST, "headers": JSON_TYPE, "body": LOGIN}, own=200, **BLOCKED),
}
ATTACKS = FORMS | SCRIPTS
# Chromium lets no script of a page without https reach this machine (Local Network Access).
ROWS = [(site, name) for site in ATTACKERS for name in (FORMS if site == "site without https" else ATTACKS)]


@dataclass
class Target:
    """The service, its log, and the port of the sites of others."""

    url: str
    command: Command
    site: int
    read: int = 0

    def forget(self) -> None:
        """Skip what has been logged so far."""
        self.read = len(self.command.output)

    def statuses(self, method: str, path: str) -> list[int]:
        """Return the statuses of the responses to such requests."""
        lines = [json.loads(line) for line in self.command.output[self.read :].splitlines() if '"path"' in line]
        return [line["status"] for line in lines if (line["method"], line["path"]) == (method, path.partition("?")[0])]


@pytest.fixture(scope="module")
def target(mongo_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Run the service and the sites of others, and register the attacker."""
    folder, port = tmp_path_factory.mktemp("site"), free_port()
    (folder / "index.html").write_text("<!doctype html><title>A page</title><body></body>")
    url = f"http://api.demo.localhost:{port}"
    with static_site(folder) as site:
        settings = {
            "APP_PUBLIC_URL": url,
            "APP_CORS_ORIGINS": ALLOWED.format(site=site),
            "APP_ENCRYPTION_KEY": secrets.token_urlsafe(48),
            "APP_ACCESS_LOG": "true",
            "APP_LOG_FORMAT": "json",
        }
        with one_worker(f"{mongo_uri}_cross", port=port, variables=settings) as (command, _):
            body = {"username": ATTACKER, "password": PASSWORD}
            registration = f"http://127.0.0.1:{port}/users/registration"
            assert httpx.post(registration, json=body, trust_env=False).status_code == 201
            yield Target(url, command, site)


class Victim:
    """A user who is logged in, and who opens pages of others in another tab."""

    def __init__(self, context: BrowserContext, target: Target) -> None:
        self.context = context
        self.target = target
        self.page = context.new_page()
        self.page.goto(f"{target.url}/tests/hello")
        body = {"username": new_name(), "password": PASSWORD, "mode": "cookie"}
        assert self.call("/users/registration", body)["status"] == 201
        self.session: str = self.call("/auth/sessions")["sessions"][0]["id"]

    @property
    def cookies(self) -> set[tuple[str, str]]:
        """The cookies that the browser sends to the service."""
        return {(one["name"], one["value"]) for one in self.context.cookies(self.target.url)}

    def call(self, path: str, body: Document | None = None) -> Document:
        """Return what the service responds to the victim's own page."""
        answer: Document = self.page.evaluate(OWN_CALL, [path, body])
        return answer

    def state(self) -> list[Any]:
        """Return everything that an attack could change."""
        paths = ("/auth/me", "/auth/sessions", "/users/me/factors")
        answers = [self.call(path) for path in paths]
        assert [answer["status"] for answer in answers] == [200, 200, 200]
        return [self.cookies, *answers]

    def visit(self, address: str) -> Page:
        """Open a page in another tab."""
        tab = self.context.new_page()
        if address == WITHOUT_HTTPS:  # no other tab, because Playwright answers preflights where it routes requests
            tab.route(f"{address}/", lambda route: route.fulfill(body="<p>", content_type="text/html"))
        tab.goto(address.format(site=self.target.site))
        return tab

    def meet(self, site: str) -> Frame:
        """Open the attacker's page, and return the frame that attacks."""
        tab = self.visit(ATTACKERS[site][0])
        if site == "sandboxed frame":
            tab.evaluate(SANDBOXED_FRAME)
        return tab.frames[-1]

    def suffer(self, attack: Attack, frame: Frame | Page) -> list[int]:
        """Let a page run an attack, and return the statuses of the responses."""
        path = attack.path.replace("{session}", self.session)
        self.target.forget()
        result = frame.evaluate(attack.script, [self.target.url + path, *attack.arguments])
        if result != "blocked" or attack.with_cookies is not None:
            until(lambda: self.target.statuses(attack.method, path), f"a response to {attack}")
        return self.target.statuses(attack.method, path)


@pytest.fixture
def victim(browser: Browser, target: Target) -> Iterator[Victim]:
    """Log a user in."""
    context = browser.new_context()
    context.set_default_timeout(1000 * TIMEOUT_SECONDS)
    yield Victim(context, target)
    context.close()


# Requests of other origins


@pytest.mark.parametrize(("site", "name"), ROWS)
def test_another_origin_changes_nothing(victim: Victim, site: str, name: str) -> None:
    """CSRF, login CSRF, logout CSRF."""
    attack, before = ATTACKS[name], victim.state()
    assert victim.suffer(attack, victim.meet(site)) == attack.expected(cookies=ATTACKERS[site][1])
    assert victim.state() == before


@pytest.mark.parametrize("name", ATTACKS)
def test_the_same_request_of_the_services_own_page_works(victim: Victim, name: str) -> None:
    """It would harm the victim. Forms that spell JSON and method overrides are always refused."""
    attack, before = ATTACKS[name], victim.cookies
    assert victim.suffer(attack, victim.visit(f"{victim.target.url}/tests/hello")) == [attack.own]
    if attack.own == 204:
        assert victim.call("/auth/me")["status"] == 401
    else:
        assert (victim.cookies == before) is (attack.own in (405, 415) or attack.path == "/oauth/token")


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_of_an_allowed_origin_can_do_what_those_of_the_service_can(victim: Victim, name: str) -> None:
    attack = SCRIPTS[name]
    assert victim.suffer(attack, victim.visit(ALLOWED)) == [attack.own]


@pytest.mark.parametrize(("site", "name"), [row for row in ROWS if "login CSRF" in row[1]])
def test_another_origin_logs_no_browser_in(victim: Victim, site: str, name: str) -> None:
    """Login CSRF: the user would work in the attacker's account."""
    victim.context.clear_cookies()
    victim.suffer(ATTACKS[name], victim.meet(site))
    assert victim.cookies == set()


READ = request("/auth/me", {"method": "GET"}, own=200)


@pytest.mark.parametrize(("site", "status"), [("sibling", 200), ("other port", 200), ("other site", 401)])
def test_scripts_of_another_origin_cannot_read(victim: Victim, site: str, status: int) -> None:
    """CORS, also where the browser sends cookies and the service responds."""
    frame = victim.meet(site)
    assert victim.suffer(READ, frame) == [status]
    assert frame.evaluate(FETCH, [f"{victim.target.url}/auth/me", {}]) == "blocked"
    assert victim.visit(ALLOWED).evaluate(FETCH, [f"{victim.target.url}/auth/me", {}]) == 200


# GET


@pytest.mark.parametrize("site", ["sibling", "other site"])
def test_no_get_request_changes_anything(victim: Victim, site: str) -> None:
    """As by `<img src="/auth/logout">`, and by a link."""
    before, url = victim.state(), victim.target.url
    paths = [path for path in victim.call("/docs/openapi.json")["paths"] if "{" not in path]
    victim.target.forget()
    frame = victim.meet(site)
    frame.evaluate(IMAGES, [url + path for path in paths])
    assert victim.target.statuses("GET", "/auth/logout") == [405]
    assert victim.target.statuses("GET", "/auth/me") == [200 if site == "sibling" else 401], "with cookies"
    frame.page.goto(f"{url}/auth/logout")
    assert victim.state() == before


# Cookie tossing

TOSSED = {
    "the name and a domain": (f"{ACCESS}=x; Domain=demo.localhost; Path=/; Secure", 0),
    "the name in lower case and a domain": (f"{ACCESS.lower()}=x; Domain=demo.localhost; Path=/; Secure", 0),
    "the name after an empty one": (f"={ACCESS}=x; Domain=demo.localhost; Path=/; Secure", 0),
    "a path": (f"{ACCESS}=x; Path=/auth; Secure", 0),
    "a similar name": ("__Secure-access=x; Domain=demo.localhost; Path=/; Secure", 1),
    "a name with a space": (f"{ACCESS} =x; Domain=demo.localhost; Path=/; Secure", 0),
    "another name": ("theme=dark; Domain=demo.localhost; Path=/; Secure", 1),
}


@pytest.mark.parametrize("name", TOSSED)
@pytest.mark.parametrize("site", ["sibling", "other port"])
def test_cookies_of_a_sibling_are_not_taken_for_ours(victim: Victim, site: str, name: str) -> None:
    """Two cookies of one name are refused: test_cookies.py. No browser sends them."""
    before = victim.state()
    line, accepted = TOSSED[name]
    victim.meet(site).evaluate("(line) => { document.cookie = line; }", line)
    assert len(victim.cookies - before[0]) == accepted
    assert victim.state()[1:] == before[1:]


def test_another_port_of_the_same_host_cannot_replace_the_cookies_by_a_script(victim: Victim) -> None:
    """Cookies do not know ports (RFC 6265 section 8.5), but scripts cannot replace those that are HttpOnly."""
    before = victim.state()
    frame = victim.meet("other port")
    frame.evaluate("(name) => { document.cookie = `${name}=x; Path=/; Secure`; }", ACCESS)
    assert frame.evaluate("document.cookie") == ""
    assert victim.state() == before


def test_a_sibling_that_fills_the_cookie_jar_at_most_logs_out(victim: Victim) -> None:
    """Cookie jar overflow: the browser evicts the oldest cookies of a site."""
    username = victim.call("/auth/me")["username"]
    frame = victim.meet("sibling")
    frame.evaluate(
        """() => {
            for (let i = 0; i < 400; i++) document.cookie = `c${i}=x; Domain=demo.localhost; Path=/; Secure`;
        }"""
    )
    until(lambda: not {ACCESS, REFRESH} & {name for name, _ in victim.cookies}, "the eviction")
    assert victim.call("/auth/me")["code"] == "token_missing"
    victim.page.goto(f"{victim.target.url}/account/login")
    victim.page.get_by_label("Name or e-mail").fill(username)
    victim.page.get_by_label("Password").fill(PASSWORD)
    victim.page.get_by_role("button", name="Log in", exact=True).click()
    victim.page.get_by_text(f"You are {username}.").wait_for()


# Pages

EMBED = """(url) => new Promise((resolve) => {
    const frame = Object.assign(document.createElement("iframe"), { src: url, onload: resolve });
    document.body.append(frame);
})"""


@pytest.mark.parametrize("path", ["/account/", "/account/login", "/account/register", "/docs", "/docs/errors"])
@pytest.mark.parametrize("site", ["sibling", "other port", "other site"])
def test_a_page_stays_blank_in_a_frame_of_another_origin(victim: Victim, site: str, path: str) -> None:
    """Clickjacking."""
    frame = victim.meet(site)
    frame.evaluate(EMBED, f"{victim.target.url}/tests/hello")
    frame.evaluate(EMBED, victim.target.url + path)
    hello, page = frame.child_frames
    assert "World" in hello.content(), "frames work"
    assert page.url.startswith("chrome-error:")


REDIRECTS = [
    "/account//evil.localhost",
    "//evil.localhost/account",
    "//evil.localhost/account/..",
    "/account/..//evil.localhost",
    "/account/%2F%2Fevil.localhost",
    "/account/%5C%5Cevil.localhost",
    "/account/login?next=http://evil.localhost:{site}/",
    "/account?next=//evil.localhost:{site}/",
    "/account/?url=http://evil.localhost:{site}/#http://evil.localhost:{site}/",
    "/?next=//evil.localhost:{site}/",
]


@pytest.mark.parametrize("path", REDIRECTS)
def test_no_address_leads_to_another_origin(victim: Victim, path: str) -> None:
    """Open redirect."""
    page = victim.context.new_page()
    page.goto(victim.target.url + path.format(site=victim.target.site))
    page.wait_for_load_state("networkidle")
    assert page.url.startswith(f"{victim.target.url}/")


@pytest.mark.parametrize("query", ["next", "url", "redirect", "return_to", "continue"])
def test_a_login_leads_to_the_account_whatever_the_address_says(victim: Victim, query: str) -> None:
    username = victim.call("/auth/me")["username"]
    page = victim.context.new_page()
    elsewhere = f"http://evil.localhost:{victim.target.site}/"
    page.goto(f"{victim.target.url}/account/login?{query}={elsewhere}#{elsewhere}")
    page.get_by_label("Name or e-mail").fill(username)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in", exact=True).click()
    page.get_by_text(f"You are {username}.").wait_for()
    assert page.url == f"{victim.target.url}/account/"
