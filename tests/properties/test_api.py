"""Tests of every route with valid and invalid input generated from the OpenAPI description of the service.

PROPERTY_EXAMPLES=600 sends about 20,000 requests.
"""

import asyncio
import secrets
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest
import requests
import schemathesis
from hypothesis import given
from hypothesis import strategies as st
from schemathesis import Case, CheckContext, GenerationMode, Response
from schemathesis.config import SchemathesisConfig
from schemathesis.schemas import BaseSchema

from app.http.client import Client
from app.models.users import Access, User
from app.schemas.auth import Tokens
from config import Config
from tests.conftest import PASSWORD, Service
from tests.properties import repeatable
from tests.routes import ROUTES

T = TypeVar("T")
INTERNALS = ("Traceback", "$argon2", "pymongo", "motor", "passlib", "pydantic")  # must not be in a response
# A password that matches its schema can still be too short, too common or equal to the username.
EXPECTED_FOR_VALID_INPUT = ["2xx", "401", "403", "404", "409", "422"]
SCHEMATHESIS = {
    "seed": 1,
    # The user sends a valid token, which would overwrite a generated one.
    "generation": {"deterministic": True, "database": "none", "with-security-parameters": False},
    "checks": {
        "positive_data_acceptance": {"expected-statuses": EXPECTED_FOR_VALID_INPUT},
        "unsupported_method": {"enabled": False},  # see test_405_responses_list_the_allowed_methods
    },
    "operations": [
        {
            "include-path-regex": "^/oauth/",  # where RFC 6749 has 400 also for a wrong password
            "checks": {
                "positive_data_acceptance": {"expected-statuses": [*EXPECTED_FOR_VALID_INPUT, "400"]},
                "negative_data_rejection": {"expected-statuses": ["4xx"]},  # 413 for long texts in percent-encoding
            },
        }
    ],
    "phases": {
        "examples": {"enabled": False},
        # Responses contain random ids; input taken from them would make the runs different.
        "fuzzing": {"extra-data-sources": {"responses": False}, "error-feedback": {"enabled": False}},
        "coverage": {"extra-data-sources": {"responses": False}},
    },
}


