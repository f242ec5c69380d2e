"""The OpenAPI description: what each route takes and gives, and how to show a token."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from itertools import count
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from sanic import Sanic

from app.http.bodies import Body
from app.http.problems import ProblemOut
from app.openapi import refusals
from app.schemas import auth, hello, operations, users

TITLE = "sanic_api_demo"
VERSION = "1.0.0"
ABOUT = """An asynchronous JSON API with real accounts.

**Try it:** register, copy the `access_token` of the answer, press *Authorize* and paste it. From then on every request
from this page shows the token, until the page is left or its session ends.

Errors are `application/problem+json` (RFC 9457) with a stable `code`, everywhere. Each route lists its own, and
`docs/errors.md` says what to do about them.
"""
BEARER = "bearerAuth"
OPERATION = "__operation__"  # the name under which a handler carries its description
TAGS = {
    "tests": ("Hello", "A greeting for everyone, and one for token holders."),
    "auth": ("Sessions", "Log in, refresh, look at the token, log out."),
    "users": ("Users", "Register, change or leave one's own account; administer those of others."),
    "operations": ("Operations", "What those who run the service ask it."),
}
SCHEMAS: list[type[BaseModel]] = [
    users.Registration,
    auth.Credentials,
    auth.Refresh,
    users.PasswordChange,
    users.Deletion,
    users.UserChange,
    users.UserOut,
    users.UsersOut,
    auth.SessionsOut,
    auth.Tokens,
    users.Registered,
    auth.VerifiedOut,
    hello.Greeting,
    operations.Health,
    ProblemOut,
]
PATH_PARAMETERS: dict[str, Any] = {
    "user_id": Annotated[users.UserId, Field(examples=["6744a1b2c3d4e5f60718293a"])],
    "session_id": Annotated[auth.SessionId, Field(examples=["q3Zk1h0bTn2mXw8uYr5LdA"])],
}

Document = dict[str, Any]
Handler = TypeVar("Handler", bound=Callable[..., Any])

_order = count()  # of handlers, as they stand in the code; routes come from Sanic in any order


class Dialect(GenerateJsonSchema):
    """JSON Schema as OpenAPI 3.0 has it: null is no type, there is no const, and one example."""

    def generate_inner(self, schema: Any) -> JsonSchemaValue:
        """Describe anything."""
        described = super().generate_inner(schema)
        if "examples" in described:
            described["example"] = described.pop("examples")[0]
        return described

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


def describe(
    *,
    body: type[BaseModel] | None = None,
    query: type[BaseModel] | None = None,
    answers: Mapping[int, type[BaseModel] | None],
    refuses: tuple[str, ...] = (),
    token: bool = False,
) -> Callable[[Handler], Handler]:
    """Describe a handler; its summary is the first line of its docstring.

    `refuses` has the codes of refusals that neither every body nor every token can bring about.
    """
    codes = dict.fromkeys([*refuses, *(refusals.TOKEN if token else ()), *(refusals.BODY if body else ())])

    def decorate(handler: Handler) -> Handler:
        summary, _, details = inspect.cleandoc(handler.__doc__ or "").partition("\n")
        operation: Document = {
            "summary": summary,
            "description": details.strip(),
            "parameters": [*_in_path(handler), *(_in_query(query) if query else ())],
            "requestBody": {"required": True, "content": _content(body)} if body else None,
            "responses": {str(status): _answer(status, shape) for status, shape in answers.items()}
            | refusals.responses(codes),
            "security": [{BEARER: []}] if token else None,
        }
        setattr(handler, OPERATION, (next(_order), {name: part for name, part in operation.items() if part}))
        return handler

    return decorate


def document(app: Sanic[Any, Any]) -> Document:
    """Return the description of every route that has one, with every shape under its name."""
    return {
        "openapi": "3.0.3",
        "info": {"title": TITLE, "version": VERSION, "description": ABOUT},
        "tags": [{"name": name, "description": description} for name, description in TAGS.values()],
        "paths": _paths(app),
        "components": {
            "schemas": _shapes(),
            "securitySchemes": {
                BEARER: {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "The `access_token` that a registration, a login or a refresh answers with.",
                }
            },
        },
    }


def _paths(app: Sanic[Any, Any]) -> dict[str, dict[str, Document]]:
    tags, found = list(TAGS), []
    for route in app.router.routes:
        view = getattr(route.handler, "view_class", None)
        for method in map(str.lower, route.methods):
            order, operation = getattr(getattr(view, method, None), OPERATION, (0, None))
            if view and operation:
                tag = route.name.split(".")[-2]
                names = {"tags": [TAGS[tag][0]], "operationId": f"{method}{view.__name__}"}
                path = re.sub(r"<(\w+)[^>]*>", r"{\1}", f"/{route.path}")
                found.append(((tags.index(tag), order), path, method, names | operation))
    paths: dict[str, dict[str, Document]] = {}
    for _, path, method, operation in sorted(found, key=lambda one: one[0]):
        paths.setdefault(path, {})[method] = operation
    return paths


def _shapes() -> dict[str, Document]:
    shapes: dict[str, Document] = {}
    for shape in SCHEMAS:
        schema = shape.model_json_schema(
            ref_template="#/components/schemas/{model}",
            schema_generator=Dialect,
            mode="validation" if issubclass(shape, Body) else "serialization",
        )
        shapes |= {**schema.pop("$defs", {}), shape.__name__: schema}
    return shapes


def _in_path(handler: Callable[..., Any]) -> Iterator[Document]:
    for name in inspect.signature(handler).parameters:
        if name in PATH_PARAMETERS:
            schema = TypeAdapter(PATH_PARAMETERS[name]).json_schema(schema_generator=Dialect)
            yield {"name": name, "in": "path", "required": True, "schema": schema}


def _in_query(shape: type[BaseModel]) -> Iterator[Document]:
    for name, schema in shape.model_json_schema(schema_generator=Dialect)["properties"].items():
        # Sanic leaves out what is empty, so it counts as not given.
        yield {"name": name, "in": "query", "required": False, "allowEmptyValue": True, "schema": schema}


def _content(shape: type[BaseModel]) -> Document:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{shape.__name__}"}}}


def _answer(status: int, shape: type[BaseModel] | None) -> Document:
    answer: Document = {"description": HTTPStatus(status).phrase}
    return answer | {"content": _content(shape)} if shape else answer
