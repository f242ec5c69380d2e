"""Tests of the load balancer: the limits of each client, its own error responses, and what it forwards."""

import json
import re
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import httpx
import pytest

from tests.cluster.conftest import CLIENT_LIMITS, CONFIGURATION, NODES, Cluster, balancing, settings
from tests.cluster.stubs import Echo, running
from tests.conftest import Document
from tests.faults.conftest import Server
from tests.processes import TIMEOUT_SECONDS, until
from tools.local_mongo import free_port

CLIENT, OTHER = "127.0.0.2", "127.0.0.3"
ALLOWED, NOT_ALLOWED = "https://app.example.com", "https://app.example.com.evil.example"
MEMBERS = {"type", "title", "status", "detail", "code", "request_id"}
BODY_BYTES = 32_768  # REQUEST_MAX_SIZE
ARRIVAL_SECONDS = 15  # timeout http-request, and inspect-delay
DEFAULT_CONNECTIONS = 200  # CLIENT_CONNECTIONS
FLOOD = 4200  # more connections than the load balancer accepts in all
FEW = 5  # a limit of one client in these tests

Note = Callable[[str], None]


def configured(folder: Path, *, origins: str = "", proxies: str = "", **edits: str) -> Path:
    """Copy the configuration with other lists, and with `edits` of the text that a name in EDITED stands for."""
    copy = folder / "deploy"
    shutil.copytree(CONFIGURATION.parent, copy, dirs_exist_ok=True)
    (copy / "cors_origins.lst").write_text(f"# comment\n{origins}\n")
    (copy / "trusted_proxies.lst").write_text(f"# comment\n{proxies}\n")
    text = (copy / "haproxy.cfg").read_text()
    for name, value in edits.items():
        assert EDITED[name] in text
        text = text.replace(EDITED[name], value)
    (copy / "haproxy.cfg").write_text(text)
    return copy / "haproxy.cfg"


EDITED = {"bind": '    bind "${BIND}"\n', "answer_seconds": "timeout server 35s", "post_seconds": "timeout server 40s"}


@contextmanager
def balancing_echo(configuration: Path = CONFIGURATION, **limits: int) -> Iterator[Server]:
    """Run the load balancer in front of a service that responds with the headers it receives."""
    variables = settings("mongodb://127.0.0.1:1/unused") | {name: str(value) for name, value in limits.items()}
    with running(Echo) as (address, _), balancing([address] * NODES, variables, configuration=configuration) as started:
        yield started


