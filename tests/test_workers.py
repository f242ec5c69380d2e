"""Tests of Sanic's command line with two workers, which behave as one service."""

import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Barrier

import httpx
import jwt
import pytest
from pymongo import MongoClient

from app.models.sessions import CLOCKS_DIFFER_SECONDS, KEEP_ENDED_SECONDS
from app.models.users import Access
from config import Config
from tests.conftest import PASSWORD, Document
from tests.processes import TIMEOUT_SECONDS, Command, connection_owner, running, until
from tests.serving import CHECKOUT, SANIC, WORKERS, environment, new_name, started
from tools.local_mongo import free_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="requires /proc to find processes and their sockets")

CONCURRENT_REGISTRATIONS = 30
MOST_WORKER_BYTES = 45_000_000  # besides what a worker shares with the main process


class Connection:
    """A persistent connection to the service, so that one worker answers all its requests."""

    def __init__(self, server: Command, port: int) -> None:
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=TIMEOUT_SECONDS)
        stream = self("GET", "/tests/hello").extensions["network_stream"]
        _, own_port = stream.get_extra_info("client_addr")
        worker = connection_owner(server.family(), port, own_port)
        assert worker, "a worker has just answered on this connection"
        self.worker = worker.pid

    def __call__(
        self, method: str, path: str, *, token: str | None = None, body: Document | None = None
    ) -> httpx.Response:
        """Send one request."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self._http.request(method, path, headers=headers, json=body)

    def register(self, username: str) -> httpx.Response:
        """Register an account."""
        return self("POST", "/users/registration", body={"username": username, "password": PASSWORD})

    def secret(self, token: str) -> int:
        """Return the status of GET /tests/secret."""
        return self("GET", "/tests/secret", token=token).status_code

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


@dataclass(frozen=True)
class Service:
    """A running service with several workers and its own database, which was empty at the start."""

    server: Command
    port: int
    mongo_uri: str


@pytest.fixture(scope="module")
def service(mongo_uri: str) -> Iterator[Service]:
    """Run two workers for the module."""
    uri = f"{mongo_uri}_workers"
    with MongoClient[Document](uri) as client:
        with started(uri) as (server, port):
            server.wait_for(f"http://127.0.0.1:{port}/tests/hello")
            yield Service(server, port, uri)
        client.drop_database(client.get_default_database())


@pytest.fixture
def connect(service: Service) -> Iterator[Callable[[int], list[Connection]]]:
    """Return a function that opens at least so many connections, until every worker has accepted one."""
    with ExitStack() as opened:

        def connect(number: int) -> list[Connection]:
            connections: list[Connection] = []

            def connected() -> bool:
                connections.append(opened.enter_context(closing(Connection(service.server, service.port))))
                return len(connections) >= number and len({connection.worker for connection in connections}) == WORKERS

            until(connected, "connections to every worker")
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


# What workers share


def memory_bytes(pid: int) -> Counter[str]:
    """Return the memory of a process by its kind (proc_pid_smaps_rollup(5))."""
    _, *rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return Counter({name: 1024 * int(size.split()[0]) for name, _, size in (row.partition(":") for row in rows)})


def test_workers_share_the_memory_of_the_main_process(here: Connection) -> None:
    """Each has only what it has written to (copy-on-write)."""
    memory = memory_bytes(here.worker)
    assert memory["Private_Clean"] + memory["Private_Dirty"] < memory["Rss"] / 2
    assert memory["Private_Dirty"] < MOST_WORKER_BYTES


def test_the_main_process_has_one_thread(service: Service) -> None:
    """It forks workers at any time; locks that another thread holds would never be released in them (fork(2))."""
    assert len(list(Path(f"/proc/{service.server.pid}/task").iterdir())) == 1


def test_no_two_workers_make_the_same_request_ids(here: Connection, there: Connection) -> None:
    """Although both are copies of one process."""
    ids = [connection("GET", "/tests/hello").headers["x-request-id"] for connection in (here, there) for _ in range(50)]
    assert len(set(ids)) == len(ids)


def test_all_workers_create_the_indexes_concurrently(service: Service, there: Connection) -> None:
    """Without an error. The unique index and the TTL indexes exist before the first request."""
    assert there.worker, "both workers have started"
    with MongoClient[Document](service.mongo_uri) as client:
        database = client.get_default_database()
        indexes = {name: database[name].index_information() for name in ("users", "sessions", "attempts")}
    assert indexes["users"]["canonical_name_1"]["unique"] is True
    expiries = {
        name: index["expireAfterSeconds"]
        for found in indexes.values()
        for name, index in found.items()
        if "expireAfterSeconds" in index
    }
    assert expiries == {"expires_at_1": CLOCKS_DIFFER_SECONDS, "ended_at_1": KEEP_ENDED_SECONDS, "ends_1": 0}
    assert "ERROR" not in service.server.output


def test_metrics_are_aggregated_over_all_workers(here: Connection, there: Connection) -> None:
    """Counters are added up; gauges are not added up where a sum has no meaning."""

    def value(connection: Connection, metric: str) -> float:
        text = connection("GET", "/metrics").text
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(metric))

    live = 'http_request_duration_seconds_count{method="GET",route="/health/live",status="200"}'
    before = value(there, live)
    for connection in (here, here, there):
        assert connection("GET", "/health/live").status_code == 200
    assert value(here, live) == value(there, live) == before + 3
    known = value(here, "revocations_known")
    tokens = here.register(new_name()).json()
    assert here("POST", "/auth/logout", token=tokens["access_token"]).status_code == 204
    until(lambda: value(there, "revocations_known") == known + 1, "one more revocation, although two workers know it")
    age = value(here, "revocations_age_seconds")
    assert 0 <= age < Config.model_fields["REVOCATION_STALE_SECONDS"].default


def test_of_parallel_registrations_of_one_name_one_succeeds(
    connect: Callable[[int], list[Connection]],
) -> None:
    """Independent of the workers that receive the requests."""
    connections = connect(CONCURRENT_REGISTRATIONS)
    name, start = new_name(), Barrier(len(connections))

    def register(connection: Connection) -> int:
        start.wait()
        return connection.register(name).status_code

    with ThreadPoolExecutor(len(connections)) as pool:
        statuses = Counter(pool.map(register, connections))
    assert statuses == {201: 1, 409: len(connections) - 1}


def test_tokens_of_one_worker_are_valid_on_the_other(here: Connection, there: Connection) -> None:
    tokens = here.register(new_name()).json()
    assert there.secret(tokens["access_token"]) == 200
    refreshed = there("POST", "/auth/refresh", body={"refresh_token": tokens["refresh_token"]})
    assert refreshed.status_code == 200
    assert here.secret(refreshed.json()["access_token"]) == 200


def test_a_logout_takes_effect_on_every_worker_within_two_seconds(here: Connection, there: Connection) -> None:
    token = here.register(new_name()).json()["access_token"]
    assert (here.secret(token), there.secret(token)) == (200, 200)
    assert here("POST", "/auth/logout", token=token).status_code == 204
    assert here.secret(token) == 401
    until(lambda: there.secret(token) == 401, "401 from the other worker", seconds=2)


def race(*calls: Callable[[], httpx.Response]) -> list[httpx.Response]:
    """Make all calls at the same time; each needs its own connection."""
    start = Barrier(len(calls))

    def call(one: Callable[[], httpx.Response]) -> httpx.Response:
        start.wait()
        return one()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))


NEW_PASSWORD = "a quite different sentence"
ENDING_REQUESTS: dict[str, Document | None] = {
    "/auth/logout": None,
    "/auth/logout-all": None,
    "/users/me/password": {"current_password": PASSWORD, "new_password": NEW_PASSWORD},
    "/users/me/delete": {"current_password": PASSWORD},
}


def end_sessions_in_a_race(path: str, here: Connection, there: Connection, elsewhere: Connection) -> list[Document]:
    """End sessions on one worker during a refresh and a login on others; return all tokens that must be revoked."""
    name = new_name()
    tokens = here.register(name).json()
    ended, *others = race(
        lambda: here("POST", path, token=tokens["access_token"], body=ENDING_REQUESTS[path]),
        lambda: there("POST", "/auth/refresh", body={"refresh_token": tokens["refresh_token"]}),
        lambda: elsewhere("POST", "/auth", body={"username": name, "password": PASSWORD}),
    )
    assert ended.status_code in (200, 204), ended.text
    issued = [tokens, *(response.json() for response in others if response.status_code == 200)]
    if "logout" in path:  # the login may have begun after the logout, and is valid then
        issued = [one for one in issued if sid(one) == sid(tokens)]
    return issued


@pytest.mark.parametrize("path", ENDING_REQUESTS)
def test_ending_sessions_wins_over_concurrent_refreshes_and_logins_on_another_worker(
    here: Connection, there: Connection, connect: Callable[[int], list[Connection]], path: str
) -> None:
    """After two seconds, both workers reject all tokens that were issued before or during the race."""
    elsewhere = connect(1)[-1]
    revoked = [tokens for _ in range(4) for tokens in end_sessions_in_a_race(path, here, there, elsewhere)]
    workers = (here, there)
    until(
        lambda: all(worker.secret(tokens["access_token"]) == 401 for tokens in revoked for worker in workers),
        "401 from every worker",
        seconds=2,
    )
    for tokens in revoked:
        assert there("POST", "/auth/refresh", body={"refresh_token": tokens["refresh_token"]}).status_code == 401


def sid(tokens: Document) -> str:
    """Return the id of the session of the tokens."""
    claims: Document = jwt.decode(tokens["access_token"], options={"verify_signature": False})
    return str(claims["sid"])


def test_every_revocation_takes_effect_on_every_worker_within_two_seconds(
    service: Service, here: Connection, there: Connection
) -> None:
    """By reuse of a refresh token, by the user from another session, or by an administrator."""

    def log_in(username: str) -> Document:
        return dict(here("POST", "/auth", body={"username": username, "password": PASSWORD}).json())

    admin_name, owner = new_name(), new_name()
    here.register(admin_name)
    reused, ended, disabled = (here.register(name).json() for name in (new_name(), owner, new_name()))
    with MongoClient[Document](service.mongo_uri) as client:
        database = client.get_default_database()
        database.users.update_one({"username": admin_name}, {"$set": {"access": Access.ADMIN}})
        admin, other_session = log_in(admin_name), log_in(owner)
        revoked = [tokens["access_token"] for tokens in (reused, ended, disabled)]
        assert [there.secret(token) for token in revoked] == [200] * 3
        body = {"refresh_token": reused["refresh_token"]}
        assert here("POST", "/auth/refresh", body=body).status_code == 200
        database.sessions.update_one({"_id": sid(reused)}, {"$set": {"rotations": []}})  # after the grace period
    assert here("POST", "/auth/refresh", body=body).status_code == 401
    assert here("DELETE", f"/auth/sessions/{sid(ended)}", token=other_session["access_token"]).status_code == 204
    user = f"/users/{disabled['user']['id']}"
    assert here("PATCH", user, token=admin["access_token"], body={"disabled": True}).status_code == 200
    until(lambda: [there.secret(token) for token in revoked] == [401] * 3, "401 from the other worker", seconds=2)


def test_one_worker_serves_with_reload(mongo_uri: str) -> None:
    """With the command from the README."""
    port = free_port()
    command = [SANIC, "app:create_app", "--dev", f"--port={port}"]
    with running(command, cwd=CHECKOUT, env=environment(f"{mongo_uri}_workers")) as server:
        server.wait_for(f"http://127.0.0.1:{port}/health/ready")
        hello = httpx.get(f"http://127.0.0.1:{port}/tests/hello", trust_env=False)
    assert (hello.status_code, hello.json()) == (200, {"Hello": "World!"})


def test_a_unix_socket_serves_and_is_removed_at_the_end(mongo_uri: str, short_folder: Path) -> None:
    path = short_folder / "service.sock"
    command = [SANIC, "app", f"--unix={path}", "--workers=1"]
    with running(command, cwd=CHECKOUT, env=environment(f"{mongo_uri}_workers")) as server:
        until(lambda: "Worker ready" in server.output, "the worker is ready")
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost") as client:
            assert client.get("/tests/hello").json() == {"Hello": "World!"}
        server.send(signal.SIGTERM)
        assert server.wait() == 0, server.output
        assert "Traceback" not in server.output
    assert not path.exists()


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Return a folder for a socket, for which the path of `tmp_path` is too long."""
    with TemporaryDirectory() as folder:
        yield Path(folder)


def test_sigterm_ends_every_process(service: Service) -> None:
    """Stop the shared service; therefore the last test of the module."""
    family = service.server.family()
    assert len(family) > WORKERS
    service.server.send(signal.SIGTERM)
    assert service.server.wait() == 0
    until(lambda: not service.server.family(), "the end of every process")
