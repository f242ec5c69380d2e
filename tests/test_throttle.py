"""Throttling limits password guesses, does not lock users out, and reveals nothing to attackers."""

import asyncio
import hashlib
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice

import httpx
import pytest
from pymongo.database import Database

from app.http.client import networks
from app.models.attempts import Window
from app.security.throttle import TRUSTED_SHARE, Limit, TooManyAttempts
from config import Config
from tests.conftest import PASSWORD, Actor, Document, Service
from tests.interleaving import Held, hang_up_at

GUESSES = 30
USUAL_GUESSES = GUESSES // TRUSTED_SHARE  # reserved for the addresses where the user usually logs in
OTHER_GUESSES = GUESSES - USUAL_GUESSES


@pytest.fixture(scope="module")
def proxied(config: Config) -> Iterator[Service]:
    """Run the service behind a proxy, with lower limits than the defaults to save time."""
    limits = {
        "LOGIN_FAILURES_PER_ACCOUNT": f"{GUESSES}/hour",
        "LOGIN_FAILURES_PER_ADDRESS": f"{GUESSES}/15minutes",
        "REGISTRATIONS_PER_ADDRESS": "20/minute",
    }
    with Service(config.model_copy(update={**limits, "PROXIES_COUNT": 1})) as service:
        yield service


@pytest.fixture
def carol(proxied: Service) -> Actor:
    """Register carol at her own address."""
    name, home = f"Carol-{secrets.token_hex(4)}", address()
    registered = send(proxied, "/users/registration", home, {"username": name, "password": PASSWORD})
    assert registered.status_code == 201, registered.text
    carol = Actor(proxied, name, registered.json())
    carol.home = home  # type: ignore[attr-defined]
    return carol


def address() -> str:
    """Return a random address, so that tests do not share counters."""
    return f"10.{secrets.randbelow(256)}.{secrets.randbelow(256)}.{secrets.randbelow(256)}"


def send(service: Service, path: str, address: str, body: Document, token: str | None = None) -> httpx.Response:
    return service("POST", path, token=token, json=body, headers={"X-Forwarded-For": address})


def log_in(service: Service, address: str, username: str, password: str = PASSWORD) -> httpx.Response:
    return send(service, "/auth", address, {"username": username, "password": password})


def guess(service: Service, address: str, username: str) -> int:
    return log_in(service, address, username, "a wrong password").status_code


def age_counters(service: Service, database: Database[Document], seconds: float) -> None:
    """Move the windows of all counters back by `seconds`."""
    database.attempts.update_many({}, [{"$set": {"ends": {"$subtract": ["$ends", int(seconds * 1000)]}}}])
    remembered = service.app.ctx.throttle._refused_until
    for key, until in remembered.items():
        remembered[key] = until - seconds


def test_guesses_per_account_and_address_are_limited_with_retry_after(
    proxied: Service, carol: Actor, database: Database[Document]
) -> None:
    here = address()
    assert [guess(proxied, here, carol.username) for _ in range(10)] == [401] * 10
    rejected = log_in(proxied, here, carol.username, "a wrong password")
    assert (rejected.status_code, rejected.json()["code"]) == (429, "too_many_attempts")
    assert 890 <= int(rejected.headers["retry-after"]) <= 900
    age_counters(proxied, database, int(rejected.headers["retry-after"]) - 3)
    assert int(log_in(proxied, here, carol.username).headers["retry-after"]) in (1, 2, 3)
    age_counters(proxied, database, 3)
    assert log_in(proxied, here, carol.username).status_code == 200


def test_a_throttled_response_does_not_reveal_whether_the_password_is_right(proxied: Service, carol: Actor) -> None:
    here = address()
    for _ in range(10):
        guess(proxied, here, carol.username)
    right, wrong = log_in(proxied, here, carol.username), log_in(proxied, here, carol.username, "a wrong password")
    assert (right.status_code, wrong.status_code) == (429, 429)
    assert {**right.json(), "request_id": ""} == {**wrong.json(), "request_id": ""}


def test_unknown_users_are_throttled_like_others(proxied: Service) -> None:
    here, unknown = address(), f"unknown-{secrets.token_hex(4)}"
    assert [guess(proxied, here, unknown) for _ in range(11)] == [401] * 10 + [429]


def test_all_spellings_of_a_name_are_counted_together(proxied: Service, carol: Actor) -> None:
    here, name = address(), carol.username
    spellings = [name, name.lower(), name.upper()] * 4
    assert [guess(proxied, here, spelling) for spelling in spellings] == [401] * 10 + [429] * 2


