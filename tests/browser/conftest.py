"""Fixtures that run the service with production settings and open pages in Chromium."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.sites import one_worker
from tests.processes import TIMEOUT_SECONDS

WIDTH, HEIGHT = 1280, 900
TIMEOUT_MILLISECONDS = 1000 * TIMEOUT_SECONDS


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests in this folder."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """Return the settings that differ from production; a module can override this fixture."""
    return {}


@pytest.fixture(scope="module")
def served(mongo_uri: str, settings: dict[str, str]) -> Iterator[str]:
    """Run the service with APP_ENV=production and return its URL, such as http://127.0.0.1:8000."""
    variables = {
        "APP_ENV": "production",
        "APP_DRAIN_SECONDS": "0",  # there is no load balancer that must notice the stop
        **settings,
    }
    with one_worker(f"{mongo_uri}_browser", variables=variables) as (_, port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Run Chromium until the end of the module.

    Not until the end of the session, because until then the event loop of Playwright counts as running.
    """
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not chromium:
        pytest.fail("Chromium is not installed: apt-get install chromium, or set CHROMIUM to its path", False)
    options = ["--disable-background-networking"]
    if os.geteuid() == 0:
        options.append("--no-sandbox")  # root cannot use the sandbox
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Open a page in a new browser context."""
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, locale="en-GB", color_scheme="light")
    context.set_default_timeout(TIMEOUT_MILLISECONDS)
    yield context.new_page()
    context.close()
