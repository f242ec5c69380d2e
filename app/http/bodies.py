"""Read bodies and queries into shapes, and write shapes as responses."""

import json
from typing import Any, NoReturn, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError
from sanic import HTTPResponse, Request

from app.http.codes import Code
from app.http.problems import FieldError, Problem, invalid_fields
from app.http.responses import respond

MAX_ERRORS = 20  # in one response
UNKNOWN = "Extra inputs are not permitted"
FIELD_NAME_LENGTH = 64  # how much of an unknown field's name a response repeats
# What `read` and `read_query` can answer with.
BODY_CODES = (
    Code.MALFORMED_JSON,
    Code.NOT_AN_OBJECT,
    Code.PAYLOAD_TOO_LARGE,
    Code.UNSUPPORTED_MEDIA_TYPE,
    Code.INVALID_FIELDS,
)
QUERY_CODES = (Code.INVALID_FIELDS,)

S = TypeVar("S", bound=BaseModel)


class Body(BaseModel):
    """A request's body.

    Types are exact and unknown fields are refused (OWASP: mass assignment).
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def _not_null(given: Any) -> Any:
    if given is None:
        raise PydanticCustomError("null", "Input should not be null")
    return given


NotNull = AfterValidator(_not_null)  # of a field whose default None stands for one that is not given


def with_example(**fields: Any) -> ConfigDict:
    """Return the configuration of a shape with an example.

    For shapes whose fields cannot all be given.
    """
    return ConfigDict(strict=True, extra="forbid", frozen=True, json_schema_extra={"examples": [dict(fields)]})


def read(request: Request[Any, Any], shape: type[S]) -> S:
    """Read the request's body.

    Raises Problem 400, 415 or 422.
    """
    _check_content_type(request)
    data = _parse(request.body)
    unknown = [name for name in data if name not in shape.model_fields]
    if len(unknown) > MAX_ERRORS:  # pydantic would describe each of a hundred thousand
        raise invalid_fields(*(FieldError(field=_printable(name), message=UNKNOWN) for name in unknown[:MAX_ERRORS]))
    try:
        return shape.model_validate(data)
    except ValidationError as error:
        raise _invalid_fields(error) from None


def read_query(request: Request[Any, Any], shape: type[S]) -> S:
    """Read the query's parameters.

    The last one of a name counts, unknown ones are ignored. Raises Problem 422.
    """
    given = {name: request.args[name][-1] for name in shape.model_fields if request.args.get(name) is not None}
    try:
        return shape.model_validate_strings(given)
    except ValidationError as error:
        raise _invalid_fields(error) from None


def write(shape: BaseModel, status: int = 200, *, omit_none: bool = False) -> HTTPResponse:
    """Make a response of a shape."""
    return respond(shape.model_dump_json(exclude_none=omit_none).encode(), status)


def _check_content_type(request: Request[Any, Any]) -> None:
    media_type, _, parameters = request.headers.getone("content-type", "").partition(";")
    charset = parameters.strip().lower()
    if media_type.strip().lower() != "application/json" or charset not in ("", "charset=utf-8", 'charset="utf-8"'):
        raise Problem(Code.UNSUPPORTED_MEDIA_TYPE)
    if request.headers.getone("content-encoding", "identity").lower() != "identity":
        raise Problem(
            Code.UNSUPPORTED_MEDIA_TYPE, "The body must not be compressed.", headers={"Accept-Encoding": "identity"}
        )


def _parse(body: bytes) -> dict[str, Any]:
    """Parse JSON strictly: UTF-8, no duplicate names, no NaN, an object at the top."""
    try:
        data = json.loads(body.decode(), object_pairs_hook=without_duplicates, parse_constant=_refuse)
    except (ValueError, RecursionError):  # ValueError includes bad UTF-8, bad JSON, and numbers that are too long
        raise Problem(Code.MALFORMED_JSON) from None
    if not isinstance(data, dict):
        raise Problem(Code.NOT_AN_OBJECT)
    return data


def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of a JSON parser's pairs.

    Raises ValueError if a name occurs twice.
    """
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError("duplicate names")
    return names


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _invalid_fields(error: ValidationError) -> Problem:
    details = error.errors(include_input=False, include_url=False, include_context=False)
    return invalid_fields(*(_field_error(detail) for detail in details))


def _field_error(detail: Any) -> FieldError:
    return FieldError(field=_printable(".".join(map(str, detail["loc"])) or "body"), message=detail["msg"])


def _printable(name: str) -> str:
    """Shorten the name of an unknown field, and escape lone surrogates, which JSON cannot carry."""
    return name[:FIELD_NAME_LENGTH].encode("ascii", "backslashreplace").decode()
