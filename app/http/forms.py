"""Read the forms of OAuth 2.0 requests, and answer as that standard does (RFC 6749)."""

from typing import Any, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from sanic import Request

MOST_FIELDS = 32
FORM = "application/x-www-form-urlencoded"

S = TypeVar("S", bound=BaseModel)


class OAuthRefused(Exception):
    """A refusal with an error code of RFC 6749 section 5.2."""

    def __init__(self, error: str, description: str) -> None:
        self.error = error
        self.description = description
        super().__init__(error)


def read_form(request: Request[Any, Any], shape: type[S]) -> S:
    """Read the form of a request.

    Parameters without a value count as omitted, and none may be repeated (RFC 6749 section 3.2). Raises OAuthRefused.
    """
    media_type = request.headers.getone("content-type", "").partition(";")[0]
    if media_type.strip().lower() != FORM:
        raise OAuthRefused("invalid_request", f"The body must be {FORM}.")
    try:
        pairs = parse_qsl(request.body.decode("ascii"), errors="strict", max_num_fields=MOST_FIELDS)
    except ValueError:  # also of an encoding that is not UTF-8
        raise OAuthRefused("invalid_request", "The body is not a form in UTF-8.") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise OAuthRefused("invalid_request", "A parameter is repeated.")
    try:
        return shape.model_validate(fields)
    except ValidationError as error:
        names = ", ".join(sorted({str(detail["loc"][0]) for detail in error.errors() if detail["loc"]}))
        raise OAuthRefused("invalid_request", f"Missing or wrong: {names}.") from None
