"""The feed of ended sessions behind the load balancer, and signing keys of several machines."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import jwt

from tests.cluster.conftest import NODES, Cluster
from tests.conftest import PASSWORD
from tests.processes import TIMEOUT_SECONDS, until
from tests.serving import new_name

FEED = "/.well-known/revocations"
WAIT_SECONDS = 25


def client(url: str) -> httpx.Client:
    """Return a client of a machine or of the load balancer."""
    return httpx.Client(base_url=url, trust_env=False, timeout=WAIT_SECONDS + TIMEOUT_SECONDS)


def claims(page: httpx.Response) -> dict[str, Any]:
    """Return the claims of a page; verifiers check its signature."""
    assert page.status_code == 200, page.text
    content: dict[str, Any] = json.loads(base64.urlsafe_b64decode(page.text.split(".")[1] + "=="))
    return content


def register(http: httpx.Client) -> str:
    """Register a user and return the access token."""
    response = http.post("/users/registration", json={"username": new_name(), "password": PASSWORD})
    assert response.status_code == 201, response.text
    token: str = response.json()["access_token"]
    return token


def test_followers_behind_the_load_balancer_hear_of_an_end_on_any_machine(cluster: Cluster) -> None:
    with client(cluster.balancer.url) as http, ThreadPoolExecutor(3 * NODES) as pool:
        token = register(http)
        session_id = jwt.decode(token, options={"verify_signature": False})["sid"]
        cursor = claims(http.get(FEED))["cursor"]
        query = f"{FEED}?after={cursor}&wait={WAIT_SECONDS}"
        waiting = [pool.submit(http.get, query) for _ in range(3 * NODES)]
        assert http.post("/auth/logout", headers={"Authorization": f"Bearer {token}"}).status_code == 204
        assert all(session_id in claims(page.result())["sessions"] for page in waiting)


def test_all_machines_publish_the_same_keys_and_accept_each_others_tokens(cluster: Cluster) -> None:
    published = []
    with client(f"http://{cluster.nodes[0].address}") as http:
        token = register(http)
    for node in cluster.nodes:
        with client(f"http://{node.address}") as http:
            headers = {"Authorization": f"Bearer {token}"}
            until(lambda: http.get("/tests/secret", headers=headers).status_code == 200, "the key is known")  # noqa: B023
            published.append({key["kid"] for key in http.get("/.well-known/jwks.json").json()["keys"]})
    assert published == [published[0]] * NODES
