"""The OpenAPI description: what each route takes and gives, and how to show a token."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

from pydantic import BaseModel
from sanic import Sanic
from sanic_ext.extensions.openapi import openapi
from sanic_ext.extensions.openapi.definitions import Parameter, RequestBody, Response

from app import schemas

TITLE = "sanic_api_demo"
VERSION = "1.0.0"
BEARER = "bearerAuth"
SCHEMAS: list[type[BaseModel]] = [
    schemas.Registration,
    schemas.Credentials,
    schemas.Refresh,
    schemas.PasswordChange,
    schemas.Deletion,
    schemas.UserChange,
    schemas.UserOut,
    schemas.UsersOut,
    schemas.SessionsOut,
    schemas.Tokens,
    schemas.Registered,
    schemas.VerifiedOut,
    schemas.Greeting,
    schemas.Health,
    schemas.ProblemOut,
]

Handler = TypeVar("Handler", bound=Callable[..., Any])


def describe(
    *,
    body: type[BaseModel] | None = None,
    query: type[BaseModel] | None = None,
    answers: Mapping[int, type[BaseModel] | None],
    refuses: tuple[int, ...] = (),
    token: bool = False,
) -> Callable[[Handler], Handler]:
    """Describe a handler; its summary is the first line of its docstring."""
    refusals = {*refuses, *((401, 503) if token else ()), *((400, 413, 415) if body else ())}
    responses = [_response(status, shape) for status, shape in answers.items()]
    responses += [_response(status, schemas.ProblemOut, "application/problem+json") for status in sorted(refusals)]
    definition: dict[str, Any] = {"response": responses}
    if body:
        definition["body"] = RequestBody({"application/json": _reference(body)}, required=True)
    if query:
        definition["parameter"] = [
            Parameter(name, schema=schema, location="query", required=False)
            for name, schema in query.model_json_schema()["properties"].items()
        ]
    if token:
        definition["secured"] = {BEARER: []}
    return openapi.definition(**definition)


def publish(app: Sanic[Any, Any]) -> None:
    """Complete the description: title, bearer scheme, and every shape under its name."""
    app.config.API_TITLE = TITLE
    app.config.API_VERSION = VERSION
    app.ext.openapi.add_security_scheme(BEARER, "http", scheme="bearer", bearer_format="JWT")
    for shape in SCHEMAS:
        schema = shape.model_json_schema(ref_template="#/components/schemas/{model}")
        for name, part in {**schema.pop("$defs", {}), shape.__name__: schema}.items():
            app.ext.openapi.add_component("schemas", name, part)


def _reference(shape: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{shape.__name__}"}


def _response(status: int, shape: type[BaseModel] | None, media_type: str = "application/json") -> Response:
    content = {media_type: _reference(shape)} if shape else {}
    return Response(content, status=status, description=HTTPStatus(status).phrase)
