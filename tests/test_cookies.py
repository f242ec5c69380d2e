"""The cookie mode: tokens in cookies that no script can read, and the cross-site rule (CSRF)."""

import secrets
from collections.abc import Iterator, Mapping
from http.cookies import SimpleCookie
from typing import Any

import httpx
import pyotp
import pytest

from app.http.cookies import ACCESS, REFRESH
from app.http.cross_site import is_allowed
from config import Config
from tests.conftest import PASSWORD, Actor, Document, Service, drop_database
from tests.published import with_keys

URL = "https://demo.example"
ORIGIN, OTHER_SITE, SIBLING = "https://app.demo.example", "https://evil.example", "https://blog.demo.example"
SAME = {"Sec-Fetch-Site": "same-origin"}
NEW_PASSWORD = "a quite different sentence"


@pytest.fixture(scope="module")
def browsing(config: Config) -> Iterator[Service]:
    """Run a service with the cookie mode, which scripts of one other origin may use, too."""
    with Service(with_keys(config, "cookies", JWT_ALGORITHM="HS256", CORS_ORIGINS=[ORIGIN])) as service:
        yield service
    drop_database(service.config.MONGO_URI)


class Browser:
    """A browser with a cookie jar; its requests are those of a page of the service unless they say otherwise."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.jar: dict[str, str] = {}
        self.username = f"user-{secrets.token_hex(6)}"

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] = SAME,
        cookies: Mapping[str, str] | None = None,
        **options: Any,
    ) -> httpx.Response:
        """Send a request with the cookies of the jar, and keep those of the response."""
        sent = self.jar if cookies is None else cookies
        line = {"Cookie": "; ".join(f"{name}={value}" for name, value in sent.items())} if sent else {}
        options |= {"json": body} if body is not None else {}
        response = self.service(method, path, headers={**headers, **line}, **options)
        for header in response.headers.get_list("set-cookie"):
            for name, morsel in SimpleCookie(header).items():
                assert (morsel["path"], morsel["samesite"]) == ("/", "Strict")
                assert morsel["secure"]
                assert morsel["httponly"]
                assert not morsel["domain"]
                if morsel["max-age"] == "0":
                    self.jar.pop(name, None)
                else:
                    self.jar[name] = morsel.value
        return response

    def register(self) -> "Browser":
        """Register in cookie mode."""
        body = {"username": self.username, "password": PASSWORD, "mode": "cookie"}
        response = self.send("POST", "/users/registration", body)
        assert response.status_code == 201, response.text
        return self

    def log_in(self, **options: Any) -> httpx.Response:
        """Log in in cookie mode."""
        body = {"username": self.username, "password": PASSWORD, "mode": "cookie"}
        return self.send("POST", "/auth", body, **options)

    @property
    def secret_status(self) -> int:
        """The status of a protected route."""
        return self.send("GET", "/tests/secret").status_code


@pytest.fixture
def browser(browsing: Service) -> Browser:
    """Return the browser of a registered user."""
    return Browser(browsing).register()


def refused(response: httpx.Response, status: int, code: str) -> bool:
    """Return whether a response is this refusal, which sets no cookie."""
    return (response.status_code, response.json()["code"]) == (status, code) and "set-cookie" not in response.headers


# Tokens are in cookies only


def test_a_registration_and_a_login_set_cookies_and_show_no_token(browsing: Service) -> None:
    browser = Browser(browsing)
    body = {"username": browser.username, "password": PASSWORD, "mode": "cookie"}
    registered = browser.send("POST", "/users/registration", body)
    assert registered.status_code == 201
    assert set(registered.json()) == {"expires_in", "user"}
    assert set(browser.jar) == {ACCESS, REFRESH} == {"__Host-access", "__Host-refresh"}
    logged_in = browser.log_in()
    assert logged_in.status_code == 200
    assert set(logged_in.json()) == {"expires_in"}
    assert browser.secret_status == 200
    assert browser.send("GET", "/auth/me").json()["username"] == browser.username


def test_without_the_mode_a_login_sets_no_cookie(browser: Browser) -> None:
    response = browser.send("POST", "/auth", {"username": browser.username, "password": PASSWORD}, cookies={})
    assert "access_token" in response.json()
    assert "set-cookie" not in response.headers


def test_a_login_always_opens_another_session_whatever_cookies_come_with_it(browser: Browser) -> None:
    """Session fixation."""
    before = dict(browser.jar)
    assert browser.log_in().status_code == 200
    assert browser.jar[REFRESH].partition(".")[0] != before[REFRESH].partition(".")[0]


def test_a_refresh_exchanges_the_cookies(browser: Browser) -> None:
    before = dict(browser.jar)
    response = browser.send("POST", "/auth/refresh")
    assert response.status_code == 200
    assert set(response.json()) == {"expires_in"}
    assert browser.jar[ACCESS] != before[ACCESS]
    assert browser.jar[REFRESH] != before[REFRESH]
    assert browser.secret_status == 200


def test_tabs_that_refresh_at_once_get_the_same_successor(browser: Browser) -> None:
    line = "; ".join(f"{name}={value}" for name, value in browser.jar.items())
    send, headers = browser.service.send, {**SAME, "Cookie": line}
    responses = browser.service.together(*(send("POST", "/auth/refresh", headers=headers) for _ in range(5)))
    assert [one.status_code for one in responses] == [200] * 5
    successors = {SimpleCookie(one.headers.get_list("set-cookie")[1])[REFRESH].value for one in responses}
    assert len(successors) == 1


def test_a_refused_refresh_leaves_the_cookies_as_they_are(browser: Browser) -> None:
    """Another tab may have set newer ones meanwhile, or the user may have logged in again."""
    wrong = {**browser.jar, REFRESH: browser.jar[REFRESH][:-4] + "AAAA"}
    assert refused(browser.send("POST", "/auth/refresh", cookies=wrong), 401, "refresh_token_invalid")
    assert browser.secret_status == 200


@pytest.mark.parametrize("with_access", [True, False])
def test_a_logout_ends_the_session_and_expires_both_cookies(browser: Browser, *, with_access: bool) -> None:
    """Also if the access token has expired, and the browser has forgotten it."""
    before = dict(browser.jar)
    cookies = before if with_access else {REFRESH: before[REFRESH]}
    response = browser.send("POST", "/auth/logout", cookies=cookies)
    assert response.status_code == 204
    assert browser.jar == {}
    assert len(response.headers.get_list("set-cookie")) == 2
    assert refused(browser.send("GET", "/tests/secret", cookies=before), 401, "session_ended")
    assert refused(browser.send("POST", "/auth/refresh", cookies=before), 401, "session_ended")


def test_a_logout_with_a_refresh_cookie_that_is_no_token_ends_the_session_of_the_access_cookie(
    browser: Browser,
) -> None:
    token = browser.jar[ACCESS]
    browser.jar[REFRESH] = "forged"
    assert browser.send("POST", "/auth/logout").status_code == 204
    assert not browser.jar
    assert browser.service("GET", "/tests/secret", token=token).status_code == 401


def test_who_ends_the_own_session_has_no_cookies_left(browser: Browser) -> None:
    [session] = browser.send("GET", "/auth/sessions").json()["sessions"]
    assert browser.send("DELETE", f"/auth/sessions/{session['id']}").status_code == 204
    assert not browser.jar


def test_the_cookies_of_an_ended_session_do_not_stop_a_login_by_passkey(browser: Browser) -> None:
    kept = dict(browser.jar)
    assert browser.send("POST", "/auth/logout").status_code == 204
    assert browser.send("POST", "/auth/passkey/options", cookies=kept).status_code == 200


def test_a_header_of_a_proxy_does_not_switch_the_cookies_off(browser: Browser) -> None:
    """A Basic scheme in front of a staging site."""
    headers = SAME | {"Authorization": "Basic c3RhZ2luZzpzdGFnaW5n"}
    assert browser.send("GET", "/tests/secret", headers=headers).status_code == 200
    assert browser.send("POST", "/auth/refresh", headers=headers).status_code == 200


def test_a_logout_with_the_access_cookie_alone_ends_the_session(browser: Browser) -> None:
    before = dict(browser.jar)
    assert browser.send("POST", "/auth/logout", cookies={ACCESS: before[ACCESS]}).status_code == 204
    assert refused(browser.send("GET", "/tests/secret", cookies=before), 401, "session_ended")


@pytest.mark.parametrize("path", ["/auth/logout-all", "/users/me/delete"])
def test_who_ends_all_sessions_has_no_cookies_left(browser: Browser, path: str) -> None:
    body = {"current_password": PASSWORD} if "delete" in path else None
    assert browser.send("POST", path, body).status_code == 204
    assert browser.jar == {}


def test_a_password_change_and_a_step_up_answer_as_they_are_asked(browser: Browser) -> None:
    """A script of the page never sees a token of a session that is in cookies."""
    before = dict(browser.jar)
    stepped_up = browser.send("POST", "/auth/step-up", {"current_password": PASSWORD})
    assert set(stepped_up.json()) == {"expires_in"}
    changed = browser.send("POST", "/users/me/password", {"current_password": PASSWORD, "new_password": NEW_PASSWORD})
    assert changed.status_code == 200, changed.text
    assert set(changed.json()) == {"expires_in"}
    assert browser.jar != before
    assert browser.secret_status == 200
    assert refused(browser.send("GET", "/tests/secret", cookies=before), 401, "session_ended")


def test_a_login_with_a_second_factor_sets_cookies_at_its_end(browser: Browser) -> None:
    secret = browser.send("POST", "/users/me/totp").json()["secret"]
    confirmed = browser.send("POST", "/users/me/totp/confirmation", {"code": pyotp.TOTP(secret).now()})
    code = confirmed.json()["recovery_codes"][0]
    asked = browser.log_in(cookies={})
    assert refused(asked, 401, "second_factor_required")
    browser.jar.clear()
    answer = {"challenge": asked.json()["challenge"], "code": code, "mode": "cookie"}
    answered = browser.send("POST", "/auth/second-factor", answer)
    assert set(answered.json()) == {"expires_in"}
    assert browser.secret_status == 200


# What wins


def test_a_bearer_token_wins_and_cookies_are_not_read(browser: Browser) -> None:
    other = browser.send("POST", "/auth", {"username": browser.username, "password": PASSWORD}, cookies={}).json()
    wrong = browser.send("GET", "/tests/secret", token="not.a.token")
    assert refused(wrong, 401, "token_invalid")
    assert browser.send("POST", "/auth/logout", token=other["access_token"], headers={}).status_code == 204
    assert browser.secret_status == 200, "the session of the cookies is another one"


@pytest.mark.parametrize("name", [ACCESS, REFRESH])
def test_two_cookies_of_one_name_are_refused(browser: Browser, name: str) -> None:
    """Cookie tossing: one of them may be an attacker's."""
    line = f"{name}={browser.jar[name]}; {name}=other"
    method, path = ("GET", "/tests/secret") if name == ACCESS else ("POST", "/auth/refresh")
    response = browser.send(method, path, headers={**SAME, "Cookie": line}, cookies={})
    assert refused(response, 401, "token_invalid")


