"""The rules for imports between the packages of the service."""

import ast
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import CHECKOUT

APP = CHECKOUT / "app"

# The packages and top-level modules of the service, and those that each may import. All others are forbidden.
MAY_IMPORT: dict[str, set[str]] = {
    "app": {
        "capabilities",
        "commands",
        "config",
        "context",
        "database",
        "http",
        "logs",
        "models",
        "openapi",
        "pages",
        "refusals",
        "security",
        "server",
        "tokens",
        "views",
    },
    "commands": {"config", "context", "database", "mail", "models", "schemas", "security", "tokens"},
    "context": {
        "background",
        "capabilities",
        "config",
        "database",
        "http",
        "logs",
        "metrics",
        "models",
        "security",
        "server",
        "tokens",
    },
    "capabilities": {"config", "database", "mail", "models", "security", "tokens"},
    "refusals": {"database", "http", "models", "security", "tokens"},
    "views": {"context", "http", "metrics", "models", "openapi", "schemas", "security"},
    "schemas": {"clocks", "factors", "http", "models", "tokens"},
    "security": {
        "background",
        "clocks",
        "counters",
        "database",
        "factors",
        "http",
        "logs",
        "mail",
        "models",
        "schemas",
        "tokens",
    },
    "tokens": {"http", "schemas"},
    "factors": set(),
    "mail": {"background", "database", "metrics", "models"},
    "pages": {"http"},
    "models": {"database"},
    "background": {"database"},
    "logs": {"clocks", "counters", "http", "metrics"},
    "metrics": {"clocks"},
    "clocks": set(),
    "counters": set(),
    "database": {"metrics"},
    "http": set(),
    "server": {"http", "logs", "metrics"},
    "openapi": {"http"},
    "config": set(),
}
# Imported when they are switched on, so that they cost nothing otherwise.
OPTIONAL = {
    "app.capabilities.encryption",
    "app.capabilities.keys",
    "app.capabilities.mail",
    "app.security.enrolment",
    "app.security.keys",
    "app.security.passkeys",
    "app.tokens.keys",
    "email_validator",
}
SHARED = {"app", "aiosmtplib", "cryptography", "fido2", "jwt", "motor", "passlib", "pymongo", "segno"}
EXTERNAL = {
    "motor": {"database"},
    "sanic_jwt": {"security", "views"},
    "passlib": {"security"},
    "jwt": {"tokens"},
    "aiosmtplib": {"mail"},
}


def package(path: Path) -> str:
    """Return the package of a module: its folder in app, or the module itself."""
    if path.is_relative_to(CHECKOUT / "config"):
        return "config"
    inside = path.relative_to(APP)
    if inside == Path("__init__.py"):
        return "app"
    return inside.parts[0].removesuffix(".py")


def imports(path: Path) -> list[str]:
    """List the dotted names that a module imports, at its top or inside functions."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import does not name its package"
            module = node.module or ""
            names += [f"{module}.{alias.name}" for alias in node.names] if module == "app" else [module]
    return names


MODULES = sorted([*APP.rglob("*.py"), *(CHECKOUT / "config").glob("*.py")])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_a_module_imports_only_what_its_package_may(path: Path) -> None:
    importer = package(path)
    for name in imports(path):
        top, *rest = name.split(".")
        if top in ("app", "config"):
            imported = rest[0] if top == "app" else "config"
            assert imported == importer or imported in MAY_IMPORT[importer], f"{importer} imports {name}"
            assert (importer, imported) != ("views", "views")
        if top in EXTERNAL:
            assert importer in EXTERNAL[top], f"{importer} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_a_module_has_a_docstring_and_imports_at_its_top(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    inside = [node for child in tree.body for node in ast.walk(child) if node is not child]
    lazy = {node.module for node in inside if isinstance(node, ast.ImportFrom)}
    assert lazy <= OPTIONAL, "only what is optional may be imported late"
    assert not [node for node in inside if isinstance(node, ast.Import)]


def test_mail_that_is_off_costs_no_import() -> None:
    code = f"""
import sys
from app import create_app
from config.environments import TestingConfig
create_app(config=TestingConfig(JWT_SECRET_KEY={secrets.token_urlsafe(48)!r}))
print(*(name for name in {sorted(OPTIONAL | {"aiosmtplib", "dns", "fido2", "segno"})} if name in sys.modules))
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert result.stdout == "\n"


def test_what_is_switched_on_is_imported_before_workers_are_forked(mongo_uri: str) -> None:
    """They share what the main process has imported, and nothing else."""
    code = f"""
import asyncio, sys
from app import create_app
from config.environments import TestingConfig
settings = dict(PUBLIC_URL="http://localhost", SMTP_URL="smtp://127.0.0.1:9", MAIL_FROM="a@b.example")
keys = dict(JWT_SECRET_KEY={secrets.token_urlsafe(48)!r}, ENCRYPTION_KEY={secrets.token_urlsafe(48)!r})
config = TestingConfig(MONGO_URI={mongo_uri!r}, **keys, **settings)
context = create_app(config=config).ctx
before = set(sys.modules)
async def work():
    await context.open(config)
    assert context.enrolment and context.passkeys and context.mail and context.keys, "everything is on"
    await context.close()
asyncio.run(work())
print(*sorted(name for name in set(sys.modules) - before if name.split(".")[0] in {sorted(SHARED)}))
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert result.stdout == "\n"


def test_models_do_not_import_sanic() -> None:
    for path in (APP / "models").glob("*.py"):
        assert not [name for name in imports(path) if name.split(".")[0].startswith("sanic")]