@pytest.fixture(scope="module")
def balancer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run the load balancer with one allowed origin, and without limits of clients."""
    path = configured(tmp_path_factory.mktemp("allowed"), origins=ALLOWED)
    with balancing_echo(path) as started:
        yield started


def send(server: Server, method: str, path: str, *, address: str = CLIENT, **options: object) -> httpx.Response:
    """Send a request from an address on a connection of its own."""
    transport = httpx.HTTPTransport(local_address=address)
    with httpx.Client(transport=transport, timeout=TIMEOUT_SECONDS) as client:
        return client.request(method, server.url + path, **options)  # type: ignore[arg-type]


def raw(server: Server, request: bytes, *, port: int | None = None) -> bytes:
    """Send bytes, and return everything that is received until the connection is closed."""
    with socket.create_connection(("127.0.0.1", port or server.port), timeout=TIMEOUT_SECONDS) as connection:
        with suppress(ConnectionError):  # closed before it has read everything
            connection.sendall(request)
        received = b""
        with suppress(ConnectionResetError):
            while part := connection.recv(65536):
                received += part
    return received


@dataclass
class Parsed:
    """A response that was received as bytes."""

    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def of(cls, received: bytes) -> "Parsed":
        """Parse the response."""
        head, _, body = received.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return cls(int(first.split()[1]), headers, body)


def assert_problem(status: int, headers: httpx.Headers | dict[str, str], body: bytes, code: str) -> Document:
    """Fail unless the response has the shape and the headers that the service gives its errors."""
    problem: Document = json.loads(body)
    assert set(problem) == MEMBERS
    assert (problem["status"], problem["code"]) == (status, code)
    assert headers["content-type"] == "application/problem+json"
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-request-id"] == problem["request_id"] != ""
    return problem


def test_haproxy_accepts_the_configuration_without_warnings() -> None:
    addresses = dict.fromkeys(("API1", "API2", "API3"), "127.0.0.1:1") | {"BIND": ":8000", "APP_FORWARDED_SECRET": "x"}
    command = [shutil.which("haproxy") or "haproxy", "-c", "-f", str(CONFIGURATION)]
    checked = subprocess.run(command, env=addresses, capture_output=True, text=True, check=True, cwd="/")
    assert not re.search("WARNING|ALERT", checked.stderr), checked.stderr


# The limits of one client


@contextmanager
def many_open_files() -> Iterator[None]:
    """Raise the limit of open files of the tests."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < FLOOD + 1000:
        pytest.skip(f"this test opens {FLOOD} connections: ulimit -n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def connect(server: Server, address: str) -> socket.socket:
    """Open a connection from an address, and do not wait until it is established."""
    connection = socket.socket()
    connection.bind((address, 0))
    connection.setblocking(False)
    connection.connect_ex(("127.0.0.1", server.port))
    return connection


def closed(connection: socket.socket) -> bool:
    """Return whether the load balancer has closed a connection on which nothing was sent."""
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_a_flood_of_silent_connections_from_one_address_does_not_delay_others(cluster: Cluster, note: Note) -> None:
    """With the default limits. The client keeps so many connections, and all others answer as before."""
    variables = settings(cluster.replica_set.uri)
    for name in CLIENT_LIMITS:
        del variables[name]
    addresses = [node.address for node in cluster.nodes]
    with many_open_files(), balancing(addresses, variables) as started, ExitStack() as opened:
        began = time.monotonic()
        flood = [opened.enter_context(connect(started, CLIENT)) for _ in range(FLOOD)]
        seconds = time.monotonic() - began
        times = []
        for number in range(100):
            began = time.monotonic()
            response = send(started, "GET", "/tests/hello", address=f"127.0.1.{number}")
            times.append(time.monotonic() - began)
            assert response.status_code == 200
        note(f"{FLOOD} connections in {seconds:.2f} s; others: 100 requests, at most {1000 * max(times):.0f} ms each")
        assert max(times) < ARRIVAL_SECONDS / 3, "without the limit, until the silent connections have timed out"
        until(lambda: sum(map(closed, flood)) >= FLOOD - DEFAULT_CONNECTIONS, "the end of the other connections")


def test_the_connections_of_one_client_are_limited() -> None:
    with balancing_echo(CLIENT_CONNECTIONS=FEW) as started, ExitStack() as opened:
        transports = [httpx.HTTPTransport(local_address=CLIENT) for _ in range(FEW)]
        clients = [opened.enter_context(httpx.Client(transport=one, timeout=TIMEOUT_SECONDS)) for one in transports]
        for client in clients:
            assert client.get(f"{started.url}/x").status_code == 200
        with pytest.raises(httpx.TransportError):
            send(started, "GET", "/x")
        assert send(started, "GET", "/x", address=OTHER).status_code == 200
        for client in clients:
            assert client.get(f"{started.url}/x").status_code == 200, "on the connection that is open"
        clients[0].close()
        until(lambda: answers(started), "a place for another connection")


def answers(server: Server) -> bool:
    """Return whether the client receives a response."""
    with suppress(httpx.TransportError):
        return send(server, "GET", "/x").status_code > 0
    return False


def test_the_connection_rate_of_one_client_is_limited() -> None:
    with balancing_echo(CLIENT_CONNECTIONS_PER_10S=FEW) as started:
        for _ in range(FEW):
            assert send(started, "GET", "/x").status_code == 200
        with pytest.raises(httpx.TransportError):
            send(started, "GET", "/x")
        assert send(started, "GET", "/x", address=OTHER).status_code == 200


def test_the_request_rate_of_one_client_is_limited() -> None:
    """Beyond the limit with 429 and a new connection for each request, far beyond it without a response."""
    with balancing_echo(CLIENT_REQUESTS_PER_10S=FEW) as started:
        statuses = [send(started, "GET", "/x").status_code for _ in range(FEW + 1)]
        assert statuses == [200] * FEW + [429]
        response = send(started, "POST", "/x", json={})
        assert_problem(response.status_code, response.headers, response.content, "too_many_requests")
        assert int(response.headers["retry-after"]) > 0
        assert response.headers["connection"] == "close"
        assert send(started, "GET", "/x", address=OTHER).status_code == 200
        until(lambda: not answers(started), "no response to a flood")


LOGINS = ["/auth", "/auth/refresh", "/users/registration", "/users/me/password", "/users/me/delete"]
SPELLINGS = ["//%61uth", "/AUTH/x?y", "/auth/"]


@pytest.mark.parametrize(("number", "path"), list(enumerate(LOGINS + SPELLINGS)))
def test_logins_have_a_lower_limit_than_other_requests(limited: Server, number: int, path: str) -> None:
    """In every spelling of the path, because the service decides which of them it accepts."""
    address = f"127.0.2.{number + 1}"
    statuses = [send(limited, "POST", path, json={}, address=address).status_code for _ in range(FEW + 1)]
    assert statuses == [200] * FEW + [429]
    assert send(limited, "GET", "/tests/secret", address=address).status_code == 200
    assert send(limited, "GET", "/authors", address=address).status_code == 200


@pytest.fixture(scope="module")
def limited() -> Iterator[Server]:
    """Run the load balancer with a low limit of logins."""
    with balancing_echo(CLIENT_LOGINS_PER_10S=FEW) as started:
        yield started


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, int]]:
    """Run the load balancer with a low limit of logins, and with a port for the PROXY protocol."""
    port = free_port()
    bind = f'    bind "${{BIND}}"\n    bind 127.0.0.1:{port} accept-proxy\n'
    path = configured(tmp_path_factory.mktemp("proxied"), bind=bind)
    with balancing_echo(path, CLIENT_LOGINS_PER_10S=FEW) as started:
        yield started, port


