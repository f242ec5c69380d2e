"""The image, the compose files and the load balancer's configuration agree with the service and with each other."""

import json
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from packaging.version import Version

from app.openapi.document import VERSION
from app.server.supervisor import CLOSING_SECONDS
from config import Config, load
from tests.conftest import PASSWORD, Document, Service
from tests.processes import TIMEOUT_SECONDS, Command, running, until
from tests.serving import CHECKOUT, WORKERS, environment, new_name
from tools.local_mongo import free_port

COMPOSE = ["docker-compose.yml", "docker-compose.cluster.yml"]
OPTIONAL = re.compile(r"\$\{(\w+):-\}")
MOUNTED = re.compile(r"/run/secrets/(\w+)")
# Earlier versions have known vulnerabilities, or lack features that the service requires.
MINIMUM_VERSIONS = {"pyjwt": "2.14", "pymongo": "4.18.1", "sanic": "25.12.1", "ujson": "5.4"}
BUFFER_RESERVE = 4096  # what the load balancer needs of a buffer for itself: tune.maxrewrite and the index of headers
STOP_SECONDS = 10  # after which `docker stop` kills
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


def folder_of_secrets(checkout: Path, former: str = "") -> Path:
    """Return the folder that scripts/secrets creates, beside a .env of version 1.0 with these lines."""
    (checkout / "scripts").mkdir()
    shutil.copy(CHECKOUT / "scripts" / "secrets", checkout / "scripts")
    if former:
        (checkout / ".env").write_text(former)
    subprocess.run([checkout / "scripts" / "secrets"], check=True, capture_output=True)
    return checkout / "secrets"


