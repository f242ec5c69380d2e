"""How the description tells the ways in which a route refuses: by status, with an example for each code."""

from collections import defaultdict
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from app.schemas import ProblemOut

TOKEN = ("token_missing", "token_expired", "token_invalid", "session_ended", "revocations_stale")
BODY = ("malformed_json", "not_an_object", "invalid_fields", "payload_too_large", "unsupported_media_type")

# Each code with its status and with what is said to people.
CODES: dict[str, tuple[int, str]] = {
    "malformed_json": (400, "The body is not well-formed JSON."),
    "not_an_object": (400, "The body must be a JSON object."),
    "token_missing": (401, "An access token is needed: Authorization: Bearer <token>."),
    "token_expired": (401, "The access token has expired."),
    "token_invalid": (401, "The access token is not valid."),
    "session_ended": (401, "The session is over."),
    "refresh_token_invalid": (401, "This is no refresh token of ours."),
    "refresh_token_reused": (401, "The refresh token was used before, so its session is over."),
    "wrong_credentials": (401, "Username or password is wrong."),
    "insufficient_scope": (403, "Your access does not reach so far."),
    "not_found": (404, "There is no user with this id."),
    "username_taken": (409, "Another user has this name."),
    "last_admin": (409, "This is the last administrator."),
    "payload_too_large": (413, "The request is larger than this service accepts."),
    "unsupported_media_type": (415, "The body must be application/json in UTF-8."),
    "invalid_fields": (422, "Some fields are not acceptable."),
    "too_many_attempts": (429, "Too many attempts. Please wait before the next one."),
    "hashing_busy": (503, "Too many passwords are being checked at the moment. Please try again."),
    "revocations_stale": (503, "It cannot be told at the moment whether the session goes on."),
    "stopping": (503, "The service is about to stop."),
    "store_unavailable": (503, "The database cannot serve at the moment. Please try again."),
}


def responses(codes: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Describe refusals with these codes, by status."""
    by_status: defaultdict[int, list[str]] = defaultdict(list)
    for code in codes:
        by_status[CODES[code][0]].append(code)
    return {str(status): _response(status, by_status[status]) for status in sorted(by_status)}


def _response(status: int, codes: list[str]) -> dict[str, Any]:
    examples = {code: {"value": _example(code)} for code in codes}
    schema = {"$ref": f"#/components/schemas/{ProblemOut.__name__}"}
    return {
        "description": f"{HTTPStatus(status).phrase}: {', '.join(codes)}",
        "content": {"application/problem+json": {"schema": schema, "examples": examples}},
    }


def _example(code: str) -> dict[str, Any]:
    status, detail = CODES[code]
    example: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": "0f8fad5bd9cb469fa16570867728950e",
    }
    if code == "invalid_fields":
        example["errors"] = [{"field": "username", "message": "Field required"}]
    return example
