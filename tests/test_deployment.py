"""The image, the compose files and the load balancer's configuration agree with the service and with each other."""

import re
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from packaging.version import Version

from app.openapi.document import VERSION
from app.server.supervisor import CLOSING_SECONDS
from config import Config, load
from tests.conftest import Document, Service
from tests.serving import CHECKOUT

COMPOSE = ["docker-compose.yml", "docker-compose.cluster.yml"]
REQUIRED = re.compile(r"\$\{(\w+):\?[^}]*\}")
OPTIONAL = re.compile(r"\$\{(\w+):-\}")
# Earlier ones have known holes, or lack what the service stands on.
FLOORS = {"pyjwt": "2.14", "pymongo": "4.18.1", "sanic": "25.12.1", "ujson": "5.4"}
HAPROXY = (CHECKOUT / "deploy" / "haproxy.cfg").read_text()


class Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML with the tag by which a compose file takes back what the one before it said."""


Loader.add_constructor("!reset", lambda loader, node: loader.construct_sequence(node))


def services(file: str) -> Document:
    """Return the services of a compose file."""
    found: Document = yaml.load((CHECKOUT / file).read_text(), Loader)["services"]  # noqa: S506 - a SafeLoader
    return found


def seconds(name: str) -> int:
    """Return a timeout of the load balancer."""
    found = re.search(rf"^ *timeout {name} (\d+)s", HAPROXY, re.MULTILINE)
    assert found, name
    return int(found[1])


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give what scripts/secrets makes."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "scripts").mkdir()
    shutil.copy(CHECKOUT / "scripts" / "secrets", folder / "scripts")
    subprocess.run([folder / "scripts" / "secrets"], check=True, capture_output=True)
    return folder / ".env"


def values(secrets: Path) -> dict[str, str]:
    """Return what it holds."""
    return dict(line.split("=", 1) for line in secrets.read_text().splitlines() if not line.startswith("#"))


@pytest.fixture(params=[1, 2], ids=["one machine", "cluster"])
def production(request: pytest.FixtureRequest, secrets: Path) -> Config:
    """Give the settings that the service finds in its container."""
    known = values(secrets)
    environment: dict[str, Any] = {"APP_ENV": "production"}
    for file in COMPOSE[: request.param]:
        environment |= services(file)["api"]["environment"]
    filled = {
        name: OPTIONAL.sub("", REQUIRED.sub(lambda found: known[found[1]], value))
        for name, value in environment.items()
    }
    return load(filled, Path("/nonexistent"))


def test_the_service_starts_with_what_the_compose_files_tell_it(production: Config) -> None:
    assert "replicaSet=rs0" in production.MONGO_URI
    assert production.JWT_PREVIOUS_SECRET_KEYS == []
    assert production.FORWARDED_SECRET, "for the proxy that ends TLS"


def test_it_is_killed_only_after_it_could_have_finished(production: Config) -> None:
    grace = int(services(COMPOSE[0])["api"]["stop_grace_period"].removesuffix("s"))
    assert grace >= production.DRAIN_SECONDS + production.GRACEFUL_SHUTDOWN_TIMEOUT + CLOSING_SECONDS


def test_secrets_are_for_their_owner_and_stay(secrets: Path) -> None:
    assert stat.S_IMODE(secrets.stat().st_mode) == stat.S_IRUSR | stat.S_IWUSR
    before = secrets.read_text()
    subprocess.run([secrets.parent / "scripts" / "secrets"], check=True, capture_output=True)
    assert secrets.read_text() == before


def test_every_secret_that_is_asked_for_is_made_and_no_other(secrets: Path) -> None:
    asked_for = {name for file in COMPOSE for name in REQUIRED.findall((CHECKOUT / file).read_text())}
    assert asked_for == set(values(secrets))
    assert len(set(values(secrets).values())) == len(asked_for), "each of its own"


@pytest.mark.parametrize("file", COMPOSE)
def test_no_secret_is_written_down(file: str) -> None:
    for name, service in services(file).items():
        for variable, value in service.get("environment", {}).items():
            if re.search("SECRET|PASSWORD|KEY", variable):
                assert REQUIRED.fullmatch(value) or OPTIONAL.fullmatch(value), f"{name}: {variable}"
    assert not re.search(r"://[^$\s]*:[^$\s]*@", (CHECKOUT / file).read_text())


@pytest.mark.parametrize("file", COMPOSE)
def test_containers_may_do_little(file: str) -> None:
    for name, service in services(file).items():
        if "image" in service:
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name
            assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


def test_the_image_asks_whether_it_lives(service: Service) -> None:
    """Not whether it is ready: without its database it would be restarted for nothing."""
    found = re.search(r"HEALTHCHECK.*?'GET', '(/[^']*)'", (CHECKOUT / "Dockerfile").read_text(), re.DOTALL)
    assert found
    assert service("GET", found[1]).json() == {"status": "live"}


def test_nothing_but_the_service_gets_into_the_image() -> None:
    first, *others = [line for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line[:1] != "#"]
    assert first == "*"
    assert {line for line in others if line.startswith("!")} == {"!app", "!config", "!requirements.txt"}


def test_the_load_balancer_fits_the_service(production: Config) -> None:
    assert f"req.body_size gt {production.REQUEST_MAX_SIZE} " in HAPROXY
    assert seconds("server") > production.RESPONSE_TIMEOUT, "so that it is the service that says what went wrong"
    assert seconds("check") > production.MONGO_TIMEOUT_SECONDS, "for which readiness may wait"
    assert seconds("http-keep-alive") < production.KEEP_ALIVE_TIMEOUT
    interval, fall = re.findall(r"check inter (\d+)s fall (\d+)", HAPROXY)[0]
    assert (int(interval) + 1) * int(fall) < production.DRAIN_SECONDS, "it notices a stop in time"


@pytest.mark.parametrize("package", FLOORS)
def test_no_package_is_older_than_it_may_be(package: str) -> None:
    locked = re.search(rf"^{package}==([\w.]+)", (CHECKOUT / "requirements.txt").read_text(), re.MULTILINE)
    assert locked
    assert Version(locked[1]) >= Version(FLOORS[package])


def test_the_version_that_the_api_shows_is_that_of_the_release() -> None:
    assert tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"] == VERSION
    assert f"\n## [{VERSION}] - " in (CHECKOUT / "CHANGELOG.md").read_text()
