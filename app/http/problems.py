"""Refusals, and the one shape in which every error is answered: RFC 9457 problem details."""

import re
from asyncio import CancelledError
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field
from sanic import HTTPResponse, Request
from sanic.exceptions import SanicException
from sanic.handlers import ErrorHandler
from sanic.log import error_logger

from app.http.client import request_id
from app.http.codes import Code
from app.http.cors import is_preflight
from app.http.responses import no_content, respond

RETRY_SECONDS = 2
BEARER = 'Bearer realm="api"'
CONTENT_TYPE = "application/problem+json"

# The codes of errors that the framework raises, by their status.
FRAMEWORK: dict[int, Code] = {
    code.status: code
    for code in (
        Code.BAD_REQUEST,
        Code.UNAUTHORIZED,
        Code.FORBIDDEN,
        Code.NOT_FOUND,
        Code.METHOD_NOT_ALLOWED,
        Code.REQUEST_TIMEOUT,
        Code.PAYLOAD_TOO_LARGE,
        Code.EXPECTATION_FAILED,
        Code.INTERNAL_ERROR,
        Code.UNAVAILABLE,
    )
}


class FieldError(BaseModel):
    """What is wrong with one field."""

    field: str
    message: str


class ProblemDetails(BaseModel):
    """An error (RFC 9457)."""

    type: str = "about:blank"
    title: str = Field(examples=["Unauthorized"])
    status: int = Field(examples=[401])
    detail: str = Field(description="A sentence for people; it may change.")
    code: str = Field(description="A stable code for programs.")
    request_id: str = Field(examples=["0f8fad5bd9cb469fa16570867728950e"])
    errors: list[FieldError] | None = None  # only of invalid_fields
    challenge: str | None = Field(
        default=None, description="Of second_factor_required at a login: for POST /auth/second-factor."
    )
    factors: list[str] | None = Field(
        default=None, description="Of second_factor_required: what the user has.", examples=[["totp", "recovery_code"]]
    )


class Problem(SanicException):
    """A refusal with a stable code, answered as problem details.

    `detail` replaces the code's sentence, `retry_after` (seconds) the default for a status that has the header. `log`
    is for the log alone, `challenge` has further parameters of WWW-Authenticate, `members` those of the body.
    """

    quiet = True

    def __init__(
        self,
        code: Code,
        detail: str | None = None,
        *,
        errors: list[FieldError] | None = None,
        headers: Mapping[str, str] | None = None,
        retry_after: int = RETRY_SECONDS,
        log: str | None = None,
        challenge: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        self.members = members or {}
        self.code = code
        self.detail = detail or code.detail
        self.errors = errors
        self.log = log
        super().__init__(self.detail, status_code=code.status)
        self.headers = {**self._headers(retry_after, challenge or {}), **(headers or {})}

    def _headers(self, retry_after: int, parameters: Mapping[str, str]) -> dict[str, str]:
        """Return the headers that belong to the status (RFC 6585 section 4, RFC 6750 section 3)."""
        if self.code.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
            return {"Retry-After": str(retry_after)}
        if self.code.error == "invalid_token":
            challenge = f'{BEARER}, error="invalid_token", error_description="{self.detail}"'
        elif self.code.error:
            challenge = f'{BEARER}, error="{self.code.error}"'
        elif self.code.status == HTTPStatus.UNAUTHORIZED:
            challenge = BEARER
        else:
            return {}
        return {"WWW-Authenticate": challenge + "".join(f', {name}="{value}"' for name, value in parameters.items())}


def invalid_fields(*errors: FieldError) -> Problem:
    """Refuse well-formed input whose fields break a rule."""
    return Problem(Code.INVALID_FIELDS, errors=list(errors))


def problem_body(problem: Problem, request_id: str) -> bytes:
    """Return the body of a refusal's response."""
    details = ProblemDetails(
        title=HTTPStatus(problem.code.status).phrase,
        status=problem.code.status,
        detail=problem.detail,
        code=problem.code,
        request_id=request_id,
        errors=problem.errors,
        **problem.members,
    )
    return details.model_dump_json(exclude_none=True).encode()


def problem_response(request: Request, problem: Problem) -> HTTPResponse:
    """Make the response of a refusal."""
    body = problem_body(problem, request_id(request))
    return respond(body, problem.code.status, content_type=CONTENT_TYPE, headers=problem.headers)


def allowed_methods(request: Request) -> str:
    """Return the methods of a path with parameters.

    Sanic lists them for all other paths (RFC 9110 section 15.5.6), and ignores a trailing slash.
    """
    routes = [route for group in request.app.router.regex_routes.values() for route in group]
    here = [route for route in routes if re.fullmatch(route.pattern, request.path.removesuffix("/"))]
    return ", ".join(sorted({method for route in here for method in route.methods}))


def framework_problem(error: Exception) -> Problem:
    """Translate an error of the framework; an unexpected exception reveals nothing."""
    status = error.status_code if isinstance(error, SanicException) else 500
    code = FRAMEWORK.get(status, FRAMEWORK[400 if status < 500 else 500])
    return Problem(code, headers=getattr(error, "headers", {}))


class ProblemHandler(ErrorHandler):
    """The error handler of the app: answers every exception with problem details.

    `translate` returns the refusal that a domain exception stands for, or None. `is_new` returns whether the reason of
    a refusal must be logged: many requests are refused for the same one.
    """

    def __init__(
        self, translate: Callable[[Exception], Problem | None], is_new: Callable[[str], bool] = lambda _: True
    ) -> None:
        super().__init__()
        self._translate = translate
        self._is_new = is_new

    def default(self, request: Request, exception: Exception) -> HTTPResponse:
        """Log what needs attention, and respond."""
        if isinstance(exception, Problem):
            problem = exception
        else:
            problem = self._translate(exception) or framework_problem(exception)
        if problem.code is Code.NOT_FOUND and request.app.ctx.cors and is_preflight(request):
            return no_content()  # or the browser would not send the request, whose refusal the script can read
        if problem.code is Code.METHOD_NOT_ALLOWED and "Allow" not in problem.headers:
            problem.headers["Allow"] = allowed_methods(request)
        if problem.log:
            if self._is_new(problem.log):
                error_logger.error("%s: %s: %s", request_id(request), problem.code, problem.log)
        elif problem.code is Code.INTERNAL_ERROR and not isinstance(exception, CancelledError):  # the client has left
            error_logger.error("%s: unexpected exception", request_id(request), exc_info=exception)
        if request.stream is not None and problem.code.status in (408, 413, 503):
            # Sanic would wait for the rest of a body that may never arrive, and keep the connection open.
            request.stream.request_body = None  # type: ignore[misc]
            request.stream.keep_alive = False  # type: ignore[attr-defined]
        return problem_response(request, problem)
