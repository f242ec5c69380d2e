"""Every route, driven from the service's own OpenAPI description with inputs good and bad, is as it is described.

PROPERTY_EXAMPLES=600 makes some 20,000 requests of it.
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
INSIDE = ("Traceback", "$argon2", "pymongo", "motor", "passlib", "pydantic")  # what no client is told
# A password that keeps to its description may still be too short, too common or the username.
ALLOWED_FOR_GOOD_INPUT = ["2xx", "401", "403", "404", "409", "422"]
DESCRIPTION = {
    "seed": 1,
    # The visitor brings the token; one more, made up, would be overwritten.
    "generation": {"deterministic": True, "database": "none", "with-security-parameters": False},
    "checks": {
        "positive_data_acceptance": {"expected-statuses": ALLOWED_FOR_GOOD_INPUT},
        "unsupported_method": {"enabled": False},  # has a test of its own below
    },
    "phases": {
        "examples": {"enabled": False},
        # What earlier answers said would make each run another one, since they tell random ids.
        "fuzzing": {"extra-data-sources": {"responses": False}, "error-feedback": {"enabled": False}},
        "coverage": {"extra-data-sources": {"responses": False}},
    },
}


class Served:
    """A service that answers from a thread of its own, because the client of these tests waits."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.session = requests.Session()
        self.session.trust_env = False  # no proxy, no netrc
        self._loop = service._client._loop
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> "Served":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def wait(self, what: Coroutine[Any, Any, T]) -> T:
        """Wait for something that must happen on the service's loop."""
        return asyncio.run_coroutine_threadsafe(what, self._loop).result()


class Visitor:
    """Somebody with an account, who has a token whatever happens to the session, the password or the account."""

    def __init__(self, served: Served, access: Access, password_hash: str) -> None:
        self._served = served
        self._ctx = served.service.app.ctx
        self._access = access
        self._password_hash = password_hash
        self._neighbour: User | None = None
        self._settle()

    def _settle(self) -> None:
        self.password = PASSWORD
        self.user = self._add(self._access)
        self._tokens: Tokens | None = None

    def _add(self, access: Access) -> User:
        user = User.new(f"visitor-{secrets.token_hex(6)}", self._password_hash, access)
        self._served.wait(self._ctx.users.add(user))
        return user

    @property
    def tokens(self) -> Tokens:
        """The tokens of a session that goes on."""
        if self._tokens is None:
            now = self._served.wait(self._ctx.users.by_id(self.user.id))
            assert now
            self._tokens = self._served.wait(self._ctx.logins.open(now, Client("127.0.0.1", "127.0.0.1", "test")))
        return self._tokens

    @property
    def neighbour(self) -> User:
        """Another user, who is there until the answer says otherwise."""
        self._neighbour = self._neighbour or self._add(Access.GUEST)
        return self._neighbour

    def fill_in(self, case: Case[Any]) -> None:
        """Put into a good request what only this visitor can know; a bad one stays as it is."""
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
        # Every other id stays one that is nobody's.
        for name, value in case.path_parameters.items():
            if ord(value[-1]) % 2:
                session_id = self.tokens.refresh_token.partition(".")[0]
                case.path_parameters = {name: self.neighbour.id if name == "user_id" else session_id}

    def take_note(self, case: Case[Any], response: Response) -> None:
        """Follow what the answer says has happened."""
        label = case.operation.label
        if label == "POST /users/me/password" and response.status_code == 200:
            assert isinstance(case.body, dict)
            self.password = str(case.body["new_password"])
        if label == "POST /users/me/delete" and response.status_code == 204:
            self._settle()
        if label == "DELETE /users/{user_id}" and response.status_code == 204:
            self._neighbour = None
        if case.method != "GET" and (response.status_code < 300 or response.status_code == 401):
            self._tokens = None


def declared_codes(case: Case[Any], status: int) -> list[str]:
    """Return the codes that the description of an operation lists for a status."""
    response = case.operation.definition.raw["responses"][str(status)]
    if "$ref" in response:
        response = case.operation.schema.raw_schema["components"]["responses"][response["$ref"].split("/")[-1]]
    schema = response["content"]["application/problem+json"]["schema"]
    codes: list[str] = schema["allOf"][1]["properties"]["code"]["enum"]
    return codes