def log_in(proxied: tuple[Server, int], address: str) -> Parsed:
    """Send a login from an address that the PROXY protocol reports."""
    server, port = proxied
    family = "TCP6" if ":" in address else "TCP4"
    proxy = f"PROXY {family} {address} {'::1' if ':' in address else '127.0.0.1'} 40000 8000\r\n"
    head = "GET /auth HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    return Parsed.of(raw(server, f"{proxy}{head}".encode(), port=port))


def test_an_ipv6_client_is_limited_by_its_64_network(proxied: tuple[Server, int]) -> None:
    statuses = [log_in(proxied, f"2001:db8:1::{number + 1}").status for number in range(FEW + 1)]
    assert statuses == [200] * FEW + [429]
    assert log_in(proxied, "2001:db8:1:1::1").status == 200


def test_an_ipv6_48_network_is_limited_to_four_clients(proxied: tuple[Server, int]) -> None:
    statuses = [log_in(proxied, f"2001:db8:2:{number:x}::1").status for number in range(4 * FEW + 1)]
    assert statuses == [200] * 4 * FEW + [429]
    assert log_in(proxied, "2001:db8:3::1").status == 200


def test_ipv4_clients_are_limited_by_address(proxied: tuple[Server, int]) -> None:
    """Also if their address is written as an IPv6 address, as a socket for both protocols reports it."""
    statuses = [log_in(proxied, f"198.51.100.{number}").status for number in range(4 * FEW + 5)]
    assert set(statuses) == {200}
    statuses = [log_in(proxied, f"::ffff:203.0.113.{number}").status for number in range(4 * FEW + 5)]
    assert set(statuses) == {200}
    statuses = [log_in(proxied, f"{prefix}198.18.0.1").status for prefix in ["", "::ffff:"] * 3]
    assert statuses == [200] * FEW + [429]


