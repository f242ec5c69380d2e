"""Our refusals, and the one shape in which every error leaves: RFC 9457 problem details."""

import json
import re
from asyncio import CancelledError
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field
from sanic import HTTPResponse, Request
from sanic.exceptions import SanicException
from sanic.handlers import ErrorHandler
from sanic.log import error_logger

from app.database.failures import is_away, trouble
from app.http.client import request_id
from app.http.responses import answer

RETRY_SECONDS = 2
BEARER = 'Bearer realm="api"'

# Stable codes of errors that the framework raises, and a word for people instead of the framework's own.
FRAMEWORK: dict[int, tuple[str, str]] = {
    400: ("bad_request", "The request is not well-formed."),
    401: ("unauthorized", "Credentials are needed."),
    403: ("forbidden", "This is not allowed."),
    404: ("not_found", "There is nothing at this address."),
    405: ("method_not_allowed", "This address does not answer to that method."),
    408: ("request_timeout", "The request did not arrive in time."),
    413: ("payload_too_large", "The request is larger than this service accepts."),
    417: ("expectation_failed", "The expectation cannot be met."),
    500: ("internal_error", "Something went wrong here. It has been logged under the request id."),
    503: ("unavailable", "The service could not answer in time. Please try again."),
}


class FieldError(BaseModel):
    """What is wrong with one field."""

    field: str
    message: str


class ProblemOut(BaseModel):
    """Every error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="Stable, for programs.")
    request_id: str
    errors: list[FieldError] | None = None  # left out if there are none


class Problem(SanicException):
    """A refusal on purpose: status, stable code, and a sentence for people."""

    quiet = True

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        errors: list[dict[str, str]] | None = None,
    ) -> None:
        super().__init__(detail, status_code=status)
        self.headers = dict(headers or {})  # Sanic would share an empty one with all others
        self.code = code
        self.detail = detail
        self.errors = errors


def unauthorized(code: str, detail: str) -> Problem:
    """Refuse whoever showed no credentials, or wrong ones that were not a token."""
    return Problem(401, code, detail, headers={"WWW-Authenticate": BEARER})


def token_refused(code: str, detail: str) -> Problem:
    """Refuse a token that was shown (RFC 6750 section 3.1)."""
    challenge = f'{BEARER}, error="invalid_token", error_description="{detail}"'
    return Problem(401, code, detail, headers={"WWW-Authenticate": challenge})


def insufficient_scope() -> Problem:
    """Refuse a good token that does not reach so far (RFC 6750 section 3.1)."""
    challenge = f'{BEARER}, error="insufficient_scope"'
    return Problem(
        403, "insufficient_scope", "Your access does not reach so far.", headers={"WWW-Authenticate": challenge}
    )


def wrong_credentials() -> Problem:
    """Refuse a login; the same for an unknown user and a wrong password."""
    return unauthorized("wrong_credentials", "Username or password is wrong.")


def conflict(code: str, detail: str) -> Problem:
    """Refuse what goes against the state of things."""
    return Problem(409, code, detail)


def not_found(detail: str) -> Problem:
    """Refuse to show or change what is not there."""
    return Problem(404, "not_found", detail)


def unprocessable(errors: list[dict[str, str]]) -> Problem:
    """Refuse well-formed input whose fields break a rule; one entry for each field."""
    return Problem(422, "invalid_fields", "Some fields are not acceptable.", errors=errors)


def unavailable(code: str, detail: str) -> Problem:
    """Refuse for now."""
    return Problem(503, code, detail, headers={"Retry-After": str(RETRY_SECONDS)})


def too_many_requests(seconds: int) -> Problem:
    """Refuse until so many seconds have passed (RFC 6585 section 4)."""
    detail = "Too many attempts. Please wait before the next one."
    return Problem(429, "too_many_attempts", detail, headers={"Retry-After": str(seconds)})


def problem_response(request: Request, problem: Problem) -> HTTPResponse:
    """Give a refusal its shape."""
    status = problem.status_code
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": problem.detail,
        "code": problem.code,
        "request_id": request_id(request),
    }
    if problem.errors is not None:
        body["errors"] = problem.errors
    return answer(json.dumps(body).encode(), status, content_type="application/problem+json", headers=problem.headers)


def allowed(request: Request) -> str:
    """List the methods of a path with parameters; of others Sanic lists them itself (RFC 9110 section 15.5.6)."""
    routes = [route for group in request.app.router.regex_routes.values() for route in group]
    here = [route for route in routes if re.fullmatch(route.pattern, request.path)]
    return ", ".join(sorted({method for route in here for method in route.methods}))


def as_problem(error: Exception) -> Problem:
    """Translate any exception; what nobody foresaw says nothing about itself."""
    if isinstance(error, Problem):
        return error
    if is_away(error):
        return unavailable("store_unavailable", "The database cannot serve at the moment. Please try again.")
    status = error.status_code if isinstance(error, SanicException) else 500
    code, detail = FRAMEWORK.get(status, FRAMEWORK[400 if status < 500 else 500])
    headers = dict(getattr(error, "headers", {}))
    if status == 503:
        headers["Retry-After"] = str(RETRY_SECONDS)
    return Problem(status, code, detail, headers=headers)


class ProblemHandler(ErrorHandler):
    """Answer every error, the framework's included, with a problem."""

    def default(self, request: Request, exception: Exception) -> HTTPResponse:
        """Log what needs a look, and answer."""
        problem = as_problem(exception)
        if problem.status_code == 405 and "Allow" not in problem.headers:
            problem.headers["Allow"] = allowed(request)
        if is_away(exception):
            error_logger.error("%s: database: %s", request_id(request), trouble(exception))
        elif problem.status_code == 500 and not isinstance(exception, CancelledError):  # whose client has left
            error_logger.error("%s: unforeseen", request_id(request), exc_info=exception)
        if request.stream is not None and problem.status_code in (408, 413, 503):
            # Sanic would wait for the rest of a body that may never come, and keep the connection for ever.
            request.stream.request_body = None  # type: ignore[misc]
            request.stream.keep_alive = False  # type: ignore[attr-defined]
        return problem_response(request, problem)