def test_parallel_guesses_are_counted_before_verification(proxied: Service, carol: Actor) -> None:
    body = {"username": carol.username, "password": "a wrong password"}
    headers = {"X-Forwarded-For": address()}
    statuses: list[int] = []
    while 401 in statuses or not statuses:
        responses = proxied.together(*(proxied.send("POST", "/auth", json=body, headers=headers) for _ in range(40)))
        statuses, earlier = [response.status_code for response in responses], statuses
        verified = [*earlier, *statuses].count(401)
        assert verified <= 10
        assert {*statuses} <= {401, 429}


def test_all_routes_that_verify_passwords_share_the_limit(proxied: Service, carol: Actor) -> None:
    here, token = address(), carol.tokens["access_token"]
    change = {"current_password": "a wrong password", "new_password": "another good password"}
    for number in range(10):
        if number % 3 == 0:
            assert guess(proxied, here, carol.username) == 401
        elif number % 3 == 1:
            assert send(proxied, "/users/me/password", here, change, token).status_code == 401
        else:
            body = {"current_password": "a wrong password"}
            assert send(proxied, "/users/me/delete", here, body, token).status_code == 401
    assert guess(proxied, here, carol.username) == 429
    right = {"current_password": PASSWORD, "new_password": "another good password"}
    assert send(proxied, "/users/me/password", here, right, token).status_code == 429
    assert send(proxied, "/users/me/delete", here, {"current_password": PASSWORD}, token).status_code == 429
    assert carol.secret_status == 200, "the session stays active"


def test_a_successful_login_resets_the_pair_and_does_not_count(
    proxied: Service, carol: Actor, database: Database[Document]
) -> None:
    here = address()
    for failures in (9, 5):
        assert [guess(proxied, here, carol.username) for _ in range(failures)] == [401] * failures
        assert log_in(proxied, here, carol.username).status_code == 200
    counts = [counter["count"] for counter in database.attempts.find({"_id": {"$regex": here}})]
    assert counts == [9], "the address counts failures until it is a usual one, and the pair's counter is removed"


def test_guesses_per_address_are_limited_over_all_accounts(proxied: Service) -> None:
    here = address()
    statuses = [guess(proxied, here, f"unknown-{secrets.token_hex(4)}") for _ in range(GUESSES + 1)]
    assert statuses == [401] * GUESSES + [429]
    assert guess(proxied, address(), f"unknown-{secrets.token_hex(4)}") == 401


def test_guesses_per_account_are_limited_but_usual_addresses_stay_open(proxied: Service, carol: Actor) -> None:
    """The limit is per hour, over all addresses. The user can still log in from a usual address."""
    statuses = [guess(proxied, address(), carol.username) for _ in range(OTHER_GUESSES + 3)]
    assert statuses == [401] * OTHER_GUESSES + [429] * 3
    assert log_in(proxied, carol.home, carol.username).status_code == 200  # type: ignore[attr-defined]
    assert log_in(proxied, address(), carol.username).status_code == 429


def test_guesses_from_usual_addresses_are_limited_to_a_reserved_share(proxied: Service, carol: Actor) -> None:
    """The share is for all usual addresses together, and does not close the others.

    Both shares together are the limit of the account.
    """
    usual = [carol.home, address(), address(), address()]  # type: ignore[attr-defined]
    assert {log_in(proxied, place, carol.username).status_code for place in usual} == {200}
    statuses = [guess(proxied, place, carol.username) for place in islice(cycle(usual), USUAL_GUESSES + 2)]
    assert statuses == [401] * USUAL_GUESSES + [429] * 2
    assert {log_in(proxied, place, carol.username).status_code for place in usual} == {429}
    assert log_in(proxied, address(), carol.username).status_code == 200
    other_statuses = [guess(proxied, address(), carol.username) for _ in range(OTHER_GUESSES + 1)]
    assert [*statuses, *other_statuses].count(401) == GUESSES


def test_parallel_guesses_from_many_addresses_count_for_the_account(proxied: Service, carol: Actor) -> None:
    """The existing session stays active and can be refreshed."""
    body = {"username": carol.username, "password": "a wrong password"}
    responses = proxied.together(
        *(
            proxied.send("POST", "/auth", json=body, headers={"X-Forwarded-For": address()})
            for _ in range(2 * OTHER_GUESSES)
        )
    )
    assert sorted(response.status_code for response in responses) == [401] * OTHER_GUESSES + [429] * OTHER_GUESSES
    assert carol.secret_status == 200
    assert carol.refresh().status_code == 200


