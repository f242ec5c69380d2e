"""The log says why the database cannot serve: the host and the reason, once, and nothing private."""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest
from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    ConnectionFailure,
    CursorNotFound,
    ExecutionTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
    WTimeoutError,
)

from app.background import repeat
from app.database.client import Database
from app.database.failures import NoAnswer, is_unavailable, summary
from app.database.members import meaning
from app.database.proven import ProvenReader
from app.database.reports import MOST, WINDOW_SECONDS, Reports
from app.refusals import refusal
from tests.conftest import PASSWORD
from tests.processes import until
from tests.serving import started

PASSWORD_OF_URI = "hidden-word"
SECONDS = 1.0


@contextmanager
def server(respond: Callable[[socket.socket], None]) -> Iterator[int]:
    """Run a server that is no MongoDB; yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    respond(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def close_at_once(connection: socket.socket) -> None:
    """Do what a TLS server does with a client that does not use TLS."""
    connection.recv(1)


def answer_http(connection: socket.socket) -> None:
    """Do what an HTTP server does."""
    connection.recv(1)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


async def reasons(uri: str) -> list[str]:
    """Return why the service's two connections to the database fail."""
    database = Database(uri, default_name="x", timeout_seconds=SECONDS)
    feed = ProvenReader(uri, default_name="x", collection="sessions", seconds=SECONDS)
    try:
        attempts = (database.check(), feed.find({}, {}, sort="_id", limit=1, proven=True))
        errors = await asyncio.gather(*attempts, return_exceptions=True)
        assert all(isinstance(error, PyMongoError) and is_unavailable(error) for error in errors)
        return [summary(error) for error in errors if isinstance(error, PyMongoError)]
    finally:
        await feed.close()
        await database.close()


def test_a_server_that_cannot_be_used_is_named_with_the_reason(mongo_uri: str) -> None:
    host = mongo_uri.split("/")[2]
    login = f"user:{PASSWORD_OF_URI}@"
    with server(close_at_once) as closing, server(answer_http) as http:
        expected = {
            f"mongodb://{login}{host}/x?replicaSet=rsX": f"{host}: the replica set is called rs0, not rsX",
            f"mongodb://{host}/x?tls=true": f"{host}: there is no TLS connection: is it a TLS server?",
            f"mongodb://{login}127.0.0.1:9/x": "127.0.0.1:9: the connection is refused",
            "mongodb://127.0.0.1:9,[::1]:9/x?replicaSet=rs0": (
                "127.0.0.1:9: the connection is refused; [::1]:9: the connection is refused"
            ),
            f"mongodb://{login}no-such-host.invalid/x": "no-such-host.invalid:27017: the name is not known",
            f"mongodb://127.0.0.1:{closing}/x": (
                f"127.0.0.1:{closing}: the server closes the connection: does it require TLS?"
            ),
            f"mongodb://127.0.0.1:{http}/x": f"127.0.0.1:{http}: the server does not speak MongoDB's protocol",
        }

        async def story() -> dict[str, list[str]]:
            found = await asyncio.gather(*map(reasons, expected))
            return dict(zip(expected, found, strict=True))

        found = asyncio.run(story())
    assert found == {uri: [reason] * 2 for uri, reason in expected.items()}


def test_a_name_service_without_the_record_is_named() -> None:
    """`mongodb+srv` finds the servers by a DNS SRV record."""
    (first, second) = asyncio.run(reasons(f"mongodb+srv://user:{PASSWORD_OF_URI}@no-such-host.invalid/x"))
    assert first == second
    assert "DNS" in first or "name" in first
    assert "no-such-host.invalid" in first
    assert PASSWORD_OF_URI not in first


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (
            "SSL handshake failed: db1:27017: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "
            "self-signed certificate (_ssl.c:1006) (configured timeouts: connectTimeoutMS: 20000.0ms)",
            "the certificate is rejected (self-signed certificate)",
        ),
        (
            "SSL handshake failed: 10.0.0.1:27017: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "
            "IP address mismatch, certificate is not valid for '10.0.0.1'. (_ssl.c:1006)",
            "the certificate is rejected (IP address mismatch, certificate is not valid for '10.0.0.1'.)",
        ),
        ("db1:27017: timed out (configured timeouts: connectTimeoutMS: 20000.0ms)", "there is no answer"),
        ("db1:27017: [Errno 113] No route to host (configured timeouts: s)", "db1:27017: No route to host"),
        ("db1: [Errno -3] Temporary failure in name resolution", "the name is not known"),
    ],
)
def test_messages_of_the_driver_are_explained(message: str, text: str) -> None:
    assert meaning(message) == text


