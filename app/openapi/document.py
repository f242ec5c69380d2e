"""The OpenAPI 3.1 document, made of what the handlers declare."""

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue, models_json_schema
from sanic import Sanic

from app.http.problems import ProblemDetails
from app.openapi.operations import Operation, operation_of
from app.openapi.responses import HEADERS, headers_of, refusals, shared_responses

VERSION = "1.0.0"
ABOUT = """An asynchronous JSON API with user accounts.

**Try it:** register, press *Authorize*, and type the username and the password. All further requests from this page
then present a token.

Every error is `application/problem+json` (RFC 9457) with a stable `code`. Each operation lists the codes that it can
answer with; the [page of errors](docs/errors) says what to do about each.
"""
BEARER, PASSWORD = "bearerAuth", "password"
ERROR = 400  # from this status on
SCHEMAS = "#/components/schemas"

Document = dict[str, Any]


class Schemas(GenerateJsonSchema):
    """JSON Schema of shapes with optional fields.

    None as a default stands for a field that is not sent.
    """

    def default_schema(self, schema: Any) -> JsonSchemaValue:
        """Describe a field with a default, never null."""
        described = super().default_schema(schema)
        if described.get("default", ...) is None:
            del described["default"]
            types = [one for one in described.pop("anyOf") if one != {"type": "null"}]
            described |= types[0] if len(types) == 1 else {"anyOf": types}
        return described

    def field_is_required(self, field: Any, total: bool) -> bool:
        """Return whether a field is always present.

        In responses that includes fields with a default.
        """
        with_default = self.mode == "serialization" and field["schema"].get("default") is not None
        return with_default or super().field_is_required(field, total)


@dataclass(frozen=True)
class Route:
    """An operation, and where clients find it."""

    path: str
    method: str
    name: str
    tag: str
    tag_description: str
    operation: Operation


def document(app: Sanic[Any, Any]) -> Document:
    """Return the description of every operation, with its shapes under their names."""
    routes = _routes(app)
    security: list[Document] = [{name: []} for name in _security_schemes(app)]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": app.name,
            "version": VERSION,
            "description": ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        # Relative to this document, which a proxy may serve under a prefix.
        "servers": [{"url": "..", "description": "The service that serves this document."}],
        "tags": [
            {"name": tag, "description": description}
            for tag, description in {route.tag: route.tag_description for route in routes}.items()
        ],
        "paths": _paths(routes, security, app.config.STEP_UP_SECONDS),
        "components": {
            "schemas": _shapes([route.operation for route in routes]),
            "responses": shared_responses(),
            "headers": HEADERS,
            "securitySchemes": _security_schemes(app),
        },
    }


def _routes(app: Sanic[Any, Any]) -> list[Route]:
    """Return the described routes in the order in which they stand in the code."""
    blueprints = list(app.blueprints)
    found: list[tuple[int, int, Route]] = []
    for route in app.router.routes:
        view = getattr(route.handler, "view_class", None)
        for method in map(str.lower, route.methods):
            handler = getattr(view, method, None)
            if view and handler and (operation := operation_of(handler)):
                module = sys.modules[view.__module__]
                described = Route(
                    path=re.sub(r"<(\w+)[^>]*>", r"{\1}", f"/{route.path}"),
                    method=method,
                    name=f"{method}{view.__name__}",
                    tag=module.__name__.rpartition(".")[2].capitalize(),
                    tag_description=(module.__doc__ or "").partition("\n")[0],
                    operation=operation,
                )
                line = inspect.unwrap(handler).__code__.co_firstlineno
                found.append((blueprints.index(route.name.split(".")[-2]), line, described))
    return [route for *_, route in sorted(found, key=lambda one: one[:2])]


def _security_schemes(app: Sanic[Any, Any]) -> Document:
    """Return how requests can be authenticated: by a token, which the page can fetch for a password (RFC 6749)."""
    bearer = {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The `access_token` of a registration, a login or a refresh.",
    }
    urls = {"tokenUrl": "oauth/token", "refreshUrl": "oauth/token"}  # relative to the server, as all paths
    password = {
        "type": "oauth2",
        "description": "Log in with username and password; the client id and secret stay empty.",
        "flows": {"password": {**urls, "scopes": {}}},
    }
    return {PASSWORD: password, BEARER: bearer} if app.config.OAUTH_PASSWORD_GRANT else {BEARER: bearer}


def _paths(routes: list[Route], security: list[Document], max_age: int) -> dict[str, dict[str, Document]]:
    paths: dict[str, dict[str, Document]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method] = _operation(route, security, max_age)
    return paths


def _operation(route: Route, security: list[Document], max_age: int) -> Document:
    operation = route.operation
    described: Document = {
        "tags": [route.tag],
        "operationId": route.name,
        "summary": operation.summary,
        "description": operation.description,
        "parameters": [*_in_path(operation), *_in_query(operation)],
        "requestBody": {"required": True, "content": _content(operation.body, operation.media_type)}
        if operation.body
        else None,
        "responses": {
            **{str(status): _success(status, shape) for status, shape in operation.responses.items() if status < ERROR},
            **refusals(
                operation.codes,
                {
                    str(status): _content(shape)
                    for status, shape in operation.responses.items()
                    if shape and status >= ERROR
                },
            ),
        },
    }
    required: Document = {"security": security if operation.protected else []}
    if operation.fresh:
        required |= {"x-max-age": max_age, "x-second-factor": operation.with_factor}
    return {name: part for name, part in described.items() if part} | required


def _in_path(operation: Operation) -> Iterator[Document]:
    for name, kind in operation.path.items():
        schema = TypeAdapter(kind).json_schema(schema_generator=Schemas)
        example = {"example": schema.pop("examples")[0]} if "examples" in schema else {}
        yield {"name": name, "in": "path", "required": True, "schema": schema, **example}


def _in_query(operation: Operation) -> Iterator[Document]:
    if operation.query:
        for name, schema in operation.query.model_json_schema(schema_generator=Schemas)["properties"].items():
            schema.pop("examples", None)  # or the page would fill them in
            # Sanic leaves out parameters that are empty, so they count as not given.
            yield {"name": name, "in": "query", "required": False, "allowEmptyValue": True, "schema": schema}


def _content(shape: type[BaseModel], media_type: str = "application/json") -> Document:
    return {media_type: {"schema": {"$ref": f"{SCHEMAS}/{shape.__name__}"}}}


def _success(status: int, shape: type[BaseModel] | None) -> Document:
    response: Document = {"description": HTTPStatus(status).phrase, "headers": headers_of(status)}
    return response | {"content": _content(shape)} if shape else response


def _shapes(operations: list[Operation]) -> dict[str, Document]:
    """Return the schemas of all shapes, with those that they contain."""
    modes: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {(ProblemDetails, "serialization"): None}
    for operation in operations:
        modes |= {(operation.body, "validation"): None} if operation.body else {}
        modes |= {(shape, "serialization"): None for shape in operation.responses.values() if shape}
    _, definitions = models_json_schema(list(modes), ref_template=f"{SCHEMAS}/{{model}}", schema_generator=Schemas)
    return dict(sorted(definitions["$defs"].items()))