@pytest.mark.parametrize("name", ["__host-access", "access", "__Secure-access", "__Host-Access"])
def test_cookies_of_other_names_are_not_read(browser: Browser, name: str) -> None:
    response = browser.send("GET", "/tests/secret", cookies={name: browser.jar[ACCESS]})
    assert refused(response, 401, "token_missing")


def test_oauth_reads_and_sets_no_cookie(browser: Browser) -> None:
    form = {"grant_type": "password", "username": browser.username, "password": PASSWORD}
    response = browser.send("POST", "/oauth/token", data=form)
    assert "access_token" in response.json()
    assert "set-cookie" not in response.headers
    missing = browser.send("POST", "/oauth/token", data={"grant_type": "refresh_token"})
    assert (missing.status_code, missing.json()["error"]) == (400, "invalid_request")


# The cross-site rule


RULE: dict[str, tuple[list[str], list[str], bool]] = {
    "a page of the service": (["same-origin"], [], True),
    "a page of the service, with its origin": (["same-origin"], [URL], True),
    "a person who types the address": (["none"], [], True),
    "a script of an allowed origin": (["same-site"], [ORIGIN], True),
    "an allowed origin of another site": (["cross-site"], [ORIGIN], True),
    "an old browser at the service": ([], [URL], True),
    "an old browser at an allowed origin": ([], [ORIGIN], True),
    "another site": (["cross-site"], [OTHER_SITE], False),
    "another site without an origin": (["cross-site"], [], False),
    "a sibling": (["same-site"], [SIBLING], False),
    "a sibling without an origin": (["same-site"], [], False),
    "the http page of the same host": (["cross-site"], ["http://demo.example"], False),
    "another port": (["same-site"], ["https://demo.example:8443"], False),
    "a sandboxed frame": (["cross-site"], ["null"], False),
    "an old browser at another site": ([], [OTHER_SITE], False),
    "an old browser in a sandboxed frame": ([], ["null"], False),
    "neither header": ([], [], False),
    "every origin": ([], ["*"], False),
    "two values of Sec-Fetch-Site": (["same-origin", "cross-site"], [], False),
    "two origins": ([], [URL, OTHER_SITE], False),
    "two origins in one line": ([], [f"{URL}, {OTHER_SITE}"], False),
    "an origin with a path": ([], [f"{URL}/"], False),
    "an origin in another case": ([], [URL.upper()], False),
    "two values in one line": (["same-origin, cross-site"], [], False),
    "two values in one line and an allowed origin": (["cross-site, same-origin"], [ORIGIN], False),
}