class Served:
    """A service that runs in its own thread, because the client of these tests is synchronous."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.session = requests.Session()
        self.session.trust_env = False  # use no proxy and no .netrc file
        self._loop = service._client._loop
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> "Served":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the event loop of the service and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


class Requester:
    """A user who always has a valid token, also after the session, the password or the account has changed."""

    def __init__(self, served: Served, access: Access, password_hash: str) -> None:
        self._served = served
        self._ctx = served.service.app.ctx
        self._access = access
        self._password_hash = password_hash
        self._other_user: User | None = None
        self._register()

    def _register(self) -> None:
        self.password = PASSWORD
        self.user = self._add(self._access)
        self._tokens: Tokens | None = None

    def _add(self, access: Access) -> User:
        user = User.new(f"user-{secrets.token_hex(6)}", self._password_hash, access)
        self._served.wait(self._ctx.users.add(user))
        return user

    @property
    def tokens(self) -> Tokens:
        """The tokens of an active session."""
        if self._tokens is None:
            user = self._served.wait(self._ctx.users.by_id(self.user.id))
            assert user
            self._tokens = self._served.wait(self._ctx.logins.open(user, Client("127.0.0.1", ("127.0.0.1",), "test")))
        return self._tokens

    @property
    def other_user(self) -> User:
        """Another user, who exists until a response confirms the deletion."""
        self._other_user = self._other_user or self._add(Access.GUEST)
        return self._other_user

    def fill_in(self, case: Case[Any]) -> None:
        """Replace generated values of a valid request with those of this user; do not change an invalid request."""
        if not case.meta or not case.meta.generation.mode.is_positive:
            return
        known = {
            "username": self.user.username,
            "password": self.password,
            "current_password": self.password,
            "refresh_token": self.tokens.refresh_token,
        }
        if isinstance(case.body, dict) and "registration" not in case.path:
            case.body = {name: known.get(name, value) for name, value in case.body.items()}
        # Half of the ids stay unknown ids.
        for name, value in case.path_parameters.items():
            if ord(value[-1]) % 2:
                session_id = self.tokens.refresh_token.partition(".")[0]
                case.path_parameters = {name: self.other_user.id if name == "user_id" else session_id}

    def update(self, case: Case[Any], response: Response) -> None:
        """Update this user to the changes that the response confirms."""
        label = case.operation.label
        if label == "POST /users/me/password" and response.status_code == 200:
            assert isinstance(case.body, dict)
            self.password = str(case.body["new_password"])
        if label == "POST /users/me/delete" and response.status_code == 204:
            self._register()
        if label == "DELETE /users/{user_id}" and response.status_code == 204:
            self._other_user = None
        if case.method != "GET" and (response.status_code < 300 or response.status_code == 401):
            self._tokens = None


def declared_codes(case: Case[Any], status: int) -> list[str]:
    """Return the error codes that the description of an operation declares for a status."""
    response = case.operation.definition.raw["responses"][str(status)]
    if "$ref" in response:
        response = case.operation.schema.raw_schema["components"]["responses"][response["$ref"].split("/")[-1]]
    schema = response["content"]["application/problem+json"]["schema"]
    codes: list[str] = schema["allOf"][1]["properties"]["code"]["enum"]
    return codes


def check_problem_details(_: CheckContext, response: Response, case: Case[Any]) -> None:
    """Fail if an error response is not as specified.

    It has problem details (RFC 9457), the headers of its status, and an error code that its route declares.
    """
    if response.status_code < 400:
        return
    headers = {name: values[0] for name, values in response.headers.items()}
    assert headers["cache-control"] == "no-store"
    if response.status_code == 400 and case.operation.path.startswith("/oauth/") and "error" in response.json():
        assert set(response.json()) == {"error", "error_description"}
        return
    assert headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == response.status_code
    assert problem["code"] in declared_codes(case, response.status_code)
    assert (problem["code"] == "invalid_fields") == bool(problem.get("errors"))
    assert (response.status_code == 401) <= headers.get("www-authenticate", "").startswith("Bearer")
    assert (response.status_code in (429, 503)) == ("retry-after" in headers)


@pytest.fixture(scope="module")
def served(config: Config) -> Iterator[Served]:
    """Run a service without rate limits. A process has one OpenAPI description, that of its last app."""
    unlimited = dict.fromkeys(
        ("LOGIN_FAILURES_PER_PAIR", "LOGIN_FAILURES_PER_ACCOUNT", "LOGIN_FAILURES_PER_ADDRESS"), "1000000/minute"
    )
    capabilities = {"ENCRYPTION_KEY": secrets.token_urlsafe(48), "PUBLIC_URL": "https://demo.example"}
    with Service(config.model_copy(update=unlimited | capabilities)) as service, Served(service) as served:
        yield served


@pytest.fixture(scope="module")
def description(served: Served) -> BaseSchema:
    """Get the OpenAPI description from the service."""
    host, port = served.service.address
    url = f"http://{host}:{port}"
    document = served.session.get(f"{url}/docs/openapi.json").json()
    return schemathesis.openapi.from_dict(
        document, config=SchemathesisConfig.from_dict({"base-url": url, **SCHEMATHESIS})
    )


@pytest.fixture(scope="module")
def password_hash(served: Served) -> str:
    """Hash the password once for all users."""
    password_hash: str = served.wait(served.service.app.ctx.passwords.hash(PASSWORD))
    return password_hash


@pytest.fixture(scope="module", params=[None, Access.USER, Access.ADMIN], ids=["anonymous", "user", "admin"])
def requester(request: pytest.FixtureRequest, served: Served, password_hash: str) -> Requester | None:
    """Return the sender of requests: None for a client without a token, a user, or an administrator."""
    return Requester(served, request.param, password_hash) if request.param is not None else None


def send_and_validate(served: Served, requester: Requester | None, case: Case[Any]) -> None:
    """Send one request and fail if the response does not match the description."""
    headers = {}
    if requester:
        requester.fill_in(case)
        headers["Authorization"] = f"Bearer {requester.tokens.access_token}"
    response = case.call_and_validate(
        session=served.session, headers=headers, additional_checks=[check_problem_details]
    )
    content = response.content.decode()
    assert not [word for word in (*INTERNALS, requester.password if requester else PASSWORD) if word in content]
    if requester:
        requester.update(case, response)


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_responses_match_the_description_for_generated_input(
    description: BaseSchema, served: Served, requester: Requester | None, route: tuple[str, str]
) -> None:
    """Invalid input is rejected, valid input is accepted, and no response is a server error."""
    method, path = route
    operation = description[path][method]
    inputs = st.one_of([operation.as_strategy(mode) for mode in GenerationMode])

    @repeatable(4)
    @given(inputs)
    def send(case: Case[Any]) -> None:
        send_and_validate(served, requester, case)

    send()


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_responses_match_the_description_at_boundary_values(
    description: BaseSchema, served: Served, requester: Requester | None, route: tuple[str, str]
) -> None:
    """Minimum and maximum values, values beyond them, and fields that are missing, additional or of another type."""
    method, path = route
    operation = description[path][method]
    for case in description.iter_coverage_cases(
        operation, generation_modes=list(GenerationMode), generation_config=description.config.generation
    ):
        send_and_validate(served, requester, case)


@pytest.mark.parametrize("path", sorted({path for _, path in ROUTES}))
def test_405_responses_list_the_allowed_methods(description: BaseSchema, served: Served, path: str) -> None:
    allowed = {method.upper() for method, of in ROUTES if of == path}
    parameters = description[path][next(iter(allowed))].definition.raw.get("parameters", [])
    host, port = served.service.address
    url = f"http://{host}:{port}{path}".format(**{one["name"]: one.get("example") for one in parameters})
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - allowed:
        response = served.session.request(method, url)
        assert response.status_code == 405
        assert set(response.headers.get("allow", "").split(", ")) - {"HEAD", "OPTIONS"} == allowed