def test_a_lock_affects_one_account_only(proxied: Service, carol: Actor) -> None:
    here, other = address(), f"dave-{secrets.token_hex(4)}"
    body = {"username": other, "password": PASSWORD}
    assert send(proxied, "/users/registration", here, body).status_code == 201
    assert [guess(proxied, here, carol.username) for _ in range(11)] == [401] * 10 + [429]
    assert log_in(proxied, here, other).status_code == 200


def test_one_address_cannot_exhaust_the_limit_of_an_account(proxied: Service, carol: Actor) -> None:
    """Attempts that the pair's limit rejects do not count for the account.

    Otherwise one attacker could lock the user out everywhere.
    """
    here = address()
    for _ in range(2 * GUESSES):
        guess(proxied, here, carol.username)
    assert guess(proxied, here, carol.username) == 429
    assert log_in(proxied, address(), carol.username).status_code == 200


def test_an_attempt_that_one_limit_rejects_does_not_count_for_others(
    proxied: Service, carol: Actor, database: Database[Document]
) -> None:
    """No password was verified: after the account's hour the right one is accepted from the new address."""
    for _ in range(GUESSES):
        guess(proxied, address(), carol.username)
    here = address()
    for _ in range(12):
        assert log_in(proxied, here, carol.username).status_code == 429
    assert list(database.attempts.find({"_id": {"$regex": here}})) == []
    age_counters(proxied, database, 3600)
    assert log_in(proxied, here, carol.username).status_code == 200


def test_a_right_password_is_no_failure_although_the_client_disconnects(
    proxied: Service, carol: Actor, database: Database[Document]
) -> None:
    """The client leaves while its request waits for a hashing thread, or before or after the verification."""
    here = address()
    body, headers = {"username": carol.username, "password": PASSWORD}, {"X-Forwarded-For": here}
    ctx = proxied.app.ctx
    for target, method, when in (
        (ctx.throttle, "_count", "after"),
        (ctx.passwords, "verify", "before"),
        (ctx.passwords, "verify", "after"),
    ):
        with Held(target, method, when) as held:  # type: ignore[arg-type]
            proxied.run(hang_up_at(held, proxied.send("POST", "/auth", json=body, headers=headers)))
    account = hashlib.sha256(carol.username.lower().encode()).hexdigest()
    counters = database.attempts.find({"_id": {"$regex": f"{here}|{account}"}})
    counts = {counter["_id"].split()[0]: counter["count"] for counter in counters}
    assert counts == {"logins": 2}, "no failure is counted"


def test_a_withdrawn_attempt_does_not_lower_the_count_of_a_later_window(
    proxied: Service, carol: Actor, database: Database[Document]
) -> None:
    """Rejected attempts are taken back, so many of them could be in progress when a window ends."""
    here = address()
    for _ in range(10):
        guess(proxied, here, carol.username)

    async def story() -> httpx.Response:
        with Held(proxied.app.ctx.throttle, "_take_back", "before") as held:
            body, headers = {"username": carol.username, "password": "wrong words"}, {"X-Forwarded-For": here}
            rejected = asyncio.create_task(proxied.send("POST", "/auth", json=body, headers=headers))
            await held.reached()
            age_counters(proxied, database, 900)
            again = await proxied.send("POST", "/auth", json=body, headers=headers)
            assert again.status_code == 401, "a new window has begun"
            held.let_through()
            response: httpx.Response = await rejected
            return response

    assert proxied.run(story()).status_code == 429
    pair = database.attempts.find_one({"_id": {"$regex": f"^pair .* {here}$"}})
    assert pair
    assert pair["count"] == 1


def test_registrations_are_limited_by_address(proxied: Service) -> None:
    here = address()

    def register() -> httpx.Response:
        body = {"username": f"user-{secrets.token_hex(4)}", "password": PASSWORD}
        return send(proxied, "/users/registration", here, body)

    assert [register().status_code for _ in range(20)] == [201] * 20
    rejected = register()
    assert (rejected.status_code, rejected.json()["code"]) == (429, "too_many_attempts")
    assert 1 <= int(rejected.headers["retry-after"]) <= 60


def test_without_a_configured_proxy_forwarding_headers_are_ignored(service: Service, alice: Actor) -> None:
    spoofed = {"X-Forwarded-For": "1.2.3.4", "X-Real-IP": "1.2.3.4", "Forwarded": "for=1.2.3.4"}
    body = {"username": alice.username, "password": "a wrong password"}
    statuses = [service("POST", "/auth", json=body, headers=spoofed).status_code for _ in range(11)]
    assert statuses == [401] * 10 + [429]
    assert alice.get("/auth/sessions").json()["sessions"][0]["address"] == "127.0.0.1"


