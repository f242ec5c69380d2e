"""The routes of the service as its views declare them, for tests that run once for each."""

import re
from types import ModuleType
from typing import Any

from pydantic import TypeAdapter

from app import VIEWS
from app.openapi.operations import Operation, operation_of
from app.views import recovery, registration


def handlers(*others: ModuleType) -> dict[tuple[str, str], Any]:
    """Return the handler of every method and path of these and all usual views, with path parameters in braces."""
    found = {}
    for module in (*VIEWS, *others):
        for route in module.blueprint._future_routes:
            for method in sorted(map(str.lower, route.methods - {"HEAD", "OPTIONS"})):
                path = re.sub(r"<(\w+)[^>]*>", r"{\1}", f"{module.blueprint.url_prefix or ''}{route.uri}")
                found[method, path] = getattr(route.handler.view_class, method)
    return dict(sorted(found.items(), key=lambda one: one[0][::-1]))


def operation_at(method: str, path: str) -> Operation:
    """Return what a handler declares."""
    declared = operation_of(HANDLERS[method, path])
    assert declared, f"{method} {path} has no description"
    return declared


def example_path(method: str, path: str) -> str:
    """Return the path with the examples of its parameters."""
    parameters = operation_at(method, path).path.items()
    return path.format(**{name: TypeAdapter(kind).json_schema()["examples"][0] for name, kind in parameters})


HANDLERS = handlers(registration)
ROUTES = list(HANDLERS)
MAIL_ROUTES = list(handlers(recovery))
