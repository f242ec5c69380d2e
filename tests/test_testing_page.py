"""The examples of docs/testing.md run as they stand there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sanic import Sanic

from app import create_app
from config import Config
from tests.serving import CHECKOUT, environment

EXAMPLES = re.findall(
    r"^```python\n(.*?)^```", (CHECKOUT / "docs" / "testing.md").read_text(), re.MULTILINE | re.DOTALL
)


WITH_SERVICE = [example for example in EXAMPLES if "(service" in example]
WITH_APP = [example for example in EXAMPLES if example not in WITH_SERVICE]


@pytest.mark.parametrize("examples", [WITH_SERVICE, WITH_APP], ids=["service", "apps"])
def test_every_example_passes(mongo_uri: str, tmp_path: Path, examples: list[str]) -> None:
    """Each in a module of its own; those that stop their app not together with the fixture `service`."""
    for number, example in enumerate(examples):
        (tmp_path / f"test_example_{number}.py").write_text(example)
    options = ["-p", "tests.conftest", "-c", str(CHECKOUT / "pyproject.toml"), "-p", "no:cacheprovider"]
    ignore = ["-W", "ignore:.*Passing the loop argument:DeprecationWarning"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options, *ignore, tmp_path],
        cwd=CHECKOUT,
        env={**os.environ, "APP_MONGO_URI": mongo_uri},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(examples)} passed" in result.stdout


def test_apps_of_one_name_are_refused_by_sanic(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sanic's test mode, which the suite uses, allows them."""
    monkeypatch.setattr(Sanic, "test_mode", False)
    create_app(config=config, name="twice")
    with pytest.raises(Exception, match="already in use"):
        create_app(config=config, name="twice")
    assert create_app(config=config, name="once").name == "once"


def test_another_asgi_server_is_refused_with_the_reason(tmp_path: Path) -> None:
    """As uvicorn and others do it: by the lifespan protocol of ASGI."""
    program = tmp_path / "server.py"
    program.write_text(SERVER)
    result = subprocess.run(
        [sys.executable, program],
        cwd=CHECKOUT,
        env={**environment("mongodb://127.0.0.1/unused"), "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "lifespan.startup.failed" in result.stdout
    assert "runs on Sanic's own server only" in result.stdout


SERVER = """
import asyncio

from app import create_app

async def main():
    async def receive():
        return {"type": "lifespan.startup"}

    async def send(message):
        print(message)
        raise SystemExit

    try:
        await create_app()({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    except SystemExit:
        pass

asyncio.run(main())
"""