def number(name: str) -> int:
    """Return the first value of a keyword of the load balancer's configuration."""
    found = re.search(rf"^ *{re.escape(name)} (\d+)", HAPROXY, re.MULTILINE)
    assert found, name
    return int(found[1])


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder that scripts/secrets creates."""
    return folder_of_secrets(tmp_path_factory.mktemp("checkout"))


def mounted(cluster: bool) -> dict[str, str]:
    """Return the file of each secret that Compose mounts."""
    files: dict[str, str] = {}
    for file in COMPOSE[: 2 if cluster else 1]:
        found = yaml.load((CHECKOUT / file).read_text(), Loader)["secrets"]  # noqa: S506 - a SafeLoader
        files |= {name: one["file"] for name, one in found.items()}
    return files


def pairs(instruction: str) -> dict[str, str]:
    """Return the names and values of all instructions of this kind in the Dockerfile."""
    text = (CHECKOUT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = re.findall(rf"^{instruction} (.*)$", text, re.MULTILINE)
    return dict(pair.split("=", 1) for line in lines for pair in shlex.split(line))


def image_variables() -> dict[str, str]:
    """Return the settings in the environment of the image."""
    return {name: value for name, value in pairs("ENV").items() if name.startswith("APP_")}


@pytest.fixture(params=[1, 2], ids=["one machine", "cluster"])
def production(request: pytest.FixtureRequest, secrets: Path) -> Config:
    """Give the settings of the service in its container."""
    environment = image_variables()
    for file in COMPOSE[: request.param]:
        environment |= services(file)["api"]["environment"]
    files = mounted(cluster=request.param == 2)
    filled: dict[str, str] = {}
    for name, value in environment.items():
        if path := MOUNTED.fullmatch(value):
            filled[name.removesuffix("_FILE")] = (secrets.parent / files[path[1]]).read_text().strip()
        elif not OPTIONAL.fullmatch(value):
            filled[name] = value
    return load(filled, Path("/nonexistent"))


def test_the_settings_of_the_compose_files_are_valid(production: Config) -> None:
    assert "replicaSet=rs0" in production.MONGO_URI
    assert production.JWT_PREVIOUS_SECRET_KEYS == []
    assert production.FORWARDED_SECRET, "the proxy that terminates TLS needs it"


def test_the_stop_grace_period_covers_the_shutdown(production: Config, request: pytest.FixtureRequest) -> None:
    """Of every service, and with the default of 10 seconds where a Compose file names none."""
    cluster = "cluster" in request.node.callspec.id
    found = [one for name, one in services(COMPOSE[cluster]).items() if name.startswith("api")]
    assert len(found) == (3 if cluster else 1)
    for one in found:
        grace = int(one.get("stop_grace_period", "10s").removesuffix("s"))
        assert grace >= production.DRAIN_SECONDS + production.GRACEFUL_SHUTDOWN_TIMEOUT + CLOSING_SECONDS


def test_only_the_owner_can_enter_the_folder_of_secrets_which_is_not_overwritten(secrets: Path) -> None:
    """The users of the containers, who have other ids, can read the files: Compose mounts each of them alone."""
    assert stat.S_IMODE(secrets.stat().st_mode) == stat.S_IRWXU
    assert {stat.S_IMODE(file.stat().st_mode) for file in secrets.iterdir()} == {0o644}
    before = {file: file.read_text() for file in secrets.iterdir()}
    subprocess.run([secrets.parent / "scripts" / "secrets"], check=True, capture_output=True)
    assert {file: file.read_text() for file in secrets.iterdir()} == before


def test_exactly_the_mounted_secrets_are_generated(secrets: Path) -> None:
    files = {*mounted(cluster=False).values(), *mounted(cluster=True).values()}
    assert {f"./secrets/{file.name}" for file in secrets.iterdir()} == files
    values = {file.name: file.read_text().strip() for file in secrets.iterdir()}
    assert values.pop("jwt_previous_secret_keys") == ""
    assert len(set(values.values())) == len(values), "all secrets differ"
    assert all(len(value) >= 64 for value in values.values())
    assert values["mongo_api_password"] in values["mongo_uri"]


def test_the_secrets_of_an_earlier_version_are_taken_over(tmp_path: Path) -> None:
    """A database keeps the passwords of its first start, and sessions need the key."""
    former = {
        "APP_JWT_SECRET_KEY": "key-of-1.0",
        "APP_JWT_PREVIOUS_SECRET_KEYS": "one,another",
        "APP_FORWARDED_SECRET": "proxy-of-1.0",
        "MONGO_API_PASSWORD": "api-of-1.0",
        "MONGO_ROOT_PASSWORD": "root-of-1.0",
    }
    folder = folder_of_secrets(tmp_path, "".join(f"{name}={value}\n" for name, value in former.items()))
    for name, value in former.items():
        assert (folder / name.removeprefix("APP_").lower()).read_text() == f"{value}\n"
    assert "api:api-of-1.0@db,db2,db3/" in (folder / "mongo_uri_cluster").read_text()
    assert len((folder / "mongo_key").read_text()) == 65, "a value that is missing is random"


@pytest.mark.parametrize("file", COMPOSE)
def test_compose_files_contain_no_secret(file: str) -> None:
    """And no secret is in the environment of a container, which `docker inspect` shows: each is a mounted file."""
    text = (CHECKOUT / file).read_text()
    known = mounted(cluster=True)
    for name, service in services(file).items():
        for variable, value in service.get("environment", {}).items():
            if re.search("SECRET|PASSWORD|KEY|URI|TOKEN", variable):
                assert variable.endswith("_FILE"), f"{name}: {variable}"
                assert OPTIONAL.fullmatch(value) or MOUNTED.fullmatch(value), f"{name}: {variable}"
            if path := MOUNTED.fullmatch(str(value)):
                assert path[1] in service["secrets"], f"{name}: {variable}"
        assert set(service.get("secrets", [])) <= set(known), name
    assert not re.search(r"://[^\s]*:[^\s]*@", text)
    assert set(re.findall(r"\$\{(\w+)", text)) <= {"APP_JWT_PREVIOUS_SECRET_KEYS_FILE"}, "the path of a file"


def test_the_health_check_of_the_database_reads_mounted_secrets() -> None:
    script = (CHECKOUT / "deploy" / "replica_set.js").read_text()
    read = set(re.findall(r"secret\('(\w+)'\)", script))
    assert read == {"mongo_root_password", "mongo_api_password"}
    assert read <= set(services(COMPOSE[0])["db"]["secrets"])
    assert set(re.findall(r"process\.env\.(\w+)", script)) == {"MONGO_MEMBERS"}


@pytest.mark.parametrize("file", COMPOSE)
def test_containers_that_accept_connections_have_enough_open_files(file: str) -> None:
    """The default of many Docker daemons is 1024 or 1048576, which is too few or a surprise."""
    for name, service in services(file).items():
        if "image" in service:
            assert service["ulimits"]["nofile"] >= 64_000, name


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


@contextmanager
def container(mongo_uri: str) -> Iterator[tuple[Command, int]]:
    """Run the command of the image with its settings, and wait until it is ready."""
    command = re.search(r"^CMD (\[.*\])$", (CHECKOUT / "Dockerfile").read_text(), re.MULTILINE)
    assert command
    port = free_port()
    local = command[1].replace("--host=0.0.0.0", "--host=127.0.0.1").replace("8000", str(port))
    program, *arguments = json.loads(local)
    program = str(Path(sys.prefix) / "bin" / program)
    with running([program, *arguments], cwd=CHECKOUT, env=environment(mongo_uri) | image_variables()) as started:
        started.wait_for(f"http://127.0.0.1:{port}/health/ready")
        until(lambda: started.output.count("Worker ready") == WORKERS, "every worker is ready")
        yield started, port


@pytest.mark.parametrize("completes", [True, False], ids=["a request that completes", "a client that never does"])
def test_docker_stop_ends_the_container_in_time(mongo_uri: str, *, completes: bool) -> None:
    """Before the kill and with exit code 0; a request in progress is completed if its client sends the rest."""
    body = json.dumps({"username": new_name(), "password": PASSWORD}).encode()
    head = f"POST /auth HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    with container(mongo_uri) as (started, port), socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(TIMEOUT_SECONDS)
        client.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert client.recv(1024).startswith(b"HTTP/1.1 100"), "the request is in progress"
        began = time.monotonic()
        started.send(signal.SIGTERM)
        if completes:
            until(lambda: not accepts(port), "no further connections")
            client.sendall(body)
            assert client.recv(1024).startswith(b"HTTP/1.1 401")
        until(lambda: started.output.count("Worker complete") == WORKERS, "the end of all workers")
        assert time.monotonic() - began < STOP_SECONDS - 2, "a margin for the end of the processes"
        assert started.wait() == 0, started.output
        assert "Traceback" not in started.output, started.output


def accepts(port: int) -> bool:
    """Return whether the service accepts connections."""
    with socket.socket() as probe:
        accepted: bool = probe.connect_ex(("127.0.0.1", port)) == 0
        return accepted


def test_the_labels_of_the_image_are_those_of_the_project() -> None:
    """In the names of the OCI image specification, annotations."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    prefix = "org.opencontainers.image"
    assert pairs("LABEL") == {
        f"{prefix}.title": project["name"],
        f"{prefix}.description": project["description"],
        f"{prefix}.version": project["version"],
        f"{prefix}.licenses": project["license"],
        f"{prefix}.revision": "${REVISION}",
    }


