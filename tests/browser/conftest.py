"""The service as production runs it, and a fresh page of a real Chromium."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from pymongo import MongoClient

from tests.conftest import Document
from tests.serving import started

WIDTH, HEIGHT = 1280, 900
PATIENCE_MILLISECONDS = 15_000  # for a busy machine; nothing takes so long when all is well


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """Leave production's settings as they are. A module with a fixture of this name says otherwise."""
    return {}


@pytest.fixture(scope="module")
def served(mongo_uri: str, settings: dict[str, str]) -> Iterator[str]:
    """Run the service in production's environment and give its address, such as http://127.0.0.1:8000."""
    uri = f"{mongo_uri}_browser"
    variables = {
        "APP_ENV": "production",
        "APP_DRAIN_SECONDS": "0",  # no load balancer has to notice its end
        **settings,
    }
    with started(uri, variables=variables) as (command, port):
        command.wait_for(f"http://127.0.0.1:{port}/health/ready")
        yield f"http://127.0.0.1:{port}"
        command.send(signal.SIGTERM)
        assert command.wait() == 0, command.output
        assert "Traceback" not in command.output, command.output
    with MongoClient[Document](uri) as client:
        client.drop_database(client.get_default_database())


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Run Chromium. Its end is the module's, because until then Playwright's own event loop counts as running."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not chromium:
        pytest.fail("no Chromium on this machine: apt-get install chromium, or say where it is in CHROMIUM", False)
    options = ["--disable-background-networking"]
    if os.geteuid() == 0:
        options.append("--no-sandbox")  # which root cannot have
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Open a page that shares nothing with earlier ones."""
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, locale="en-GB", color_scheme="light")
    context.set_default_timeout(PATIENCE_MILLISECONDS)
    yield context.new_page()
    context.close()