def a_problem_is_complete(_: CheckContext, response: Response, case: Case[Any]) -> None:
    """Refusals have the one shape, the headers that belong to their status, and a code of their route."""
    if response.status_code < 400:
        return
    headers = {name: values[0] for name, values in response.headers.items()}
    assert headers["content-type"] == "application/problem+json"
    assert headers["cache-control"] == "no-store"
    problem = response.json()
    assert problem["status"] == response.status_code
    assert problem["code"] in declared_codes(case, response.status_code)
    assert (response.status_code == 422) == bool(problem.get("errors"))
    assert (response.status_code == 401) <= headers.get("www-authenticate", "").startswith("Bearer")
    assert (response.status_code in (429, 503)) == ("retry-after" in headers)


@pytest.fixture(scope="module")
def served(config: Config) -> Iterator[Served]:
    """Run a service without limits of attempts; it is the last one made, which the process describes."""
    unlimited = dict.fromkeys(
        ("LOGIN_FAILURES_PER_PAIR", "LOGIN_FAILURES_PER_ACCOUNT", "LOGIN_FAILURES_PER_ADDRESS"), "1000000/minute"
    )
    with Service(config.model_copy(update=unlimited)) as service, Served(service) as served:
        yield served


@pytest.fixture(scope="module")
def description(served: Served) -> BaseSchema:
    """Read the description as the service gives it."""
    host, port = served.service.address
    url = f"http://{host}:{port}"
    document = served.session.get(f"{url}/docs/openapi.json").json()
    return schemathesis.openapi.from_dict(
        document, config=SchemathesisConfig.from_dict({"base-url": url, **DESCRIPTION})
    )


@pytest.fixture(scope="module")
def password_hash(served: Served) -> str:
    """Hash the password once for all visitors."""
    return served.wait(served.service.app.ctx.passwords.hash(PASSWORD))


@pytest.fixture(scope="module", params=[None, Access.USER, Access.ADMIN], ids=["nobody", "user", "admin"])
def visitor(request: pytest.FixtureRequest, served: Served, password_hash: str) -> Visitor | None:
    """Give who asks: somebody without a token, a user, an administrator."""
    return Visitor(served, request.param, password_hash) if request.param is not None else None


def visit(served: Served, visitor: Visitor | None, case: Case[Any]) -> None:
    """Send one request and show that its answer is as described."""
    headers = {}
    if visitor:
        visitor.fill_in(case)
        headers["Authorization"] = f"Bearer {visitor.tokens.access_token}"
    response = case.call_and_validate(
        session=served.session, headers=headers, additional_checks=[a_problem_is_complete]
    )
    told = response.content.decode()
    assert not [word for word in (*INSIDE, visitor.password if visitor else PASSWORD) if word in told]
    if visitor:
        visitor.take_note(case, response)


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_an_answer_is_as_described_whatever_is_sent(
    description: BaseSchema, served: Served, visitor: Visitor | None, route: tuple[str, str]
) -> None:
    """Bad input is refused and good input is not; no answer is a server error."""
    method, path = route
    operation = description[path][method]
    inputs = st.one_of([operation.as_strategy(mode) for mode in GenerationMode])

    @repeatable(4)
    @given(inputs)
    def visit_with(case: Case[Any]) -> None:
        visit(served, visitor, case)

    visit_with()


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_an_answer_is_as_described_at_the_edges_of_the_description(
    description: BaseSchema, served: Served, visitor: Visitor | None, route: tuple[str, str]
) -> None:
    """Longest and too long, smallest and too small, each field missing, of another type, or one too many."""
    method, path = route
    operation = description[path][method]
    for case in description.iter_coverage_cases(
        operation, generation_modes=list(GenerationMode), generation_config=description.config.generation
    ):
        visit(served, visitor, case)


@pytest.mark.parametrize("path", sorted({path for _, path in ROUTES}))
def test_a_wrong_method_is_told_the_right_ones(description: BaseSchema, served: Served, path: str) -> None:
    right = {method.upper() for method, of in ROUTES if of == path}
    parameters = description[path][next(iter(right))].definition.raw.get("parameters", [])
    host, port = served.service.address
    url = f"http://{host}:{port}{path}".format(**{one["name"]: one.get("example") for one in parameters})
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - right:
        response = served.session.request(method, url)
        assert response.status_code == 405
        assert set(response.headers.get("allow", "").split(", ")) - {"HEAD", "OPTIONS"} == right
