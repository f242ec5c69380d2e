"""The OpenAPI description: what each route takes and gives, and how to show a token."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from sanic import Sanic
from sanic_ext.extensions.openapi import openapi
from sanic_ext.extensions.openapi.definitions import Parameter, RequestBody, Response
from sanic_ext.extensions.openapi.types import Schema

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
PATH_PARAMETERS: dict[str, Any] = {"user_id": schemas.UserId, "session_id": schemas.SessionId}

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Dialect(GenerateJsonSchema):
    """JSON Schema as OpenAPI 3.0 has it: null is no type, and there is no const."""

    def nullable_schema(self, schema: Any) -> JsonSchemaValue:
        """Describe what may be null."""
        return {**self.generate_inner(schema["schema"]), "nullable": True}

    def literal_schema(self, schema: Any) -> JsonSchemaValue:
        """Describe a choice, also one of one."""
        described = super().literal_schema(schema)
        return {"enum": [described.pop("const")], **described} if "const" in described else described

    def default_schema(self, schema: Any) -> JsonSchemaValue:
        """Describe a default; None stands for what is left out, and is not to be sent."""
        described = super().default_schema(schema)
        if described.get("default", ...) is not None:
            return described
        return {name: part for name, part in described.items() if name not in ("default", "nullable")}

    def field_is_required(self, field: Any, total: bool) -> bool:
        """Tell whether a field is always there: in an answer also one with a default."""
        with_default = self.mode == "serialization" and field["schema"].get("default") is not None
        return with_default or super().field_is_required(field, total)


class Described(Schema):
    """A schema that is complete; the library takes a dictionary for an example of an object."""

    def __init__(self, **keywords: Any) -> None:
        self._fields = keywords


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
    if token:
        definition["secured"] = {BEARER: []}

    def decorate(handler: Handler) -> Handler:
        parameters = [*_in_path(handler), *(_in_query(query) if query else ())]
        return openapi.definition(**definition, parameter=parameters)(handler)

    return decorate


def publish(app: Sanic[Any, Any]) -> None:
    """Complete the description: title, bearer scheme, and every shape under its name."""
    app.config.API_TITLE = TITLE
    app.config.API_VERSION = VERSION
    app.ext.openapi.add_security_scheme(BEARER, "http", scheme="bearer", bearer_format="JWT")
    for shape in SCHEMAS:
        schema = shape.model_json_schema(
            ref_template="#/components/schemas/{model}",
            schema_generator=Dialect,
            mode="validation" if issubclass(shape, schemas.Body) else "serialization",
        )
        for name, part in {**schema.pop("$defs", {}), shape.__name__: schema}.items():
            app.ext.openapi.add_component("schemas", name, part)


def _in_path(handler: Callable[..., Any]) -> Iterator[Parameter]:
    for name in inspect.signature(handler).parameters:
        if name in PATH_PARAMETERS:
            schema = TypeAdapter(PATH_PARAMETERS[name]).json_schema(schema_generator=Dialect)
            yield Parameter(name, Described(**schema), "path", required=True)


def _in_query(shape: type[BaseModel]) -> Iterator[Parameter]:
    for name, schema in shape.model_json_schema(schema_generator=Dialect)["properties"].items():
        # Sanic leaves out what is empty, so it counts as not given.
        yield Parameter(name, Described(**schema), "query", required=False, allowEmptyValue=True)


def _reference(shape: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{shape.__name__}"}


def _response(status: int, shape: type[BaseModel] | None, media_type: str = "application/json") -> Response:
    content = {media_type: _reference(shape)} if shape else {}
    return Response(content, status=status, description=HTTPStatus(status).phrase)
