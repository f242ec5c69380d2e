"""How the description tells the ways in which a route refuses: by status, with an example for each code."""

from collections import defaultdict
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from app.http.problems import ProblemOut

TOKEN = ("token_missing", "token_expired", "token_invalid", "session_ended", "revocations_stale")
BODY = ("malformed_json", "not_an_object", "invalid_fields", "payload_too_large", "unsupported_media_type")

# With the status that each comes with.
CODES = {
    "malformed_json": 400,
    "not_an_object": 400,
    "token_missing": 401,
    "token_expired": 401,
    "token_invalid": 401,
    "session_ended": 401,
    "refresh_token_invalid": 401,
    "refresh_token_reused": 401,
    "wrong_credentials": 401,
    "insufficient_scope": 403,
    "not_found": 404,
    "username_taken": 409,
    "last_admin": 409,
    "payload_too_large": 413,
    "unsupported_media_type": 415,
    "invalid_fields": 422,
    "too_many_attempts": 429,
    "hashing_busy": 503,
    "revocations_stale": 503,
    "stopping": 503,
    "store_unavailable": 503,
}


def responses(codes: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Describe refusals with these codes, by status."""
    by_status: defaultdict[int, list[str]] = defaultdict(list)
    for code in codes:
        by_status[CODES[code]].append(code)
    return {str(status): _response(status, by_status[status]) for status in sorted(by_status)}


def _response(status: int, codes: list[str]) -> dict[str, Any]:
    examples = {code: {"value": _example(code)} for code in codes}
    schema = {"$ref": f"#/components/schemas/{ProblemOut.__name__}"}
    return {
        "description": f"{HTTPStatus(status).phrase}: {', '.join(codes)}",
        "content": {"application/problem+json": {"schema": schema, "examples": examples}},
    }


def _example(code: str) -> dict[str, Any]:
    status = CODES[code]
    example: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": "What is wrong, for people.",
        "code": code,
        "request_id": "0f8fad5bd9cb469fa16570867728950e",
    }
    if code == "invalid_fields":
        example["errors"] = [{"field": "username", "message": "Field required"}]
    return example
