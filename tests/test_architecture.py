"""The rules for imports between the packages of the service."""

import ast
from pathlib import Path

import pytest

from tests.serving import CHECKOUT

APP = CHECKOUT / "app"

# The packages and top-level modules of the service, and those that each may import. All others are forbidden.
MAY_IMPORT: dict[str, set[str]] = {
    "app": {
        "commands",
        "config",
        "context",
        "database",
        "http",
        "logs",
        "models",
        "openapi",
        "refusals",
        "security",
        "server",
        "views",
    },
    "commands": {"config", "context", "database", "models", "schemas", "security"},
    "context": {"background", "config", "database", "http", "logs", "metrics", "models", "security", "server"},
    "refusals": {"database", "http", "models", "security"},
    "views": {"context", "http", "metrics", "models", "openapi", "schemas", "security"},
    "schemas": {"clocks", "http", "models"},
    "security": {"background", "clocks", "database", "http", "logs", "models", "schemas"},
    "models": {"database"},
    "background": {"database"},
    "logs": {"clocks", "http", "metrics"},
    "metrics": {"clocks"},
    "clocks": set(),
    "database": {"metrics"},
    "http": set(),
    "server": {"http", "logs", "metrics"},
    "openapi": {"http"},
    "config": set(),
}
EXTERNAL = {"motor": {"database"}, "sanic_jwt": {"security", "views"}, "passlib": {"security"}, "jwt": {"security"}}


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
    assert not [node for node in inside if isinstance(node, ast.Import | ast.ImportFrom)]


def test_models_do_not_import_sanic() -> None:
    for path in (APP / "models").glob("*.py"):
        assert not [name for name in imports(path) if name.split(".")[0].startswith("sanic")]