@pytest.mark.parametrize(
    ("address", "element"),
    [
        ("198.51.100.77", "for=198.51.100.77;secret="),
        ("::ffff:198.51.100.78", "for=198.51.100.78;secret="),
        ("2001:db8:9::1", 'for="[2001:db8:9::1]";secret='),
    ],
)
def test_the_address_of_the_client_is_forwarded(proxied: tuple[Server, int], address: str, element: str) -> None:
    assert json.loads(log_in(proxied, address).body)["forwarded"].startswith(element)


def test_clients_behind_a_trusted_proxy_are_limited_each(tmp_path: Path) -> None:
    """The proxy appends the address of the client to X-Forwarded-For; its own connections have no limit."""
    path = configured(tmp_path, proxies=CLIENT)
    with balancing_echo(path, CLIENT_LOGINS_PER_10S=FEW, CLIENT_CONNECTIONS_PER_10S=FEW + 1) as started:

        def through_proxy(client: str) -> httpx.Response:
            return send(started, "GET", "/auth", headers={"X-Forwarded-For": f"192.0.2.9, {client}"})

        assert [through_proxy("198.51.100.1").status_code for _ in range(FEW + 1)] == [200] * FEW + [429]
        response = through_proxy("2001:db8::1")
        assert response.json()["forwarded"].startswith('for="[2001:db8::1]";secret=')
        assert "x-forwarded-for" not in response.json()
        direct = send(started, "GET", "/auth", address=OTHER, headers={"X-Forwarded-For": "198.51.100.2"})
        assert direct.json()["forwarded"].startswith(f"for={OTHER};secret=")


# Error responses of the load balancer itself

HOST = b"Host: x\r\n"
UNPARSABLE = {
    "signed length": b"POST /auth HTTP/1.1\r\n" + HOST + b"Content-Length: +0\r\n\r\n",
    "hexadecimal length": b"POST /auth HTTP/1.1\r\n" + HOST + b"Content-Length: 0x2\r\n\r\n{}",
    "Arabic digit": "POST /auth HTTP/1.1\r\nHost: x\r\nContent-Length: \u0663\r\n\r\n{} ".encode(),
    "two lengths": b"POST /auth HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    "unknown transfer coding": b"POST /auth HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "no request line": b"garbage\r\n\r\n",
    "TLS on the port without TLS": bytes.fromhex("16030100a5010000a1030300") + b"\x00" * 160,
    "HTTP/0.9": b"GET /\r\n\r\n",
    "no version": b"GET / \r\nHost: x\r\n\r\n",
    "method with a tab": b"GE\tT / HTTP/1.1\r\nHost: x\r\n\r\n",
    "control character in the path": b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
    "line without a colon": b"GET / HTTP/1.1\r\nHost: x\r\nBroken header\r\n\r\n",
    "space before the colon": b"GET / HTTP/1.1\r\nHost: x\r\nX : y\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "too many headers": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 200 + b"\r\n",
}


@pytest.mark.parametrize("request_bytes", UNPARSABLE.values(), ids=list(UNPARSABLE))
def test_what_is_not_http_gets_problem_details(balancer: Server, request_bytes: bytes) -> None:
    """Immediately; the request id is in the log."""
    response = Parsed.of(raw(balancer, request_bytes))
    assert response.status == 400
    problem = assert_problem(response.status, response.headers, response.body, "bad_request")
    assert response.headers["connection"] == "close"
    until(lambda: " 400 " in balancer.command.output and problem["request_id"] in balancer.command.output, "the log")


