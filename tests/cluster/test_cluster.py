"""Three databases, three services and their load balancer are one service, whichever of them is lost or restarted."""

import json
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import httpx
import pytest

from tests.cluster.conftest import Cluster, Node
from tests.conftest import PASSWORD, Document
from tests.faults.conftest import Load, Server
from tests.faults.test_processes import ready_workers
from tests.processes import until
from tests.serving import new_name

CALM_SECONDS = 3  # of ordinary service before and after a loss
KNOWN_SECONDS = 2  # within which every service knows of a logout
ASKED = 10  # often enough to meet both workers of a service
FAILURES = 10  # LOGIN_FAILURES_PER_PAIR
BODY_BYTES = 1_000_000  # REQUEST_MAX_SIZE
ARRIVAL_SECONDS = 15  # the load balancer's timeout http-request
WRONG = "no sentence of anybody here"

Note = Callable[[str], None]


def test_one_service_after_the_other_restarts_and_no_request_fails(cluster: Cluster, note: Note) -> None:
    with Load(cluster.balancer) as load:
        time.sleep(CALM_SECONDS)
        for node in cluster.nodes:
            began = time.monotonic()
            with cluster.noticing(node, "DOWN"):
                output = node.stop()
            assert "Traceback" not in output, output
            note(f"{node.name} drained and ended with 0 within {time.monotonic() - began:.1f} s")
            cluster.restart(node)
        time.sleep(CALM_SECONDS)
    note(load.report())
    assert {answer.status for answer in load.answers} <= {200, 201, 204}
    load.check_memory()


def test_one_of_each_is_killed_and_nothing_acknowledged_is_lost(cluster: Cluster, note: Note) -> None:
    first, second, _ = cluster.nodes
    with Load(cluster.balancer) as load:
        losses: dict[str, Callable[[], None]] = {
            "nothing": lambda: None,
            "the primary database": partial(replace_primary, cluster),
            "a whole service": partial(replace_service, cluster, first),
            "a worker": partial(replace_worker, second.server),
        }
        ends = [time.monotonic()]
        for lose in losses.values():
            lose()
            time.sleep(CALM_SECONDS)
            ends.append(time.monotonic())
    for lost, began, ended in zip(losses, ends, ends[1:], strict=False):
        note(f"{lost} lost: {share(load, began, ended)}")
    note(load.report())
    assert {answer.status for answer in load.answers} <= {200, 201, 204, 502, 503}
    assert all(answer.retry_after for answer in load.answers if answer.status == 503)
    assert all(answer.status == 200 for answer in load.answers if answer.route == "/tests/hello"), "it was tried again"
    load.check_memory()


def replace_primary(cluster: Cluster) -> None:
    primary = cluster.replica_set.primary()
    primary.kill()
    cluster.replica_set.primary()
    time.sleep(CALM_SECONDS)
    primary.start()


def replace_service(cluster: Cluster, node: Node) -> None:
    with cluster.noticing(node, "DOWN"):
        node.kill()
    cluster.restart(node)


def replace_worker(server: Server) -> None:
    known = ready_workers(server)
    os.kill(known[-1], signal.SIGKILL)
    until(lambda: len(ready_workers(server)) > len(known), "another worker")


def share(load: Load, began: float, ended: float) -> str:
    """Say what share of the requests that were answered between failed."""
    statuses = Counter(answer.status for answer in load.answers if began <= answer.at + answer.seconds < ended)
    failed = sum(number for status, number in statuses.items() if status not in (200, 201, 204))
    return f"{failed} of {statuses.total()} requests failed ({failed / statuses.total():.1%}) {dict(statuses)}"


def test_after_a_logout_through_any_service_every_service_refuses(cluster: Cluster, note: Note) -> None:
    for node in cluster.nodes:
        tokens = register(cluster.balancer)
        assert asked(cluster, tokens) == {200}
        assert node.server.post("/auth/logout", tokens["access_token"]).status_code == 204
        began = time.monotonic()
        refused = partial(asked, cluster, tokens)
        until(lambda: refused() == {401}, "everybody's refusal", seconds=KNOWN_SECONDS)  # noqa: B023 - it waits here
        note(f"logged out through {node.name}: refused everywhere after {time.monotonic() - began:.2f} s")
        time.sleep(max(0.0, began + KNOWN_SECONDS - time.monotonic()))
        assert asked(cluster, tokens) == {401}


