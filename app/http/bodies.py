"""Read what a request brings in one of the shapes, and write an answer in another."""

import json
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from sanic import HTTPResponse, Request

from app.http.problems import Problem, unprocessable
from app.http.responses import answer

ERRORS_TOLD = 20
UNKNOWN = "Extra inputs are not permitted"
FIELD_NAME_LENGTH = 64  # how much of an unknown field's name an answer repeats

S = TypeVar("S", bound=BaseModel)


class Body(BaseModel):
    """What a client sends. Types are exact and unknown fields refused, so nothing slips in beside them."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def read(request: Request[Any, Any], shape: type[S]) -> S:
    """Read the request's body in this shape. Raises Problem 400, 415 or 422."""
    _check_content_type(request)
    data = _parse(request.body)
    unknown = [name for name in data if name not in shape.model_fields]
    if len(unknown) > ERRORS_TOLD:  # pydantic would describe every one of a hundred thousand
        raise unprocessable([{"field": _printable(name), "message": UNKNOWN} for name in unknown[:ERRORS_TOLD]])
    try:
        return shape.model_validate(data)
    except ValidationError as error:
        raise _unprocessable(error) from None


def read_query(request: Request[Any, Any], shape: type[S]) -> S:
    """Read the query's parameters in this shape; a repeated one counts once, unknown ones not. Raises Problem 422."""
    given = {name: request.args[name][-1] for name in shape.model_fields if request.args.get(name) is not None}
    try:
        return shape.model_validate_strings(given)
    except ValidationError as error:
        raise _unprocessable(error) from None


def write(shape: BaseModel, status: int = 200) -> HTTPResponse:
    """Answer with this shape."""
    return answer(shape.model_dump_json().encode(), status)


def _check_content_type(request: Request[Any, Any]) -> None:
    media_type, _, parameters = request.headers.getone("content-type", "").partition(";")
    charset = parameters.strip().lower()
    if media_type.strip().lower() != "application/json" or charset not in ("", "charset=utf-8", 'charset="utf-8"'):
        raise Problem(415, "unsupported_media_type", "The body must be application/json in UTF-8.")
    if request.headers.getone("content-encoding", "identity").lower() != "identity":
        raise Problem(
            415, "unsupported_media_type", "The body must not be compressed.", headers={"Accept-Encoding": "identity"}
        )


def _parse(body: bytes) -> dict[str, Any]:
    """Parse JSON one way only: UTF-8, no duplicate names, no NaN, an object on top."""
    try:
        data = json.loads(body.decode(), object_pairs_hook=without_duplicates, parse_constant=_refuse)
    except (ValueError, RecursionError):  # ValueError includes bad UTF-8, bad JSON, and numbers too long to read
        raise Problem(400, "malformed_json", "The body is not well-formed JSON.") from None
    if not isinstance(data, dict):
        raise Problem(400, "not_an_object", "The body must be a JSON object.")
    return data


def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of a JSON parser's pairs. Raises ValueError if a name is given twice."""
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError("duplicate names")
    return names


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _unprocessable(error: ValidationError) -> Problem:
    details = error.errors(include_input=False, include_url=False, include_context=False)
    return unprocessable([_field_error(detail) for detail in details])


def _field_error(detail: Any) -> dict[str, str]:
    return {"field": _printable(".".join(map(str, detail["loc"])) or "body"), "message": detail["msg"]}


def _printable(name: str) -> str:
    """Shorten the name of a field nobody knows; a lone surrogate in it could not be sent back."""
    return name[:FIELD_NAME_LENGTH].encode("ascii", "backslashreplace").decode()