@pytest.mark.parametrize(
    "request_bytes",
    [b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"a" * 60_000],
    ids=["path", "header"],
)
def test_a_request_head_larger_than_the_buffer_gets_problem_details(balancer: Server, request_bytes: bytes) -> None:
    response = Parsed.of(raw(balancer, request_bytes))
    assert response.status == 413
    assert_problem(response.status, response.headers, response.body, "payload_too_large")


def test_requests_that_do_not_arrive_are_rejected_with_408(balancer: Server) -> None:
    """After the same time for a part of the head, and for a part of the body; a silent connection is closed."""
    head = f"POST /auth HTTP/1.1\r\nHost: x\r\nOrigin: {ALLOWED}\r\nContent-Length: 100\r\n".encode()
    received: dict[str, bytes] = {}

    def wait(name: str, beginning: bytes) -> None:
        received[name] = raw(balancer, beginning)

    began = time.monotonic()
    beginnings = {"head": head, "body": head + b"\r\n{", "silent": b""}
    threads = [Thread(target=wait, args=one) for one in beginnings.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began > ARRIVAL_SECONDS - 1
    assert received["silent"] == b""
    for name in ("head", "body"):
        response = Parsed.of(received[name])
        assert response.status == 408
        assert_problem(response.status, response.headers, response.body, "request_timeout")
        assert response.headers["access-control-allow-origin"] in (ALLOWED, "*")


def test_the_body_limit_is_that_of_the_service(balancer: Server) -> None:
    """Also of chunked bodies, whose length is not announced, and beside a large head."""

    def chunks(size: int) -> Iterator[bytes]:
        yield from (b"x" for _ in range(1000))
        yield b"x" * (size - 1000)

    for body in (lambda size: b"x" * size, chunks):
        accepted = send(balancer, "POST", "/x", content=body(BODY_BYTES), headers={"X-Y": "z" * 8000})
        assert accepted.status_code == 200
        rejected = send(balancer, "POST", "/x", content=body(BODY_BYTES + 1))
        assert rejected.status_code == 413
        assert_problem(rejected.status_code, rejected.headers, rejected.content, "payload_too_large")


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run the load balancer with one allowed origin, low limits and short times."""
    path = configured(
        tmp_path_factory.mktemp("refusing"),
        origins=ALLOWED,
        answer_seconds="timeout server 1s",
        post_seconds="timeout server 3s",
    )
    with balancing_echo(path, CLIENT_LOGINS_PER_10S=0) as started:
        yield started


REFUSALS: dict[int, tuple[str, str, Document, str]] = {
    404: ("GET", "/metrics", {}, "not_found"),
    413: ("POST", "/x", {"content": b"x" * (BODY_BYTES + 1)}, "payload_too_large"),
    429: ("POST", "/auth", {}, "too_many_requests"),
    502: ("POST", "/close", {}, "bad_gateway"),
    504: ("POST", "/silent", {}, "gateway_timeout"),
}


@pytest.mark.parametrize("status", REFUSALS)
def test_error_responses_have_the_headers_of_the_service(refusing: Server, status: int) -> None:
    """And the request id that the client has sent, which is also in the log and in the request to the service."""
    method, path, options, code = REFUSALS[status]
    request_id = f"sent-by-client.{status}_"
    response = send(refusing, method, path, headers={"X-Request-ID": request_id}, **options)
    assert response.status_code == status
    problem = assert_problem(response.status_code, response.headers, response.content, code)
    assert problem["request_id"] == request_id
    assert response.headers["vary"] == "Origin"
    assert not [name for name in response.headers if name.startswith("access-control")]
    until(lambda: re.search(f" {status} .*{request_id}", refusing.command.output), "a line in the log")


@pytest.mark.parametrize("status", REFUSALS)
def test_error_responses_are_readable_for_allowed_origins(refusing: Server, status: int) -> None:
    """CORS: the list of origins decides, and the preflight of a request that is rejected succeeds."""
    method, path, options, _ = REFUSALS[status]
    response = send(refusing, method, path, headers={"Origin": ALLOWED}, **options)
    assert response.status_code == status
    assert response.headers["access-control-allow-origin"] == ALLOWED
    assert "access-control-allow-credentials" not in response.headers
    exposed = set(response.headers["access-control-expose-headers"].split(","))
    assert exposed == {"allow", "retry-after", "www-authenticate", "x-request-id"}
    other = send(refusing, method, path, headers={"Origin": NOT_ALLOWED}, **options)
    assert other.status_code == status
    assert not [name for name in other.headers if name.startswith("access-control")]


@pytest.mark.parametrize("status", [404, 429])
def test_the_preflight_of_a_rejected_request_succeeds(refusing: Server, status: int) -> None:
    """Otherwise the browser would not send the request, and its script would not see the refusal."""
    method, path, _, _ = REFUSALS[status]
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization,content-type"}
    response = send(refusing, "OPTIONS", path, headers={"Origin": ALLOWED, **asked})
    assert response.status_code == 204
    assert response.headers["access-control-allow-origin"] == ALLOWED
    assert response.headers["access-control-allow-methods"] == method
    assert response.headers["access-control-allow-headers"] == "authorization,content-type"
    assert response.headers["access-control-max-age"] == "0", "the service decides once it answers again"
    assert send(refusing, "OPTIONS", path, headers={"Origin": NOT_ALLOWED, **asked}).status_code == status


def test_no_service_is_503_and_readable_for_allowed_origins(tmp_path: Path) -> None:
    path = configured(tmp_path, origins="*")
    with running(Echo) as (address, _):
        variables = settings("mongodb://127.0.0.1:1/unused")
        balancers = ExitStack()
        started = balancers.enter_context(balancing([address] * NODES, variables, configuration=path))
    with balancers:
        until(lambda: send(started, "GET", "/x").status_code == 503, "503 without a service")
        response = send(started, "POST", "/auth", headers={"Origin": ALLOWED})
        assert_problem(response.status_code, response.headers, response.content, "no_service")
        assert int(response.headers["retry-after"]) > 0
        assert response.headers["access-control-allow-origin"] == "*"
        asked = {"Origin": ALLOWED, "Access-Control-Request-Method": "POST"}
        until(lambda: send(started, "OPTIONS", "/auth", headers=asked).status_code == 204, "a successful preflight")


# What is forwarded


def test_the_request_id_is_the_same_at_the_client_and_the_service(balancer: Server) -> None:
    """A well-formed id of the client, or a new one; the services do not make another one."""
    for method in ("GET", "POST"):
        sent = send(balancer, method, "/x", headers={"X-Request-ID": "abc-1.2_3"})
        assert sent.headers["x-request-id"] == sent.json()["x-request-id"] == "abc-1.2_3"
        for malformed in ("", "a b", "x" * 129, '"}'):
            response = send(balancer, method, "/x", headers={"X-Request-ID": malformed})
            assert response.headers["x-request-id"] == response.json()["x-request-id"] != malformed


def test_responses_of_the_service_are_not_changed(balancer: Server) -> None:
    """The service decides about CORS and caching of its own responses."""
    response = send(balancer, "GET", "/x", headers={"Origin": ALLOWED})
    assert response.status_code == 200
    assert not [name for name in response.headers if name.startswith(("access-control", "cache-control", "vary"))]


def test_further_paths_can_be_hidden_from_clients() -> None:
    variables = settings("mongodb://127.0.0.1:1/unused") | {"HIDDEN_PATHS": "docs|users/registration"}
    with running(Echo) as (address, received), balancing([address] * NODES, variables) as started:
        for path in ("/metrics", "/docs", "/docs/openapi.json", "/%64ocs", "//docs/", "/users/registration"):
            assert send(started, "GET", path).status_code == 404
        assert send(started, "GET", "/users/me").status_code == 200
        assert not [line for line in received if "docs" in line]
