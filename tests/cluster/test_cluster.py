"""Tests that the cluster behaves as one service while a part of it is lost or restarted."""

import json
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import httpx
import pytest

from tests.cluster.conftest import NODES, Cluster, Node, balancing, settings
from tests.cluster.stubs import Unresponsive, running
from tests.conftest import PASSWORD, Document
from tests.faults.conftest import Load, Server
from tests.faults.test_processes import ready_workers
from tests.processes import TIMEOUT_SECONDS, until
from tests.serving import new_name
from tests.test_workers import Connection

CALM_SECONDS = 3  # of load before and after a fault
LOGOUT_SECONDS = 2  # the maximum time until a logout takes effect on every service
FAILURES = 10  # LOGIN_FAILURES_PER_PAIR
BODY_BYTES = 32_768  # REQUEST_MAX_SIZE
ARRIVAL_SECONDS = 15  # timeout http-request of the load balancer
WRONG_PASSWORD = "not the password of any user"

Note = Callable[[str], None]


def test_a_rolling_restart_fails_no_request(cluster: Cluster, note: Note) -> None:
    with Load(cluster.balancer) as load:
        time.sleep(CALM_SECONDS)
        for node in cluster.nodes:
            began = time.monotonic()
            with cluster.wait_for_status(node, "DOWN"):
                output = node.stop()
            assert "Traceback" not in output, output
            note(f"{node.name} drained and ended with exit code 0 after {time.monotonic() - began:.1f} s")
            cluster.restart(node)
        time.sleep(CALM_SECONDS)
    note(load.report())
    assert {response.status for response in load.responses} <= {200, 201, 204}
    load.assert_acknowledged_writes()


def test_the_loss_of_a_database_service_or_worker_loses_no_acknowledged_write(cluster: Cluster, note: Note) -> None:
    first, second, _ = cluster.nodes
    with Load(cluster.balancer) as load:
        faults: dict[str, Callable[[], None]] = {
            "no fault": lambda: None,
            "loss of the primary database": partial(replace_primary, cluster),
            "loss of a service": partial(replace_service, cluster, first),
            "loss of a worker": partial(replace_worker, second.server),
        }
        ends = [time.monotonic()]
        for inject in faults.values():
            inject()
            time.sleep(CALM_SECONDS)
            ends.append(time.monotonic())
    for fault, began, ended in zip(faults, ends, ends[1:], strict=False):
        note(f"{fault}: {failures(load, began, ended)}")
    note(load.report())
    assert {response.status for response in load.responses} <= {200, 201, 204, 502, 503}
    assert all(response.retry_after for response in load.responses if response.status == 503)
    hello = [response.status for response in load.responses if response.route == "/tests/hello"]
    assert all(status == 200 for status in hello), "GET requests are retried"
    load.assert_acknowledged_writes()


def replace_primary(cluster: Cluster) -> None:
    primary = cluster.replica_set.primary()
    primary.kill()
    cluster.replica_set.primary()
    time.sleep(CALM_SECONDS)
    primary.start()


def replace_service(cluster: Cluster, node: Node) -> None:
    with cluster.wait_for_status(node, "DOWN"):
        node.kill()
    cluster.restart(node)


def replace_worker(server: Server) -> None:
    known = ready_workers(server)
    os.kill(known[-1], signal.SIGKILL)
    until(lambda: len(ready_workers(server)) > len(known), "a replacement worker")


def failures(load: Load, began: float, ended: float) -> str:
    """Return a summary of the failed requests among those that ended in this interval."""
    statuses = Counter(one.status for one in load.responses if began <= one.sent_at + one.seconds < ended)
    failed = sum(number for status, number in statuses.items() if status not in (200, 201, 204))
    share = failed / max(statuses.total(), 1)  # on a busy machine no request may have ended
    return f"{failed} of {statuses.total()} requests failed ({share:.1%}) {dict(statuses)}"


def test_a_logout_through_any_service_takes_effect_on_every_service(cluster: Cluster, note: Note) -> None:
    with ExitStack() as opened:
        workers = [one for node in cluster.nodes for one in opened.enter_context(node.server.each_worker())]
        for node in cluster.nodes:
            token = register(cluster.balancer)["access_token"]
            assert statuses(workers, token) == {200}
            assert node.server.post("/auth/logout", token).status_code == 204
            began = time.monotonic()
            secret = partial(statuses, workers, token)
            until(lambda: secret() == {401}, "401 from every worker", seconds=LOGOUT_SECONDS)  # noqa: B023 - called here
            note(f"logout through {node.name}: 401 from every worker after {time.monotonic() - began:.2f} s")


def register(server: Server) -> Document:
    """Register a new user and return the tokens."""
    tokens: Document = server.post("/users/registration", username=new_name(), password=PASSWORD).json()
    return tokens


def statuses(workers: list[Connection], token: str) -> set[int]:
    """Return the statuses of GET /tests/secret from these workers."""
    return {worker.secret(token) for worker in workers}