@pytest.mark.parametrize("case", RULE)
def test_the_cross_site_rule(case: str) -> None:
    fetch_site, origins, allowed = RULE[case]
    assert is_allowed(fetch_site, origins, {URL, ORIGIN}) is allowed


UNSAFE: dict[str, tuple[str, str, Document | None]] = {
    "logout": ("POST", "/auth/logout", None),
    "logout-all": ("POST", "/auth/logout-all", None),
    "refresh": ("POST", "/auth/refresh", None),
    "step-up": ("POST", "/auth/step-up", {"current_password": PASSWORD}),
    "password": ("POST", "/users/me/password", {"current_password": PASSWORD, "new_password": NEW_PASSWORD}),
    "deletion": ("POST", "/users/me/delete", {"current_password": PASSWORD}),
    "enrolment": ("POST", "/users/me/totp", None),
    "end of a session": ("DELETE", f"/auth/sessions/{'0' * 22}", None),
}
ATTACKS = {name: case for name, case in RULE.items() if not case[2] and len(case[0]) < 2 and len(case[1]) < 2}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("route", UNSAFE)
def test_another_site_changes_nothing_with_our_cookies(browser: Browser, route: str, attack: str) -> None:
    """CSRF, logout CSRF."""
    method, path, body = UNSAFE[route]
    fetch_site, origins, _ = ATTACKS[attack]
    headers = dict([("Sec-Fetch-Site", one) for one in fetch_site] + [("Origin", one) for one in origins])
    assert refused(browser.send(method, path, body, headers=headers), 403, "cross_site_request")
    assert browser.secret_status == 200