def test_behind_a_proxy_only_the_entry_of_the_proxy_is_trusted(
    proxied: Service, carol: Actor, database: Database[Document]
) -> None:
    """Entries to the left come from the client. Values that are not addresses are ignored."""
    here = address()
    for number in range(11):
        headers = f"172.16.0.{number}, <script>, {here}"
        assert guess(proxied, headers, carol.username) == (401 if number < 10 else 429)
    age_counters(proxied, database, 900)  # other tests had failures from the proxy's own address
    assert guess(proxied, "not an address", f"unknown-{secrets.token_hex(4)}") == 401


def test_an_ipv6_client_is_counted_by_its_network() -> None:
    """A client that has one address of a /64 has all of them, and often all of a /56 or a /48."""
    of_line = ("2001:db8:1:2::/64", "2001:db8:1::/56", "2001:db8:1::/48")
    assert networks("2001:db8:1:2::1") == networks("2001:db8:1:2:ffff::9") == of_line
    assert networks("2001:db8:1:3::1") == ("2001:db8:1:3::/64", *of_line[1:])
    assert networks("::ffff:10.0.0.1") == networks("10.0.0.1") == ("10.0.0.1",)
    assert networks("unknown") == ("unknown",)


def line() -> str:
    """Return a random /48, without its end."""
    return f"2001:db8:{secrets.token_hex(2)}"


@pytest.mark.parametrize(("prefix", "allowed"), [(56, 20), (48, 40)])
def test_one_ipv6_line_cannot_lock_an_account(proxied: Service, carol: Actor, prefix: int, allowed: int) -> None:
    """A line has 256 or 65,536 networks of 64 bits. They are counted together, too, with limits that grow."""
    home, step = line(), 1 if prefix == 56 else 256
    hosts = (f"{home}:{number * step:x}::1" for number in range(200))
    statuses = [guess(proxied, next(hosts), carol.username) for _ in range(allowed + 3)]
    assert statuses == [401] * min(allowed, OTHER_GUESSES) + [429] * (len(statuses) - min(allowed, OTHER_GUESSES))
    if allowed < OTHER_GUESSES:
        assert log_in(proxied, address(), carol.username).status_code == 200, "the account is not locked elsewhere"
    assert log_in(proxied, carol.home, carol.username).status_code == 200  # type: ignore[attr-defined]


def test_registrations_of_an_ipv6_line_are_counted_together(proxied: Service) -> None:
    home = line()

    def register(number: int) -> int:
        body = {"username": f"user-{secrets.token_hex(4)}", "password": PASSWORD}
        return send(proxied, "/users/registration", f"{home}:{number:x}::1", body).status_code

    assert [register(number) for number in range(41)] == [201] * 40 + [429]
    assert register(256) == 201, "another /56 of the line"


def test_an_owner_is_not_locked_out_of_a_shared_address_by_a_neighbour(proxied: Service, carol: Actor) -> None:
    """The neighbour guesses passwords of others until the address is locked. It is the one where carol registered."""
    home = carol.home  # type: ignore[attr-defined]
    statuses = [guess(proxied, home, f"unknown-{secrets.token_hex(4)}") for _ in range(GUESSES + 1)]
    assert statuses[-1] == 429
    assert log_in(proxied, home, carol.username).status_code == 200
    body = {"username": carol.username, "password": PASSWORD}
    assert send(proxied, "/users/registration", home, body).status_code == 409, "registrations are counted apart"


def test_parallel_right_passwords_are_asked_to_wait_a_second(proxied: Service, carol: Actor) -> None:
    """They are no failures, so the address is not locked for a quarter of an hour."""
    body, headers = {"username": carol.username, "password": PASSWORD}, {"X-Forwarded-For": address()}
    responses = proxied.together(*(proxied.send("POST", "/auth", json=body, headers=headers) for _ in range(15)))
    assert {response.status_code for response in responses} == {200, 429}
    assert {response.headers["retry-after"] for response in responses if response.status_code == 429} == {"1"}
    assert log_in(proxied, headers["X-Forwarded-For"], carol.username).status_code == 200


def test_attempts_in_progress_do_not_lock_a_limit(proxied: Service, carol: Actor) -> None:
    """Their passwords may be right. Only failures lock it until its window ends."""
    here = address()
    throttle = proxied.app.ctx.throttle

    async def story() -> None:
        places = [
            await throttle.attempt(carol.username, networks(here), usual=False, account=carol.username)
            for _ in range(10)
        ]
        with pytest.raises(TooManyAttempts) as refused:
            await throttle.attempt(carol.username, networks(here), usual=False, account=carol.username)
        assert refused.value.seconds == 1
        for place in places:
            await throttle.failed(place)
        with pytest.raises(TooManyAttempts) as refused:
            await throttle.attempt(carol.username, networks(here), usual=False, account=carol.username)
        assert refused.value.seconds >= 890

    proxied.run(story())


