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
# Earlier versions have known vulnerabilities, or lack features that the service requires.
MINIMUM_VERSIONS = {"pyjwt": "2.14", "pymongo": "4.18.1", "sanic": "25.12.1", "ujson": "5.4"}
HAPROXY = (CHECKOUT / "deploy" / "haproxy.cfg").read_text()


class Loader(yaml.SafeLoader):  # type: ignore[misc]
    """A YAML loader that accepts `!reset`, with which a compose file removes values of the one before it."""


Loader.add_constructor("!reset", lambda loader, node: loader.construct_sequence(node))


def services(file: str) -> Document:
    """Return the services of a compose file."""
    found: Document = yaml.load((CHECKOUT / file).read_text(), Loader)["services"]  # noqa: S506 - a SafeLoader
    return found


def seconds(name: str) -> int:
    """Return a timeout of the load balancer, in seconds."""
    found = re.search(rf"^ *timeout {name} (\d+)s", HAPROXY, re.MULTILINE)
    assert found, name
    return int(found[1])


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the file that scripts/secrets creates."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "scripts").mkdir()
    shutil.copy(CHECKOUT / "scripts" / "secrets", folder / "scripts")
    subprocess.run([folder / "scripts" / "secrets"], check=True, capture_output=True)
    return folder / ".env"


def values(secrets: Path) -> dict[str, str]:
    """Return the variables in a file of secrets."""
    return dict(line.split("=", 1) for line in secrets.read_text().splitlines() if not line.startswith("#"))


@pytest.fixture(params=[1, 2], ids=["one machine", "cluster"])
def production(request: pytest.FixtureRequest, secrets: Path) -> Config:
    """Give the settings of the service in its container."""
    known = values(secrets)
    environment: dict[str, Any] = {"APP_ENV": "production"}
    for file in COMPOSE[: request.param]:
        environment |= services(file)["api"]["environment"]
    filled = {
        name: OPTIONAL.sub("", REQUIRED.sub(lambda found: known[found[1]], value))
        for name, value in environment.items()
    }
    return load(filled, Path("/nonexistent"))


def test_the_settings_of_the_compose_files_are_valid(production: Config) -> None:
    assert "replicaSet=rs0" in production.MONGO_URI
    assert production.JWT_PREVIOUS_SECRET_KEYS == []
    assert production.FORWARDED_SECRET, "the proxy that terminates TLS needs it"


def test_the_stop_grace_period_covers_the_shutdown(production: Config) -> None:
    grace = int(services(COMPOSE[0])["api"]["stop_grace_period"].removesuffix("s"))
    assert grace >= production.DRAIN_SECONDS + production.GRACEFUL_SHUTDOWN_TIMEOUT + CLOSING_SECONDS


def test_secrets_are_readable_by_their_owner_only_and_are_not_overwritten(secrets: Path) -> None:
    assert stat.S_IMODE(secrets.stat().st_mode) == stat.S_IRUSR | stat.S_IWUSR
    before = secrets.read_text()
    subprocess.run([secrets.parent / "scripts" / "secrets"], check=True, capture_output=True)
    assert secrets.read_text() == before


def test_exactly_the_required_secrets_are_generated(secrets: Path) -> None:
    required = {name for file in COMPOSE for name in REQUIRED.findall((CHECKOUT / file).read_text())}
    assert required == set(values(secrets))
    assert len(set(values(secrets).values())) == len(required), "all secrets differ"


@pytest.mark.parametrize("file", COMPOSE)
def test_compose_files_contain_no_secret(file: str) -> None:
    for name, service in services(file).items():
        for variable, value in service.get("environment", {}).items():
            if re.search("SECRET|PASSWORD|KEY", variable):
                assert REQUIRED.fullmatch(value) or OPTIONAL.fullmatch(value), f"{name}: {variable}"
    assert not re.search(r"://[^$\s]*:[^$\s]*@", (CHECKOUT / file).read_text())


@pytest.mark.parametrize("file", COMPOSE)
def test_containers_have_minimal_privileges(file: str) -> None:
    for name, service in services(file).items():
        if "image" in service:
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name
            assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


def test_the_health_check_of_the_image_checks_liveness(service: Service) -> None:
    """Not readiness: a restart does not help when the database is unavailable."""
    found = re.search(r"HEALTHCHECK.*?'GET', '(/[^']*)'", (CHECKOUT / "Dockerfile").read_text(), re.DOTALL)
    assert found
    assert service("GET", found[1]).json() == {"status": "live"}


def test_the_image_contains_only_the_service() -> None:
    first, *others = [line for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line[:1] != "#"]
    assert first == "*"
    assert {line for line in others if line.startswith("!")} == {"!app", "!config", "!requirements.txt"}


def test_the_load_balancer_limits_match_those_of_the_service(production: Config) -> None:
    assert f"req.body_size gt {production.REQUEST_MAX_SIZE} " in HAPROXY
    assert seconds("server") > production.RESPONSE_TIMEOUT, "the service itself must report the error"
    assert seconds("check") > production.MONGO_TIMEOUT_SECONDS, "readiness waits this long for the database"
    assert seconds("http-keep-alive") < production.KEEP_ALIVE_TIMEOUT
    interval, fall = re.findall(r"check inter (\d+)s fall (\d+)", HAPROXY)[0]
    assert (int(interval) + 1) * int(fall) < production.DRAIN_SECONDS, (
        "the load balancer must detect a stopping service in time"
    )


@pytest.mark.parametrize("package", MINIMUM_VERSIONS)
def test_locked_packages_have_at_least_their_minimum_version(package: str) -> None:
    locked = re.search(rf"^{package}==([\w.]+)", (CHECKOUT / "requirements.txt").read_text(), re.MULTILINE)
    assert locked
    assert Version(locked[1]) >= Version(MINIMUM_VERSIONS[package])


def test_the_api_version_is_the_release_version() -> None:
    assert tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"] == VERSION
    assert f"\n## [{VERSION}] - " in (CHECKOUT / "CHANGELOG.md").read_text()


def test_the_workflow_runs_what_a_developer_runs() -> None:
    """Continuous integration checks the code out, chooses a Python, and calls .ci/run, nothing else."""
    workflow = yaml.safe_load((CHECKOUT / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert [step.get("run") or step["uses"].split("@")[0] for step in job["steps"]] == [
        "actions/checkout",
        "actions/setup-python",
        ".ci/run",
    ]
    assert workflow["permissions"] == {"contents": "read"}


def test_the_package_depends_on_what_the_lock_is_made_of() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["dependencies"] == {"file": ["requirements.in"]}
