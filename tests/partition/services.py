"""The service on a host of its own, and connections to each of its workers."""

import http.client
import json
import os
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path

from tests.partition.network import Host
from tests.partition.requests import HELLO, READY, Account, Answer, Request, registration, secret
from tests.processes import TIMEOUT_SECONDS, Command, Process, connection_owner, until
from tests.serving import CHECKOUT, SANIC, new_name

PORT = 8000


def exchange(connection: http.client.HTTPConnection, request: Request) -> Answer:
    """Send a request on a connection, in a thread of its host, and return the response. Raises OSError."""
    headers = {"Authorization": f"Bearer {request.token}"} if request.token else {}
    body = None
    if request.body is not None:
        headers["Content-Type"] = "application/json"
        body = json.dumps(request.body)
    connection.request(request.method, request.path, body, headers)
    response = connection.getresponse()
    content = response.read()
    return Answer(response.status, json.loads(content) if content else {})


def connect(processes: set[Process]) -> tuple[http.client.HTTPConnection, Process | None]:
    """Return a connection and its process, or None if it is not one of these; in a thread of the host. Raises OSError.

    The connection is not opened again when the service closes it, because it may reach another process then.
    """
    with ExitStack() as unless_found:
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=TIMEOUT_SECONDS)
        unless_found.callback(connection.close)
        connection.connect()
        connection.auto_open = 0
        exchange(connection, HELLO)
        _, own_port = connection.sock.getsockname()
        process = connection_owner(processes, PORT, own_port)
        if process:
            unless_found.pop_all()
    return connection, process


class Worker:
    """A client of one worker: the same process answers all its requests."""

    def __init__(self, host: Host, connection: http.client.HTTPConnection, process: Process) -> None:
        self.host = host
        self._connection = connection
        self._process = process
        self.name = f"{host.name}/{process.pid}"

    def protected(self, token: str) -> Request:
        """Return a request that any valid access token allows."""
        return secret(token)

    def ask(self, request: Request) -> Answer:
        """Send one request."""
        return self.host.run(partial(self.ask_here, request))

    def ask_here(self, request: Request) -> Answer:
        """Send one request, from a thread of this host."""
        if not self._connection.sock:  # the service closes the connection of a 503
            until(self._reconnected, f"a connection to {self.name}")
        return exchange(self._connection, request)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def kill(self) -> None:
        """Kill the process."""
        os.kill(self._process.pid, signal.SIGKILL)

    def _reconnected(self) -> bool:
        self._connection, process = connect({self._process})
        return process is not None


class Service:
    """`sanic app` with several workers."""

    def __init__(self, host: Host, workers: int) -> None:
        self.host = host
        self.name = host.name
        self._workers = workers
        self._command: Command | None = None

    def open(self, environment: Mapping[str, str]) -> None:
        """Start the service without waiting."""
        options = ("--host=0.0.0.0", f"--port={PORT}", f"--workers={self._workers}", "--no-motd")
        self._command = Command(self.host.command(SANIC, "app", *options), cwd=CHECKOUT, env=environment)

    def close(self, log: Path) -> None:
        """Kill the service and add its output to a file."""
        if self._command:
            with log.open("a") as file:
                file.write(self._command.output)
            self._command.close()
            self._command = None

    def replace_workers(self) -> None:
        """Kill each worker once; the service starts others."""
        with self.each_worker() as workers:
            for worker in workers:
                worker.kill()

    @property
    def output(self) -> str:
        """The output so far."""
        return self._command.output if self._command else ""

    def ask(self, request: Request) -> Answer:
        """Send a request on a new connection."""
        return self.host.run(partial(self.ask_here, request))

    def ask_here(self, request: Request) -> Answer:
        """Send a request on a new connection, from a thread of this host."""
        with closing(http.client.HTTPConnection("127.0.0.1", PORT, timeout=TIMEOUT_SECONDS)) as connection:
            try:
                return exchange(connection, request)
            except (OSError, http.client.HTTPException) as error:
                return Answer(0, {"code": type(error).__name__})

    @contextmanager
    def each_worker(self) -> Iterator[list[Worker]]:
        """Open a connection to every worker."""
        with ExitStack() as opened:
            workers: dict[int, Worker] = {}

            def connected() -> bool:
                assert self._command, "the service has been started"
                with suppress(OSError):  # it does not listen yet
                    connection, process = self.host.run(partial(connect, self._command.family()))
                    if process and process.pid not in workers:
                        workers[process.pid] = opened.enter_context(closing(Worker(self.host, connection, process)))
                    elif process:
                        opened.callback(connection.close)  # open until then, so that the other worker gets its turn
                return len(workers) == self._workers

            until(connected, f"a connection to every worker of {self.name}; its output is:\n{self.output}")
            yield list(workers.values())

    def wait_until_ready(self) -> None:
        """Wait until every worker reports that it is ready."""
        with self.each_worker() as workers:
            until(lambda: all(worker.ask(READY).status == 200 for worker in workers), f"{self.name} is ready")

    def start(self, request: Request) -> Future[Answer]:
        """Start to send a request on a new connection."""
        return self.host.start(partial(self.ask_here, request))

    def ask_until_success(self, request: Request) -> Answer:
        """Send a request again and again until it succeeds."""
        answers: list[Answer] = []

        def succeeded() -> bool:
            answers.append(self.ask(request))
            return answers[-1].succeeded

        until(succeeded, f"{request} succeeds at {self.name}")
        return answers[-1]

    def accepts_registrations(self) -> bool:
        """Return whether a user can be registered now."""
        return self.ask(registration(new_name())).succeeded

    def register(self) -> Account:
        """Register a user."""
        username = new_name()
        answer = self.ask(registration(username))
        assert answer.succeeded, answer
        return Account(username, answer.body)
