"""Sanic's own command line, really run: two workers behave as one service."""

import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from threading import Barrier

import httpx
import jwt
import pytest
from pymongo import MongoClient

from app.models.sessions import CLOCKS_DIFFER_SECONDS, KEEP_ENDED_SECONDS
from app.models.users import Access
from tests.conftest import PASSWORD, Document
from tests.processes import Command, holder, running, until
from tests.serving import CHECKOUT, SANIC, WORKERS, environment, new_name, started
from tools.local_mongo import free_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes and their sockets are looked up in /proc")

PARALLEL = 30


class Connection:
    """A connection to the service, kept open, so that one worker answers everything that is asked on it."""

    def __init__(self, server: Command, port: int) -> None:
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20)
        stream = self("GET", "/tests/hello").extensions["network_stream"]
        _, own_port = stream.get_extra_info("client_addr")
        worker = holder(server.family(), port, own_port)
        assert worker, "somebody has just answered on this connection"
        self.worker = worker.pid

    def __call__(
        self, method: str, path: str, *, token: str | None = None, body: Document | None = None
    ) -> httpx.Response:
        """Send one request."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self._http.request(method, path, headers=headers, json=body)

    def register(self, username: str) -> httpx.Response:
        """Ask for an account."""
        return self("POST", "/users/registration", body={"username": username, "password": PASSWORD})

    def secret(self, token: str) -> int:
        """Return the status that /tests/secret answers."""
        return self("GET", "/tests/secret", token=token).status_code

    def close(self) -> None:
        """Hang up."""
        self._http.close()


@dataclass(frozen=True)
class Service:
    """A running service with several workers, on a database of its own that was empty at the start."""

    server: Command
    port: int
    mongo_uri: str


@pytest.fixture(scope="module")
def service(mongo_uri: str) -> Iterator[Service]:
    """Run two workers for the whole module."""
    uri = f"{mongo_uri}_workers"
    with MongoClient[Document](uri) as client:
        with started(uri) as (server, port):
            server.wait_for(f"http://127.0.0.1:{port}/tests/hello")
            yield Service(server, port, uri)
        client.drop_database(client.get_default_database())


@pytest.fixture
def connect(service: Service) -> Iterator[Callable[[int], list[Connection]]]:
    """Give a way to open so many connections or some more, until every worker has accepted one."""
    with ExitStack() as open_ones:

        def connect(number: int) -> list[Connection]:
            connections: list[Connection] = []

            def enough() -> bool:
                connections.append(open_ones.enter_context(closing(Connection(service.server, service.port))))
                return len(connections) >= number and len({connection.worker for connection in connections}) == WORKERS

            until(enough, "connections accepted by every worker")
            return connections

        yield connect


@pytest.fixture
def here(connect: Callable[[int], list[Connection]]) -> Connection:
    """Connect to one worker."""
    return connect(1)[0]


@pytest.fixture
def there(connect: Callable[[int], list[Connection]], here: Connection) -> Connection:
    """Connect to another worker."""
    return next(connection for connection in connect(WORKERS) if connection.worker != here.worker)


def test_all_workers_prepare_an_empty_database_at_once(service: Service, there: Connection) -> None:
    """Without an error; the indexes by which names are unique and old things leave are there before anybody comes."""
    assert there.worker, "so both have started"
    with MongoClient[Document](service.mongo_uri) as client:
        database = client.get_default_database()
        indexes = {name: database[name].index_information() for name in ("users", "sessions", "attempts")}
    assert indexes["users"]["canonical_name_1"]["unique"] is True
    leave = {
        name: index["expireAfterSeconds"]
        for found in indexes.values()
        for name, index in found.items()
        if "expireAfterSeconds" in index
    }
    assert leave == {"expires_at_1": CLOCKS_DIFFER_SECONDS, "ended_at_1": KEEP_ENDED_SECONDS, "ends_1": 0}
    assert "ERROR" not in service.server.output


def test_what_one_worker_counts_any_other_tells(here: Connection, there: Connection) -> None:
    """And what they say of themselves is not added up, where that would make no sense."""

    def counted(connection: Connection, line: str) -> float:
        text = connection("GET", "/metrics").text
        return sum(float(found.rpartition(" ")[2]) for found in text.splitlines() if found.startswith(line))

    live = 'http_request_duration_seconds_count{method="GET",route="/health/live",status="200"}'
    before = counted(there, live)
    for connection in (here, here, there):
        assert connection("GET", "/health/live").status_code == 200
    assert counted(here, live) == counted(there, live) == before + 3
    known = counted(here, "revocations_known")
    tokens = here.register(new_name()).json()
    assert here("POST", "/auth/logout", token=tokens["access_token"]).status_code == 204
    until(lambda: counted(there, "revocations_known") == known + 1, "one more, although two know of it")
    assert 0 <= counted(here, "revocations_age_seconds") < 3, "seconds"


def test_of_parallel_registrations_of_one_name_one_succeeds(
    connect: Callable[[int], list[Connection]],
) -> None:
    """Whichever worker they reach."""
    connections = connect(PARALLEL)
    name, start = new_name(), Barrier(len(connections))

    def register(connection: Connection) -> int:
        start.wait()
        return connection.register(name).status_code

    with ThreadPoolExecutor(len(connections)) as pool:
        statuses = Counter(pool.map(register, connections))
    assert statuses == {201: 1, 409: len(connections) - 1}


def test_tokens_of_one_worker_hold_on_the_other(here: Connection, there: Connection) -> None:
    tokens = here.register(new_name()).json()
    assert there.secret(tokens["access_token"]) == 200
    refreshed = there("POST", "/auth/refresh", body={"refresh_token": tokens["refresh_token"]})
    assert refreshed.status_code == 200
    assert here.secret(refreshed.json()["access_token"]) == 200


def test_a_logout_shows_on_every_worker_within_two_seconds(here: Connection, there: Connection) -> None:
    token = here.register(new_name()).json()["access_token"]
    assert (here.secret(token), there.secret(token)) == (200, 200)
    assert here("POST", "/auth/logout", token=token).status_code == 204
    assert here.secret(token) == 401
    until(lambda: there.secret(token) == 401, "the logout on the other worker", seconds=2)


def at_once(*calls: Callable[[], httpx.Response]) -> list[httpx.Response]:
    """Make all calls at the same moment; each needs a connection of its own."""
    start = Barrier(len(calls))

    def call(one: Callable[[], httpx.Response]) -> httpx.Response:
        start.wait()
        return one()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))


NEW_PASSWORD = "a quite different sentence"
ENDS: dict[str, Document | None] = {
    "/auth/logout": None,
    "/auth/logout-all": None,
    "/users/me/password": {"current_password": PASSWORD, "new_password": NEW_PASSWORD},
    "/users/me/delete": {"current_password": PASSWORD},
}


def race(end: str, here: Connection, there: Connection, elsewhere: Connection) -> list[Document]:
    """End sessions on one worker while another refreshes and logs in; return all tokens that must be dead."""
    name = new_name()
    tokens = here.register(name).json()
    ended, *others = at_once(
        lambda: here("POST", end, token=tokens["access_token"], body=ENDS[end]),
        lambda: there("POST", "/auth/refresh", body={"refresh_token": tokens["refresh_token"]}),
        lambda: elsewhere("POST", "/auth", body={"username": name, "password": PASSWORD}),
    )
    assert ended.status_code in (200, 204), ended.text
    handed_out = [tokens, *(answer.json() for answer in others if answer.status_code == 200)]
    if "logout" in end:  # the login may have begun after it, which makes it a good one
        handed_out = [one for one in handed_out if sid(one) == sid(tokens)]
    return handed_out


@pytest.mark.parametrize("end", ENDS)
def test_what_ends_sessions_on_one_worker_wins_over_refreshes_and_logins_on_the_other(
    here: Connection, there: Connection, connect: Callable[[int], list[Connection]], end: str
) -> None:
    """No token from before or by the race opens anything on either worker once two seconds have passed."""
    elsewhere = connect(1)[-1]
    dead = [tokens for _ in range(4) for tokens in race(end, here, there, elsewhere)]
    workers = (here, there)
    until(
        lambda: all(worker.secret(tokens["access_token"]) == 401 for tokens in dead for worker in workers),
        "the end on every worker",
        seconds=2,
    )
    for tokens in dead:
        assert there("POST", "/auth/refresh", body={"refresh_token": tokens["refresh_token"]}).status_code == 401


def sid(tokens: Document) -> str:
    """Name the session that the tokens speak for."""
    claims: Document = jwt.decode(tokens["access_token"], options={"verify_signature": False})
    return str(claims["sid"])


def test_whatever_ends_a_session_shows_on_every_worker_within_two_seconds(
    service: Service, here: Connection, there: Connection
) -> None:
    """A token used again, the owner from another session, an administrator."""

    def log_in(username: str) -> Document:
        return dict(here("POST", "/auth", body={"username": username, "password": PASSWORD}).json())

    boss, owner = new_name(), new_name()
    here.register(boss)
    stolen, left, disabled = (here.register(name).json() for name in (new_name(), owner, new_name()))
    with MongoClient[Document](service.mongo_uri) as client:
        database = client.get_default_database()
        database.users.update_one({"username": boss}, {"$set": {"access": Access.ADMIN}})
        admin, elsewhere = log_in(boss), log_in(owner)
        dead = [tokens["access_token"] for tokens in (stolen, left, disabled)]
        assert [there.secret(token) for token in dead] == [200] * 3
        again = {"refresh_token": stolen["refresh_token"]}
        assert here("POST", "/auth/refresh", body=again).status_code == 200
        database.sessions.update_one({"_id": sid(stolen)}, {"$set": {"rotations": []}})  # that was long ago
    assert here("POST", "/auth/refresh", body=again).status_code == 401
    assert here("DELETE", f"/auth/sessions/{sid(left)}", token=elsewhere["access_token"]).status_code == 204
    user = f"/users/{disabled['user']['id']}"
    assert here("PATCH", user, token=admin["access_token"], body={"disabled": True}).status_code == 200
    until(lambda: [there.secret(token) for token in dead] == [401] * 3, "the ends on the other worker", seconds=2)


def test_one_worker_serves_with_reload(mongo_uri: str) -> None:
    """The command of the README."""
    port = free_port()
    command = [SANIC, "app:create_app", "--dev", f"--port={port}"]
    with running(command, cwd=CHECKOUT, env=environment(f"{mongo_uri}_workers")) as server:
        server.wait_for(f"http://127.0.0.1:{port}/health/ready")
        hello = httpx.get(f"http://127.0.0.1:{port}/tests/hello", trust_env=False)
    assert (hello.status_code, hello.json()) == (200, {"Hello": "World!"})


def test_asked_to_stop_everything_ends(service: Service) -> None:
    """The module's last test: it ends the service that the others share."""
    family = service.server.family()
    assert len(family) > WORKERS
    service.server.send(signal.SIGTERM)
    assert service.server.wait() == 0
    until(lambda: not service.server.family(), "the end of every process")