def register(server: Server) -> Document:
    """Return the tokens of somebody new."""
    tokens: Document = server.post("/users/registration", username=new_name(), password=PASSWORD).json()
    return tokens


def asked(cluster: Cluster, tokens: Document) -> set[int]:
    """Return what all services answer."""
    return set().union(*(statuses(node.server, tokens) for node in cluster.nodes))


def statuses(server: Server, tokens: Document) -> set[int]:
    """Return what a service answers to whoever has the token."""
    return {server.get("/tests/secret", tokens["access_token"]).status_code for _ in range(ASKED)}


def test_what_a_client_says_of_its_own_address_is_not_believed(cluster: Cluster) -> None:
    """Else whoever guesses passwords would come from a new address each time."""
    username = new_name()
    cluster.balancer.post("/users/registration", username=username, password=PASSWORD)
    for number in range(FAILURES):
        elsewhere = f"203.0.113.{number}"
        claims = {"X-Forwarded-For": elsewhere, "X-Real-IP": elsewhere, "Forwarded": f"for={elsewhere};secret=guessed"}
        assert log_in(cluster.balancer, username, claims=claims).status_code == 401
    assert log_in(cluster.balancer, username).status_code == 429


def test_two_clients_are_two_to_the_services(cluster: Cluster) -> None:
    """The load balancer says who they are: it has one address itself."""
    username = new_name()
    cluster.balancer.post("/users/registration", username=username, password=PASSWORD)
    for _ in range(FAILURES):
        assert log_in(cluster.balancer, username).status_code == 401
    assert log_in(cluster.balancer, username).status_code == 429
    assert log_in(cluster.balancer, username, own_address="127.0.0.2").status_code == 401


def log_in(
    server: Server, username: str, *, own_address: str = "127.0.0.1", claims: dict[str, str] | None = None
) -> httpx.Response:
    """Try a wrong password from a loopback address."""
    transport = httpx.HTTPTransport(local_address=own_address)
    with httpx.Client(transport=transport, timeout=20) as client:
        return client.post(f"{server.url}/auth", json={"username": username, "password": WRONG}, headers=claims)


def test_a_service_believes_nobody_without_the_secret(cluster: Cluster) -> None:
    """Not even who reaches it without the load balancer."""
    username = new_name()
    server = cluster.nodes[0].server
    server.post("/users/registration", username=username, password=PASSWORD)
    for number in range(FAILURES):
        claims = {"X-Forwarded-For": f"203.0.113.{number}", "Forwarded": f"for=203.0.113.{number};secret=guessed"}
        assert log_in(server, username, claims=claims).status_code == 401
    assert log_in(server, username).status_code == 429


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "//metrics", "/%6Detrics", "/METRICS", "/metrics?a=b"])
def test_the_numbers_are_not_for_clients(cluster: Cluster, path: str) -> None:
    response = cluster.balancer.get(path)
    assert response.status_code == 404
    assert "# HELP" not in response.text
    assert_problem(response, "not_found")


def test_a_body_that_is_too_large_is_refused_as_the_service_does(cluster: Cluster) -> None:
    for server in (cluster.balancer, cluster.nodes[0].server):
        response = httpx.post(f"{server.url}/auth", content=b"x" * (BODY_BYTES + 1), trust_env=False)
        assert response.status_code == 413
        assert_problem(response, "payload_too_large")


def test_a_request_that_drips_is_given_up(cluster: Cluster) -> None:
    """Before a service is troubled with it."""
    host, port = cluster.balancer.url.removeprefix("http://").split(":")
    head = b"POST /auth HTTP/1.1\r\nHost: api\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    with socket.create_connection((host, int(port))) as drip:
        drip.settimeout(1)
        drip.sendall(head)
        answer, began = b"", time.monotonic()
        while not answer:
            assert time.monotonic() - began < ARRIVAL_SECONDS + 5
            try:
                answer = drip.recv(65536)
            except TimeoutError:
                drip.sendall(b" ")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "request_timeout"


def assert_problem(response: httpx.Response, code: str) -> None:
    """Fail unless it has the shape of all refusals (RFC 9457)."""
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["code"] == code
    assert problem["status"] == response.status_code
    assert problem["request_id"]
