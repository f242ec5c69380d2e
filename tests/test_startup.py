"""Starts that cannot work: one line that names the setting, the option or the variable, and no traceback."""

import json
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.server import startup
from tests.processes import TIMEOUT_SECONDS, until
from tests.serving import CHECKOUT, SANIC, environment, started
from tools.local_mongo import free_port

NOWHERE = "mongodb://127.0.0.1:9/x"
ELSEWHERE = "192.0.2.1"  # an address of no machine (RFC 5737)
SERVE = ("--port={port}", "--no-motd")


def start(*arguments: str, command: str = SANIC, **variables: str) -> tuple[int, list[str]]:
    """Run a start that fails, and return its exit code and the lines of its output."""
    settings = environment(NOWHERE) | {"APP_MONGO_TIMEOUT_SECONDS": "0.3"} | variables
    port = str(free_port())
    result = subprocess.run(
        [command, *(argument.replace("{port}", port) for argument in arguments)],
        cwd=CHECKOUT,
        env=settings,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    output = result.stdout + result.stderr
    assert "Traceback" not in output, output
    assert "Uncaught" not in output, output
    return result.returncode, output.splitlines()


@pytest.mark.parametrize(
    ("arguments", "variables", "line"),
    [
        (("app", *SERVE, "--workers=2"), {"APP_MONGO_URI": f"{NOWHERE}?tls=true&tlsCAFile=/no/such.pem"}, "tlsCAFile"),
        (("app", "exec", "list-users"), {"APP_MONGO_URI": f"{NOWHERE}?tlsCAFile=/no/such.pem"}, "tlsCAFile"),
        (("app", *SERVE, "--single-process"), {"APP_LOG_FORMAT": "xml"}, "APP_LOG_FORMAT (environment)"),
        (("app", "--port=80000", "--workers=2", "--no-motd"), {}, "--port: must be a number from 1 to 65535"),
        (("app", "--port=80000", "--single-process", "--no-motd"), {}, "--port: must be a number from 1 to 65535"),
        (("app", *SERVE, f"--host={ELSEWHERE}", "--workers=2"), {}, "choose another with --host"),
        (("app", *SERVE, f"--host={ELSEWHERE}", "--single-process"), {}, "choose another with --host"),
        (("app", "--unix=/no/such/socket", "--no-motd"), {}, "--unix: /no/such/socket cannot be made"),
        (("app", f"--unix=/tmp/{'x' * 59}", "--no-motd"), {}, "has more than 63 bytes, which is too long for sockets"),
        (
            ("app", *SERVE, "--workers=2"),
            {"APP_ENV": "production", "APP_THROTTLE_STORAGE": "memory"},
            "THROTTLE_STORAGE: memory is only for one worker",
        ),
    ],
)
def test_a_wrong_start_is_one_line(arguments: tuple[str, ...], variables: Mapping[str, str], line: str) -> None:
    code, output = start(*arguments, **variables)
    assert code == 1
    lines = [text for text in output if text != "The service cannot start with these settings:"]
    assert len(lines) == 1, lines
    assert line in lines[0]


def test_a_port_in_use_names_the_port_also_without_worker_processes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, output = start("app", f"--port={port}", "--single-process", "--no-motd")
    assert (code, output) == (
        1,
        [f"127.0.0.1:{port} cannot be used (Address already in use): choose another with --port"],
    )


def test_the_development_server_reports_wrong_settings_in_one_line() -> None:
    """scripts/run calls it."""
    arguments = ("-m", "tools.dev_server", "--port={port}")
    code, output = start(*arguments, command=sys.executable, APP_LOG_FORMAT="xml")
    assert code == 1
    assert [line for line in output if "APP_LOG_FORMAT (environment): " in line] == output[-1:]


def test_a_folder_for_temporary_files_that_is_too_deep_is_one_line(tmp_path: Path) -> None:
    """The processes share a Unix socket in it, whose path is short (unix(7))."""
    folder = tmp_path / ("deep" * 30)
    folder.mkdir()
    code, (line,) = start("app", *SERVE, TMPDIR=str(folder))
    assert code == 1
    assert line.startswith("TMPDIR: ")


def test_service_links_cause_one_warning(mongo_uri: str) -> None:
    links = {"APP_PORT": "tcp://10.96.0.12:8000", "APP_SERVICE_HOST": "10.96.0.12", "APP_LOG_FORMAT": "json"}
    with started(mongo_uri, "--workers=2", "--no-motd", variables=links) as (service, port):
        service.wait_for(f"http://127.0.0.1:{port}/health/ready")
        until(lambda: service.output.count("Worker ready") == 2, "both workers are ready")
        (warning,) = [line for line in service.output.splitlines() if "enableServiceLinks: false" in line]
    entry = json.loads(warning)
    assert entry["level"] == "WARNING"
    assert entry["message"].startswith("APP_PORT, APP_SERVICE_HOST (environment): passed over")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, None),
        ({"port": 8000, "workers": 2, "unix": "", "tls": None, "cert": None, "key": None}, None),
        ({"port": 0}, "--port: must be a number from 1 to 65535"),
        ({"port": -1}, "--port: must be a number from 1 to 65535"),
        ({"port": 65_536}, "--port: must be a number from 1 to 65535"),
        ({"workers": -3}, "--workers: must be a number from 1 to 1000"),
        ({"workers": 100_000}, "--workers: must be a number from 1 to 1000"),
        ({"unix": __file__}, f"--unix: {__file__} exists, and is not a socket"),
        ({"cert": __file__, "key": "/no/such"}, "--key: /no/such cannot be read"),
        ({"tls": ["/no/such"]}, "--tls: /no/such/fullchain.pem cannot be read"),
    ],
)
def test_options_of_the_command_line(options: Mapping[str, object], error: str | None) -> None:
    assert startup.option_error(SimpleNamespace(**options)) == error
    assert startup.option_error(None) is None


@pytest.mark.parametrize("host", ["a..b", f"{'a' * 64}.example", "300.1.1.1", "127.0.0.1:80", "::1%nowhere", ELSEWHERE])
def test_a_host_that_cannot_be_bound_is_named(host: str) -> None:
    with pytest.raises(SystemExit) as exited:
        startup.check_free(host, free_port())
    assert str(exited.value.code).startswith(f"{host}:")
    assert str(exited.value.code).endswith("choose another with --host")


def test_the_number_of_workers_is_that_of_the_options() -> None:
    assert startup.workers_of(None) == 1
    assert startup.workers_of(SimpleNamespace(workers=3, fast=False)) == 3
    assert startup.workers_of(SimpleNamespace(workers=1, fast=True)) >= 1
