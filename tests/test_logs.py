"""The log: one line for each event in a known form, from every process, and never the values of variables."""

import json
import logging
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import httpx
import pytest

from app.logs import Json, Text, configuration
from tests.conftest import Document
from tests.noisy import FAILURE
from tests.processes import TIMEOUT_SECONDS, Command, running, until
from tests.serving import CHECKOUT, SANIC, environment
from tools.local_mongo import free_port

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
NOISES = ("warning", "library", "thread", "task", "unraisable", "handler")


@contextmanager
def noisy(mongo_uri: str, *options: str, **settings: str) -> Iterator[tuple[Command, str]]:
    """Start the noisy service with production settings; yield its command and URL without waiting."""
    port = free_port()
    command = [SANIC, "tests.noisy:create_app", f"--port={port}", *(options or ["--workers=1"])]
    production = {"APP_ENV": "production", "APP_DRAIN_SECONDS": "0"}
    with running(command, cwd=CHECKOUT, env={**environment(mongo_uri), **production, **settings}) as server:
        yield server, f"http://127.0.0.1:{port}"


def records(output: str) -> list[Document]:
    """Parse every line of the output as one JSON object with the fields of every record."""
    found = [json.loads(line) for line in output.splitlines()]
    assert all(re.fullmatch(TIME, record["time"]) for record in found)
    assert all({"time", "level", "name", "message"} <= set(record) for record in found)
    return found


def noise(server: Command, url: str) -> None:
    """Have a worker write to the log in every way, and wait for all of it."""
    server.wait_for(f"{url}/health/ready")
    assert httpx.get(f"{url}/noise", trust_env=False).status_code == 500
    until(lambda: all(f"{noise}: first line" in server.output for noise in NOISES), "every record")


def stop(server: Command) -> str:
    """Stop the service and return its output."""
    server.send(signal.SIGTERM)
    assert server.wait() == 0, server.output
    return server.output


@pytest.mark.parametrize("options", [["--workers=2"], ["--single-process"]])
def test_every_line_in_json_format_is_one_object(mongo_uri: str, options: list[str]) -> None:
    """From start to stop: the main process, workers, Sanic, libraries, warnings, threads and tasks."""
    with noisy(mongo_uri, *options, APP_ACCESS_LOG="true") as (server, url):
        noise(server, url)
        written = records(stop(server))
    for name in NOISES:
        text = f"{name}: first line\nsecond line"
        (record,) = [one for one in written if any(text in str(value) for value in one.values())]
        assert ("exc_info" in record) == (name not in ("warning", "library"))
        assert record.get("exc_info", "Traceback").startswith("Traceback")
    assert {"sanic.root", "sanic.server", "sanic.error", "sanic.access", "py.warnings", "some.library", "asyncio"} <= {
        record["name"] for record in written
    }
    assert "a local variable" not in str(written)


def test_every_line_in_text_format_begins_with_a_time_or_is_indented(mongo_uri: str) -> None:
    """So no line of a traceback or a message, which may quote a client, looks like a record (log injection)."""
    with noisy(mongo_uri, APP_LOG_FORMAT="text") as (server, url):
        noise(server, url)
        output = stop(server)
    assert not [line for line in output.splitlines() if not re.match(rf"{TIME} [A-Z]+ | ", line)]
    assert "a local variable" not in output
    assert "\x1b" not in output


INTERRUPTED = (
    b"GET /tests/hello?token=in-the-query HTT",
    b"POST /auth?token=in-the-query HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
)


def test_requests_that_a_stop_interrupts_are_not_logged_with_their_query(mongo_uri: str) -> None:
    """Nor with a traceback."""
    with noisy(mongo_uri, APP_GRACEFUL_SHUTDOWN_TIMEOUT="0.2") as (server, url), ExitStack() as opened:
        server.wait_for(f"{url}/health/ready")
        for beginning in INTERRUPTED:
            address = "127.0.0.1", urlsplit(url).port or 0
            connection = opened.enter_context(socket.create_connection(address, timeout=TIMEOUT_SECONDS))
            connection.sendall(beginning)
        httpx.get(f"{url}/tests/hello", trust_env=False)  # which the worker reads after them
        output = stop(server)
    assert "in-the-query" not in output
    assert not [record for record in records(output) if "exc_info" in record]


@pytest.mark.parametrize(
    ("failure", "options"),
    [
        ("factory", ["--workers=1"]),
        ("factory", ["--single-process"]),
        ("listener", ["--workers=1"]),
        ("listener", ["--single-process"]),
    ],
)
def test_an_exception_at_the_start_is_one_object(mongo_uri: str, failure: str, options: list[str]) -> None:
    with noisy(mongo_uri, *options, **{FAILURE: failure}) as (server, _):
        assert server.wait() != 0
        written = records(server.output)
    assert [record for record in written if f"{failure}: first line\nsecond line" in record.get("exc_info", "")]


def formatter(log_format: str) -> logging.Formatter:
    """Return the formatter that the service uses."""
    options = configuration(log_format)["formatters"]["generic"]
    made: logging.Formatter = options.pop("()")(**options)
    return made


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata"])
@pytest.mark.parametrize("seconds", [0, 1_700_000_000, 1_700_000_000.1, 1_700_000_000.123456, 4e9])
def test_times_are_utc_with_milliseconds_and_a_zone(
    monkeypatch: pytest.MonkeyPatch, log_format: str, zone: str, seconds: float
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    record = logging.LogRecord("any", logging.INFO, "", 0, "message", None, None)
    record.created = seconds
    line = formatter(log_format).format(record)
    expected = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    assert re.search(rf"{expected}\.\d{{3}}Z", line)
    monkeypatch.undo()
    time.tzset()


def test_a_stack_is_part_of_the_object() -> None:
    """Of a record with `stack_info`, and of one whose exception was formatted before."""
    record = logging.LogRecord("any", logging.INFO, "", 0, "message", None, None)
    record.stack_info = "Stack:\n  here"
    record.exc_text = "Traceback\n  there"
    line = formatter("json").format(record)
    assert "\n" not in line
    assert {"stack_info": record.stack_info, "exc_info": record.exc_text}.items() <= json.loads(line).items()


def test_formatters_are_those_of_the_settings() -> None:
    assert isinstance(formatter("json"), Json)
    assert isinstance(formatter("text"), Text)