def test_the_image_contains_only_the_service() -> None:
    first, *others = [line for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line[:1] != "#"]
    assert first == "*"
    assert {line for line in others if line.startswith("!")} == {"!app", "!config", "!requirements.txt"}


def test_the_load_balancer_limits_match_those_of_the_service(production: Config) -> None:
    assert f"req.body_size gt {production.REQUEST_MAX_SIZE} " in HAPROXY
    largest = production.REQUEST_MAX_SIZE + production.REQUEST_MAX_HEADER_SIZE
    assert number("tune.bufsize") > largest + BUFFER_RESERVE, "the largest request fits into one buffer"
    assert seconds("server") > production.RESPONSE_TIMEOUT, "the service itself must report the error"
    assert seconds("check") > production.MONGO_TIMEOUT_SECONDS, "readiness waits this long for the database"
    assert seconds("http-keep-alive") < production.KEEP_ALIVE_TIMEOUT


def test_the_load_balancer_limit_of_bodies_is_the_default_of_the_service() -> None:
    limit = Config.model_fields["REQUEST_MAX_SIZE"].default
    assert [int(found) for found in re.findall(r"req\.body_size gt (\d+)", HAPROXY)] == [limit]


@pytest.mark.parametrize("production", [2], indirect=True, ids=["cluster"])
def test_the_load_balancer_detects_a_stopping_service_in_time(production: Config) -> None:
    interval, fall = re.findall(r"check inter (\d+)s fall (\d+)", HAPROXY)[0]
    assert (int(interval) + 1) * int(fall) < production.DRAIN_SECONDS


def test_the_load_balancer_has_enough_open_files() -> None:
    """Each of its connections has a client and a service at its ends."""
    limit = services(COMPOSE[1])["load_balancer"]["ulimits"]["nofile"]
    assert limit > 2 * number("maxconn") + 1000


def test_the_compose_file_mounts_all_files_of_the_load_balancer() -> None:
    """Under the path of its configuration, in which it looks for the others."""
    balancer = services(COMPOSE[1])["load_balancer"]
    assert balancer["volumes"] == ["./deploy:/usr/local/etc/haproxy:ro"]
    assert balancer["command"][-2:] == ["-f", "/usr/local/etc/haproxy/haproxy.cfg"]
    assert "default-path config" in HAPROXY
    named = re.findall(r"[a-z_]+\.(?:lua|lst)", HAPROXY)
    assert all((CHECKOUT / "deploy" / file).exists() for file in named)


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
