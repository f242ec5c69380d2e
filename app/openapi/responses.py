"""How the description shows refusals: by status, each with its codes as an enum and an example of each."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from app.http.codes import Code
from app.http.problems import CONTENT_TYPE, FRAMEWORK, FieldError, ProblemDetails

Document = dict[str, Any]

# Every operation can answer with these: the server refuses before a handler is called, or in its place.
SHARED = (
    *(code for code in FRAMEWORK.values() if code not in (Code.UNAUTHORIZED, Code.FORBIDDEN)),
    Code.CONNECTIONS_EXHAUSTED,
)
HEADERS: dict[str, Document] = {
    "x-request-id": {
        "description": "The request's own X-Request-ID if it is well-formed, else a new id. The log has it.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    },
    "WWW-Authenticate": {
        "description": "The challenge (RFC 6750 section 3), with `error` if a token was presented.",
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "Seconds to wait before the next request.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "Allow": {"description": "The methods that the resource supports.", "schema": {"type": "string"}},
}
BY_STATUS = {
    401: ("WWW-Authenticate",),
    403: ("WWW-Authenticate",),
    405: ("Allow",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}


def headers_of(status: int) -> Document:
    """Return references to the headers of responses with this status."""
    names = ("x-request-id", *BY_STATUS.get(status, ()))
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def shared_responses() -> Document:
    """Return the refusals that operations refer to, named by code."""
    return {code.value: _response(code.status, [code]) for code in SHARED}


def refusals(codes: Iterable[Code], others: Mapping[str, Document]) -> Document:
    """Return the refusals of an operation with these codes of its own, by status.

    `others` has further contents of refusals, which are no problem details, by status.
    """
    by_status: defaultdict[int, list[Code]] = defaultdict(list)
    for code in dict.fromkeys((*codes, *SHARED)):
        by_status[code.status].append(code)
    found = {str(status): _reference_or_response(status, by_status[status]) for status in sorted(by_status)}
    for status, content in others.items():
        response = _response(int(status), by_status[int(status)])
        found[status] = response | {"content": content | response["content"]}
    return found


def _reference_or_response(status: int, codes: list[Code]) -> Document:
    if len(codes) == 1 and codes[0] in SHARED:
        return {"$ref": f"#/components/responses/{codes[0].value}"}
    return _response(status, codes)


def _response(status: int, codes: list[Code]) -> Document:
    details: Document = {
        "type": "object",
        "properties": {
            "code": {"type": "string", "enum": [code.value for code in codes]},
        },
        "required": ["code", *(["errors"] if codes == [Code.INVALID_FIELDS] else [])],
    }
    return {
        "description": f"{HTTPStatus(status).phrase}: {', '.join(codes)}",
        "headers": headers_of(status),
        "content": {
            CONTENT_TYPE: {
                "schema": {"allOf": [{"$ref": f"#/components/schemas/{ProblemDetails.__name__}"}, details]},
                "examples": {code.value: {"summary": code.detail, "value": _example(code)} for code in codes},
            }
        },
    }


def _example(code: Code) -> Document:
    details = ProblemDetails(
        title=HTTPStatus(code.status).phrase,
        status=code.status,
        detail=code.detail,
        code=code.value,
        request_id="0f8fad5bd9cb469fa16570867728950e",
        errors=[FieldError(field="username", message="Field required")] if code is Code.INVALID_FIELDS else None,
    )
    return details.model_dump(exclude_none=True)