def test_a_locked_limit_is_answered_from_memory(
    proxied: Service, carol: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood of refused logins does not reach the database's counters."""
    here = address()
    for _ in range(11):
        guess(proxied, here, carol.username)
    monkeypatch.setattr(proxied.app.ctx.throttle, "_attempts", None)
    rejected = log_in(proxied, here, carol.username)
    assert rejected.status_code == 429
    assert 880 <= int(rejected.headers["retry-after"]) <= 900


def test_the_memory_of_locked_limits_is_bounded(proxied: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.security.throttle.REFUSALS_REMEMBERED", 3)
    throttle = proxied.app.ctx.throttle
    throttle._refused_until.clear()
    for number in range(5):
        window = Window(f"key {number}", 11, 10, datetime.now(UTC), left=60)
        throttle._reached(Limit(window.key, 10, 60), window)
    assert [*throttle._refused_until] == ["key 2", "key 3", "key 4"]
    throttle._refused_until.clear()


def test_right_passwords_of_an_account_are_limited(config: Config, alice: Actor) -> None:
    """Each opens a session and costs a hash (session flooding, denial of service)."""
    with Service(config.model_copy(update={"LOGINS_PER_ACCOUNT": "3/minute"})) as service:
        body = {"username": alice.username, "password": PASSWORD}
        statuses = [service("POST", "/auth", json=body) for _ in range(5)]
        assert [response.status_code for response in statuses] == [200] * 3 + [429] * 2
        assert 1 <= int(statuses[-1].headers["retry-after"]) <= 60


def test_usual_networks_of_the_first_release_stay_usual(
    proxied: Service, carol: Actor, database: Database[Document]
) -> None:
    """It stored only their names, and its workers may still add some."""
    office = address()
    database.users.update_one({"username": carol.username}, {"$set": {"usual_networks": [office]}})
    for _ in range(OTHER_GUESSES):
        guess(proxied, address(), carol.username)
    assert log_in(proxied, address(), carol.username).status_code == 429
    assert log_in(proxied, office, carol.username).status_code == 200
    stored = database.users.find_one({"username": carol.username}) or {}
    assert stored["usual_networks"] == [office]


def test_counters_are_removed_by_a_ttl_index(proxied: Service, carol: Actor, database: Database[Document]) -> None:
    guess(proxied, address(), carol.username)
    assert database.attempts.index_information()["ends_1"]["expireAfterSeconds"] == 0
    latest = database.attempts.find_one(sort=[("ends", -1)])
    assert latest
    assert latest["ends"] <= datetime.now(UTC) + timedelta(days=1)


def test_the_default_limits_are_as_documented(config: Config) -> None:
    defaults = {name: field.default for name, field in type(config).model_fields.items()}
    assert defaults["LOGIN_FAILURES_PER_PAIR"] == "10/15minutes"
    assert defaults["LOGIN_FAILURES_PER_ACCOUNT"] == "100/hour"
    assert defaults["LOGIN_FAILURES_PER_ADDRESS"] == "100/15minutes"
    assert defaults["REGISTRATIONS_PER_ADDRESS"] == "20/minute"
    assert defaults["LOGINS_PER_ACCOUNT"] == "30/minute"


def test_a_single_worker_can_count_in_memory(config: Config, database: Database[Document]) -> None:
    with Service(config.model_copy(update={"THROTTLE_STORAGE": "memory"})) as alone:
        unknown = {"username": f"unknown-{secrets.token_hex(4)}", "password": PASSWORD}
        statuses = [alone("POST", "/auth", json=unknown).status_code for _ in range(11)]
        assert statuses == [401] * 10 + [429]
    account = hashlib.sha256(unknown["username"].encode()).hexdigest()
    assert database.attempts.count_documents({"_id": {"$regex": account}}) == 0


def test_a_full_hashing_queue_does_not_count_as_a_failure(
    proxied: Service, carol: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = address()
    with monkeypatch.context() as patched:
        patched.setattr(proxied.app.ctx.passwords.turns, "_most", 0)
        for _ in range(15):
            busy = log_in(proxied, here, carol.username)
            assert (busy.status_code, busy.json()["code"]) == (503, "hashing_busy")
    assert log_in(proxied, here, carol.username).status_code == 200