def test_the_load_balancer_removes_addresses_that_clients_send(cluster: Cluster) -> None:
    """Otherwise an attacker who guesses passwords could send a new address with each request."""
    username = new_name()
    cluster.balancer.post("/users/registration", username=username, password=PASSWORD)
    for number in range(FAILURES):
        address = f"203.0.113.{number}"
        headers = {"X-Forwarded-For": address, "X-Real-IP": address, "Forwarded": f"for={address};secret=guessed"}
        assert log_in(cluster.balancer, username, headers=headers).status_code == 401
    assert log_in(cluster.balancer, username).status_code == 429


def test_services_distinguish_clients_by_their_forwarded_address(cluster: Cluster) -> None:
    """The load balancer forwards the client address, because all its own requests come from one address."""
    username = new_name()
    cluster.balancer.post("/users/registration", username=username, password=PASSWORD)
    for _ in range(FAILURES):
        assert log_in(cluster.balancer, username).status_code == 401
    assert log_in(cluster.balancer, username).status_code == 429
    assert log_in(cluster.balancer, username, own_address="127.0.0.2").status_code == 401


def log_in(
    server: Server, username: str, *, own_address: str = "127.0.0.1", headers: dict[str, str] | None = None
) -> httpx.Response:
    """Send a login with a wrong password from a loopback address."""
    transport = httpx.HTTPTransport(local_address=own_address)
    with httpx.Client(transport=transport, timeout=TIMEOUT_SECONDS) as client:
        body = {"username": username, "password": WRONG_PASSWORD}
        return client.post(f"{server.url}/auth", json=body, headers=headers)


def test_a_service_ignores_forwarded_addresses_without_the_secret(cluster: Cluster) -> None:
    """Also in requests that do not come through the load balancer."""
    username = new_name()
    server = cluster.nodes[0].server
    server.post("/users/registration", username=username, password=PASSWORD)
    for number in range(FAILURES):
        headers = {"X-Forwarded-For": f"203.0.113.{number}", "Forwarded": f"for=203.0.113.{number};secret=guessed"}
        assert log_in(server, username, headers=headers).status_code == 401
    assert log_in(server, username).status_code == 429


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "//metrics", "/%6Detrics", "/METRICS", "/metrics?a=b"])
def test_metrics_are_not_available_to_clients(cluster: Cluster, path: str) -> None:
    response = cluster.balancer.get(path)
    assert response.status_code == 404
    assert "# HELP" not in response.text
    assert_problem(response, "not_found")


def test_the_load_balancer_rejects_large_bodies_like_the_service(cluster: Cluster) -> None:
    for server in (cluster.balancer, cluster.nodes[0].server):
        url, body = f"{server.url}/auth", b"x" * (BODY_BYTES + 1)
        response = httpx.post(url, content=body, trust_env=False, timeout=TIMEOUT_SECONDS)
        assert response.status_code == 413
        assert_problem(response, "payload_too_large")


def test_the_load_balancer_closes_slow_requests(cluster: Cluster) -> None:
    """Before it forwards them to a service."""
    host, port = cluster.balancer.url.removeprefix("http://").split(":")
    head = b"POST /auth HTTP/1.1\r\nHost: api\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.settimeout(1)
        connection.sendall(head)
        response, began = b"", time.monotonic()
        while not response:
            assert time.monotonic() - began < ARRIVAL_SECONDS + 5
            try:
                response = connection.recv(65536)
            except TimeoutError:
                connection.sendall(b" ")
    assert response.startswith(b"HTTP/1.1 408 ")
    assert json.loads(response.partition(b"\r\n\r\n")[2])["code"] == "request_timeout"


def test_a_request_without_a_response_is_repeated_if_its_method_is_safe_and_is_502_otherwise() -> None:
    """Also if it is not the first request of the client's connection; the client keeps its connection."""
    with (
        running(Unresponsive) as (address, received),
        balancing([address] * NODES, settings("mongodb://127.0.0.1:1/unused")) as balancer,
        httpx.Client(base_url=balancer.url, trust_env=False, timeout=TIMEOUT_SECONDS) as client,
    ):
        connections = set()
        for path in ("/first", "/second"):
            for method in ("GET", "OPTIONS"):
                response = client.request(method, path)
                assert response.status_code == 200
                assert received[f"{method} {path} HTTP/1.1"] == 2
            connections.add(response.extensions["network_stream"].get_extra_info("client_addr"))
            response = client.post(path, json={})
            assert response.status_code == 502
            assert_problem(response, "bad_gateway")
            assert received[f"POST {path} HTTP/1.1"] == 1
        assert len(connections) == 1
        until(lambda: balancer.command.output.count(" 502 ") == 2, "a log line for each 502 response")


def assert_problem(response: httpx.Response, code: str) -> None:
    """Fail if the response is not a problem details document with this code (RFC 9457)."""
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["code"] == code
    assert problem["status"] == response.status_code
    assert problem["request_id"]
