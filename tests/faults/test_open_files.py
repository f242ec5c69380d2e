"""Tests with more connections than the limit of open files allows (file descriptor exhaustion)."""

import os
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from app.server.connections import LOG_SECONDS, SILENT_SECONDS
from tests.conftest import PASSWORD
from tests.faults.conftest import Server
from tests.faults.test_connections import HEADER_DRIP, connect, more_open_files, status
from tests.faults.test_processes import Note
from tests.processes import Process, until
from tests.serving import WORKERS, new_name, started

LOW_LIMIT = 256  # of open files, for each of two workers
IDLE_CONNECTIONS = 600
USUAL_LIMITS = (1024, 4096)  # soft and hard
CONNECTIONS = 1500
ATTEMPTS = 20
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module", autouse=True)
def _many_sockets() -> Iterator[None]:
    with more_open_files():
        yield


@contextmanager
def starting(mongo_uri: str, open_files: tuple[int, int]) -> Iterator[Server]:
    """Start two workers with a soft and a hard limit of open files, and do not wait."""
    with started(mongo_uri, "--no-motd", "--workers=2", open_files=open_files) as (command, port):
        yield Server(command, port, mongo_uri)


@contextmanager
def serving(mongo_uri: str, open_files: tuple[int, int]) -> Iterator[Server]:
    """Start two workers with a soft and a hard limit of open files, and wait until they are ready."""
    with starting(mongo_uri, open_files) as server:
        server.command.wait_for(f"{server.url}/health/ready")
        until(lambda: len(server.workers) == WORKERS, "every worker is ready")
        yield server


def ask(connection: socket.socket, path: str = "/tests/hello", token: str = "") -> tuple[int, str]:
    """Send a GET request; return the status of the response and its Connection header."""
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{authorization}\r\n".encode())
    response = connection.recv(65536)
    assert response, "closed without a response"
    (persistent,) = re.findall(rb"\r\nconnection: (\S+)", response)
    return status(response), persistent.decode()


def filled(server: Server, idle: ExitStack) -> bool:
    """Open more idle connections, and return whether no worker is ready.

    The kernel chooses the worker of a connection, so one may be full long before the other.
    """
    for _ in range(ATTEMPTS):
        ask(idle.enter_context(connect(server)))
    return {ask_once(server, "/health/ready") for _ in range(ATTEMPTS)} == {503}


def ask_once(server: Server, path: str) -> int:
    """Send a GET request on a new connection."""
    with connect(server) as connection:
        return ask(connection, path)[0]


def registered(server: Server) -> str:
    """Register a user, which needs the database, and return the access token."""
    response = server.post("/users/registration", username=new_name(), password=PASSWORD)
    assert response.status_code == 201, response.text
    return str(response.json()["access_token"])


def lines(server: Server) -> list[str]:
    """Return the log lines about connections."""
    return [line for line in server.command.output.splitlines() if "connections are open" in line]


def seconds_of_processor(process: Process) -> float:
    """Return the processor time that a process has used (proc_pid_stat(5))."""
    stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / CLOCK_TICKS


@pytest.mark.quick
def test_more_idle_connections_than_open_files_leave_the_service_usable(mongo_uri: str, note: Note) -> None:
    """Every connection is answered, the load balancer is told, the log has lines, and the database works."""
    with serving(mongo_uri, (LOW_LIMIT, LOW_LIMIT)) as server, ExitStack() as opened:
        assert "the limit of open files, 256, allows 128 connections per worker" in server.command.output
        token, began = registered(server), time.monotonic()
        own = [opened.enter_context(connect(server)) for _ in range(4)]
        assert {ask(connection, "/auth/me", token) for connection in own} == {(200, "keep-alive")}
        with ExitStack() as idle:
            answers: Counter[tuple[int, str]] = Counter()
            for number in range(IDLE_CONNECTIONS):
                answers[ask(idle.enter_context(connect(server)))] += 1
                if number % 10 == 0:  # connections that are in use stay open
                    assert {ask(connection, "/auth/me", token) for connection in own} == {(200, "keep-alive")}
            note(f"of {IDLE_CONNECTIONS} connections: {dict(answers)}")
            assert set(answers) == {(200, "keep-alive"), (200, "close")}
            assert {ask_once(server, "/tests/hello") for _ in range(ATTEMPTS)} == {200}
            until(lambda: filled(server, idle), "503 from both workers")
            assert {ask(connection, "/auth/me", token) for connection in own} == {(200, "keep-alive")}
            for _ in range(ATTEMPTS):
                registered(server)
            metrics = server.get("/metrics").text
            assert re.search(r"^connections_left 0\.0$", metrics, re.MULTILINE)
            assert re.search(r'^connections_exhausted_total\{event="limited"\} [1-9]', metrics, re.MULTILINE)
        until(lambda: {ask_once(server, "/health/ready") for _ in range(ATTEMPTS)} == {200}, "200 from both workers")
        assert {ask(connection, "/auth/me", token) for connection in own} == {(200, "keep-alive")}
        most = WORKERS * (1 + (time.monotonic() - began) // LOG_SECONDS)
        assert 1 <= len(lines(server)) <= most, "one at once and one each ten seconds from each worker"
        assert "Traceback" not in server.command.output, server.command.output


@pytest.mark.parametrize("sent", [b"", HEADER_DRIP], ids=["nothing", "header"])
def test_silent_clients_cannot_hold_all_connections(mongo_uri: str, note: Note, sent: bytes) -> None:
    """They are closed in favour of new ones, and waiting for them uses no processor time."""
    with serving(mongo_uri, (LOW_LIMIT, LOW_LIMIT)) as server, ExitStack() as silent:
        for _ in range(IDLE_CONNECTIONS):
            silent.enter_context(connect(server)).sendall(sent)
        time.sleep(2 * SILENT_SECONDS)
        before = [seconds_of_processor(process) for process in server.workers]
        time.sleep(2)
        used = sum(map(seconds_of_processor, server.workers)) - sum(before)
        note(f"{used:.2f} s of processor time in 2 s; {lines(server)}")
        assert used < 1, "the event loops do not spin"
        with ExitStack() as others:
            answers = [ask(others.enter_context(connect(server))) for _ in range(ATTEMPTS)]
            assert set(answers) == {(200, "keep-alive")}
        assert "Traceback" not in server.command.output, server.command.output


@pytest.mark.quick
def test_the_usual_soft_limit_of_open_files_is_raised(mongo_uri: str) -> None:
    with serving(mongo_uri, USUAL_LIMITS) as server, ExitStack() as opened:
        assert "raised the limit of open files from 1024 to 4096" in server.command.output
        connections = [opened.enter_context(connect(server)) for _ in range(CONNECTIONS)]
        for _ in range(2):
            assert {ask(connection) for connection in connections} == {(200, "keep-alive")}
        assert ask_once(server, "/health/ready") == 200
        assert not lines(server)


@pytest.mark.quick
def test_a_limit_of_open_files_that_is_too_low_is_reported_in_one_line(mongo_uri: str) -> None:
    with starting(mongo_uri, (64, 64)) as server:
        assert server.command.wait() == 1
        (line,) = server.command.output.splitlines()
        assert line.startswith("The limit of open files is 64, and at least 128 are needed: raise it with ulimit -Hn")
