"""The README lists the settings, the routes and the commands that exist."""

import re

from sanic.config import DEFAULT_CONFIG

from app import pages
from config import Config
from config.environments import ProductionConfig
from tests.routes import MAIL_ROUTES, ROUTES
from tests.serving import CHECKOUT

README = (CHECKOUT / "README.md").read_text()


def section(heading: str) -> str:
    """Return the text under a heading."""
    return README.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table under a heading."""
    lines = [line for line in section(heading).splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_of_settings_lists_every_setting() -> None:
    listed = [name for row in rows("Settings") for name in re.findall(r"`([A-Z_]+)`", row[0])]
    below = re.findall(r"`([A-Z_]+)`", section("Settings").rpartition("|")[2])
    settings = set(Config.model_fields)
    assert sorted(listed) == sorted(settings - set(DEFAULT_CONFIG) | {"ACCESS_LOG"} & settings)
    assert sorted(below) == sorted((settings & set(DEFAULT_CONFIG)) - {"ACCESS_LOG"})


def test_the_table_of_settings_has_their_defaults() -> None:
    """Where a default is a number or a text; production's is named if it differs."""
    for names, default, *_ in rows("Settings"):
        for name, shown in zip(re.findall(r"`([A-Z_]+)`", names), default.split(", "), strict=False):
            field = Config.model_fields[name]
            ours, production = field.default, ProductionConfig.model_fields[name].default
            if isinstance(ours, bool) or not isinstance(ours, int | float | str) or "MONGO_URI" in name:
                continue
            days = f"{ours / 86400:g} days" if isinstance(ours, int) else ""
            assert shown.split(";")[0].strip("`") in (str(ours), days, "none"), name
            assert (production != ours) == ("production" in shown), name


def test_the_table_of_routes_lists_every_route() -> None:
    listed = set(re.findall(r"/[\w/<>.-]*", " ".join(row[0] for row in rows("Routes"))))
    described = {re.sub(r"\{\w+\}", "<id>", path) for _, path in (*ROUTES, *MAIL_ROUTES)}
    account = {f"{pages.PREFIX}/{page}".removesuffix("/index") for page in pages.pages(mail=True, cookies=True)}
    assert described | account | {"/docs", "/docs/openapi.json"} == listed