@pytest.mark.parametrize("path", ["/auth", "/users/registration"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_another_site_cannot_log_a_browser_in(browsing: Service, browser: Browser, path: str, attack: str) -> None:
    """Login CSRF: the victim would use the attacker's account."""
    fetch_site, origins, _ = ATTACKS[attack]
    headers = dict([("Sec-Fetch-Site", one) for one in fetch_site] + [("Origin", one) for one in origins])
    name = browser.username if path == "/auth" else f"user-{secrets.token_hex(6)}"
    body = {"username": name, "password": PASSWORD, "mode": "cookie"}
    assert refused(Browser(browsing).send("POST", path, body, headers=headers), 403, "cross_site_request")


@pytest.mark.parametrize("origin", [OTHER_SITE, "null"])
def test_forms_of_other_sites_get_no_tokens_and_revoke_none(browser: Browser, origin: str) -> None:
    """A form needs no preflight. Clients that are no browsers send neither header, and pass."""
    form = {"grant_type": "password", "username": browser.username, "password": PASSWORD}
    for path, data in (("/oauth/token", form), ("/oauth/revoke", {"token": browser.jar[REFRESH]})):
        assert refused(browser.send("POST", path, headers={"Origin": origin}, data=data), 403, "cross_site_request")
    assert browser.send("POST", "/oauth/token", headers={}, cookies={}, data=form).status_code == 200
    assert browser.secret_status == 200


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_forms_are_no_json(browser: Browser, content_type: str) -> None:
    """A form that spells JSON, also with a method override."""
    content = f'{{"current_password":"{PASSWORD}","_method":"DELETE"}}'
    response = browser.send(
        "POST", "/users/me/delete?_method=DELETE", headers={**SAME, "Content-Type": content_type}, content=content
    )
    assert response.status_code == 415
    assert browser.secret_status == 200


def test_reads_need_no_cross_site_check(browser: Browser) -> None:
    """They change nothing, and CORS keeps scripts of other origins from reading the response."""
    response = browser.send("GET", "/auth/me", headers={"Sec-Fetch-Site": "cross-site", "Origin": OTHER_SITE})
    assert response.status_code == 200
    assert "access-control-allow-origin" not in response.headers


# CORS and settings


def test_scripts_of_allowed_origins_may_use_cookies(browser: Browser) -> None:
    headers = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-site"}
    response = browser.send("POST", "/auth/refresh", headers=headers)
    assert response.status_code == 200
    assert response.headers["access-control-allow-credentials"] == "true"
    assert response.headers["access-control-allow-origin"] == ORIGIN
    preflight = browser.send(
        "OPTIONS", "/auth/refresh", headers={**headers, "Access-Control-Request-Method": "POST"}, cookies={}
    )
    assert preflight.headers["access-control-allow-credentials"] == "true"


def test_without_a_public_url_the_mode_is_off(service: Service, alice: Actor) -> None:
    body = {"username": alice.username, "password": PASSWORD, "mode": "cookie"}
    response = service("POST", "/auth", json=body, headers=SAME)
    assert refused(response, 503, "not_enabled")
    cookies = {"Cookie": f"{ACCESS}={alice.tokens['access_token']}"}
    assert refused(service("GET", "/tests/secret", headers=cookies), 401, "token_missing")


def test_the_mode_can_be_switched_off(config: Config) -> None:
    with Service(with_keys(config, "cookies", JWT_ALGORITHM="HS256", COOKIE_MODE=False)) as service:
        body = {"username": "nobody", "password": PASSWORD, "mode": "cookie"}
        assert refused(service("POST", "/auth", json=body, headers=SAME), 503, "not_enabled")


def test_where_every_origin_is_allowed_there_are_no_cookies(config: Config) -> None:
    """Such a start is refused in production (test_config.py)."""
    assert config.model_copy(update={"PUBLIC_URL": URL}).cookies_enabled
    assert not config.model_copy(update={"PUBLIC_URL": URL, "CORS_ORIGINS": ["*"]}).cookies_enabled


@pytest.mark.parametrize("mode", ["Cookie", "header", "", None, 1])
def test_another_mode_is_refused(browser: Browser, mode: object) -> None:
    body = {"username": browser.username, "password": PASSWORD, "mode": mode}
    response = browser.send("POST", "/auth", body)
    assert refused(response, 422, "invalid_fields")