PRIVATE = "alice@example.com"
QUERY = f'{{ find: "users", filter: {{ canonical_name: "{PRIVATE}" }}, lsid: {{}} }}'


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            OperationFailure(f"not authorized on demo to execute command {QUERY}", 13),
            "the user may not find in users of the database demo (Unauthorized 13)",
        ),
        (
            OperationFailure("not authorized on admin to execute command { replSetGetStatus: 1, a: 1 }", 13),
            "the user may not replSetGetStatus of the database admin (Unauthorized 13)",
        ),
        (
            OperationFailure("command find requires authentication", 13),
            "the database requires a user name and a password (Unauthorized 13)",
        ),
        (
            OperationFailure(f"Authentication failed for {PRIVATE}", 18),
            "the database rejects this user name and password (AuthenticationFailed 18)",
        ),
        (CursorNotFound(PRIVATE, 43, {"codeName": "CursorNotFound"}), "CursorNotFound 43"),
        (ExecutionTimeout(PRIVATE, 50), "ExecutionTimeout 50"),
        (NotPrimaryError(PRIVATE, {"code": 10107}), "the server is not the primary"),
        (ConfigurationError(f"mongodb://user:{PRIVATE}@db1"), "ConfigurationError"),
        (
            AutoReconnect("db1:27017: connection closed (configured timeouts: s)"),
            "AutoReconnect: db1:27017: connection closed",
        ),
        (
            ServerSelectionTimeoutError("db1:27017: timed out, Timeout: 3s, Topology Description: <...>"),
            "ServerSelectionTimeoutError: db1:27017: timed out",
        ),
        (ConnectionFailure(), "ConnectionFailure"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_summary_has_the_reason_and_no_data_of_users(error: PyMongoError, text: str) -> None:
    assert summary(error) == text
    assert is_unavailable(error)


# MongoDB's error_codes.yml: interruptions, invalidated cursors, conflicts, snapshots, write concerns, resources.
UNAVAILABLE = [
    *(6, 7, 24, 43, 50, 64, 79, 89, 91, 100, 112, 117, 121, 133, 134, 175, 187, 189, 202, 211, 225, 237, 239, 246, 251),
    *(256, 262, 263, 264, 279, 290, 301, 355, 365, 371, 391, 8000, 9001, 11600, 11601, 11602, 12587, 13436, 14031),
]
DEFECTS = [1, 2, 4, 9, 14, 15, 20, 26, 27, 28, 40, 52, 56, 59, 66, 72, 73, 85, 168, 197, 241, 11000, 16554, 40324]


@pytest.mark.parametrize("code", UNAVAILABLE)
def test_an_interruption_by_the_server_is_503(code: int) -> None:
    problem = refusal(OperationFailure("private", code))
    assert problem
    assert problem.status_code == 503


@pytest.mark.parametrize("code", DEFECTS)
def test_a_defect_of_the_service_stays_500(code: int) -> None:
    assert refusal(OperationFailure("private", code)) is None


@pytest.mark.parametrize(
    "label", ["TransientTransactionError", "RetryableWriteError", "UnknownTransactionCommitResult"]
)
def test_an_error_that_the_server_calls_temporary_is_503(label: str) -> None:
    problem = refusal(OperationFailure("private", 99_999, {"errorLabels": [label]}))
    assert problem
    assert problem.status_code == 503


@pytest.mark.parametrize("error", [WTimeoutError("w", 64), WriteConcernError("w", 100), NoAnswer("db1: refused")])
def test_an_unacknowledged_write_is_503(error: PyMongoError) -> None:
    assert refusal(error) is not None


# Once


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now


def test_a_line_is_new_once_until_it_was_not_repeated_for_some_time() -> None:
    clock = Clock()
    reports = Reports(clock=clock)
    assert [reports.is_new("a"), reports.is_new("b"), reports.is_new("a")] == [True, True, False]
    for _ in range(10):
        clock.now += WINDOW_SECONDS - 1
        assert not reports.is_new("a")
    clock.now += WINDOW_SECONDS + 1
    assert reports.is_new("a")
    reports.recovered()
    assert reports.is_new("a")


def test_the_number_of_different_lines_is_bounded() -> None:
    clock = Clock()
    reports = Reports(clock=clock)
    assert sum(reports.is_new(str(number)) for number in range(10 * MOST)) == MOST
    clock.now += WINDOW_SECONDS + 1
    assert reports.is_new("another")


def test_a_failure_that_several_tasks_share_is_logged_once_until_they_work_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story() -> None:
        reports, phases = Reports(), dict.fromkeys(("one", "two"), 0)
        failing = [True, False, True]
        finished = asyncio.Event()

        def task(name: str) -> asyncio.Task[None]:
            async def attempt() -> None:
                phase = min(phases.values())  # both have failed, or worked, before the next phase starts
                phases[name] = phase + 1
                if min(phases.values()) > len(failing):
                    finished.set()
                if phase < len(failing) and failing[phase]:
                    raise ConnectionFailure("db1: refused")

            return asyncio.create_task(repeat(attempt, seconds=0.001, name=name, reports=reports))

        tasks = [task(name) for name in phases]
        await asyncio.wait_for(finished.wait(), 60)
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(story())
    assert [line.partition(": ")[2] for line in caplog.messages if "failing" in line] == [
        "failing: ConnectionFailure: db1: refused"
    ] * 2


def test_an_unavailable_database_is_one_line_of_the_log() -> None:
    """Of each worker, whatever is asked, and without the password of the URI."""
    uri = f"mongodb://user:{PASSWORD_OF_URI}@127.0.0.1:9/x"
    variables = {"APP_MONGO_TIMEOUT_SECONDS": "0.5", "APP_REVOCATION_POLL_SECONDS": "0.1"}
    with started(uri, "--single-process", variables=variables) as (service, port):
        url = f"http://127.0.0.1:{port}"
        service.wait_for(f"{url}/health/live")
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
            for _ in range(3):
                assert client.get("/health/ready").status_code == 503
                body = {"username": "private-name", "password": PASSWORD}
                assert client.post("/auth", json=body).status_code == 503
                assert client.post("/users/registration", json=body).status_code == 503
        reason = "127.0.0.1:9: the connection is refused"
        until(lambda: reason in service.output, "the reason in the log")
        service.send(signal.SIGTERM)
        assert service.wait() == 0
        assert service.output.count(reason) == 1
        assert "the database cannot serve yet, serving what needs none" in service.output
        assert "Traceback" not in service.output
        assert PASSWORD_OF_URI not in service.output
        assert "private-name" not in service.output
