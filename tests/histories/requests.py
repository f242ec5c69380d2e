"""The requests of the clients: what a step of a program becomes, and what its response says."""

import json
from base64 import urlsafe_b64decode
from dataclasses import dataclass, replace
from http import HTTPStatus

from app.models.users import Access
from tests.conftest import Document
from tests.histories.connections import Response
from tests.histories.knowledge import KnownSession, KnownUser
from tests.histories.programs import Step
from tests.histories.records import (
    NO_EFFECT,
    OK,
    UNKNOWN,
    WRONG_PASSWORD,
    Kind,
    Operation,
    UserSeen,
)

# A step's value chooses one. Values up to programs.DEMOTION choose the first ones, which take an administrator's rank.
CHANGES: tuple[tuple[Access | None, bool | None], ...] = (
    (Access.USER, None),
    (None, True),
    (Access.ADMIN, None),
    (Access.ADMIN, False),
    (Access.ADMIN, False),
    (None, False),
    (None, False),
    (Access.USER, False),
    (Access.USER, False),
    (Access.GUEST, None),
)
OLDER_PASSWORD, NOT_A_PASSWORD = 0.75, 0.88  # from these values on, a login sends an older password, or a wrong one
PREVIOUS_TOKEN, OLDER_TOKEN = 0.6, 0.85  # from these values on, a refresh sends the previous token, or an older one
ANOTHER_USER = 0.9  # from this value on, a user tries to end a session of any user
MUST_LOG_IN = 10  # without an active session, one request in so many is sent nevertheless, the others become logins


@dataclass(frozen=True)
class Request:
    """A request, and its operation without times and outcome."""

    operation: Operation
    method: str
    path: str
    token: str | None = None
    body: Document | None = None


def password_text(number: int) -> str:
    """Return the password with this number."""
    return "not the password of any user" if number == WRONG_PASSWORD else f"password number {number} of a user"


class Requests:
    """Makes requests of steps."""

    def __init__(self, users: list[KnownUser]) -> None:
        self._users = users
        self._count = 0
        self._passwords = 0

    def of(self, step: Step, client: str, again: str | None = None) -> Request:
        """Return the request of a step. `again` is the refresh token to be sent, if it is not a new choice."""
        user = self._users[step.user]
        session = user.session(step.session)
        operation = self.operation(step.kind, client, user.name, step.service)
        if step.kind is Kind.REGISTER and not user.id:
            return self._register(operation)
        must_log_in = not user.has_active_session and step.other % MUST_LOG_IN
        if session is None or must_log_in or step.kind in (Kind.REGISTER, Kind.LOGIN):
            return log_in(operation, self._password(user, step.value))
        if step.kind is Kind.REFRESH:
            return refresh(operation, again or _refresh_token(session, step.value))
        operation = replace(operation, session=session.id)
        if step.kind in PLAIN:
            return plain(operation, session)
        return self._protected(step, operation, user, session)

    def operation(self, kind: Kind, client: str, user: str = "", service: int = 0) -> Operation:
        """Return a new operation."""
        self._count += 1
        return Operation(
            self._count, kind, invoked=0, ended=0, outcome=UNKNOWN, user=user, client=client, service=service
        )

    def _protected(self, step: Step, operation: Operation, user: KnownUser, session: KnownSession) -> Request:
        token = session.access_token
        match operation.kind:
            case Kind.PASSWORD:
                return self._change_password(operation, user, step.value, token)
            case Kind.DELETE_ME:
                operation = replace(operation, password=self._password(user, step.value))
                body = {"current_password": password_text(operation.password)}
                return Request(operation, "POST", "/users/me/delete", token, body)
            case Kind.END_SESSION:
                owner = user if step.value < ANOTHER_USER else self._users[step.other % len(self._users)]
                target = owner.session(step.other) or session
                operation = replace(operation, target=target.id)
                return Request(operation, "DELETE", f"/auth/sessions/{target.id}", token)
        return self._administer(step, operation, token)

    def _register(self, operation: Operation) -> Request:
        operation = replace(operation, password=self._new_password())
        body = {"username": operation.user, "password": password_text(operation.password)}
        return Request(operation, "POST", "/users/registration", body=body)

    def _change_password(self, operation: Operation, user: KnownUser, value: float, token: str) -> Request:
        operation = replace(operation, password=self._password(user, value), new_password=self._new_password())
        body = {
            "current_password": password_text(operation.password),
            "new_password": password_text(operation.new_password),
        }
        return Request(operation, "POST", "/users/me/password", token, body)

    def _administer(self, step: Step, operation: Operation, token: str) -> Request:
        targets = [user for user in self._users if user.id]
        target = targets[step.other % len(targets)]
        operation, path = replace(operation, target=target.name), f"/users/{target.id}"
        if operation.kind is not Kind.PATCH_USER:
            return Request(operation, "GET" if operation.kind is Kind.GET_USER else "DELETE", path, token)
        access, disabled = CHANGES[int(step.value * len(CHANGES))]
        body: Document = {} if access is None else {"access": access.name.lower()}
        body |= {} if disabled is None else {"disabled": disabled}
        return Request(replace(operation, access=access, disabled=disabled), "PATCH", path, token, body)

    def _password(self, user: KnownUser, value: float) -> int:
        if value >= NOT_A_PASSWORD:
            return WRONG_PASSWORD
        if value >= OLDER_PASSWORD:
            return user.passwords[int(value * 1000) % len(user.passwords)]
        return user.passwords[-1]

    def _new_password(self) -> int:
        self._passwords += 1
        return self._passwords


PLAIN = {
    Kind.LOGOUT: ("POST", "/auth/logout"),
    Kind.LOGOUT_ALL: ("POST", "/auth/logout-all"),
    Kind.SESSIONS: ("GET", "/auth/sessions"),
    Kind.ME: ("GET", "/auth/me"),
    Kind.SECRET: ("GET", "/tests/secret"),
}


def log_in(operation: Operation, password: int) -> Request:
    """Return a login."""
    operation = replace(operation, kind=Kind.LOGIN, password=password)
    body = {"username": operation.user, "password": password_text(password)}
    return Request(operation, "POST", "/auth", body=body)


def plain(operation: Operation, session: KnownSession) -> Request:
    """Return a request without a body that presents the access token of a session."""
    method, path = PLAIN[operation.kind]
    return Request(replace(operation, session=session.id), method, path, session.access_token)


def refresh(operation: Operation, refresh_token: str) -> Request:
    """Return a refresh with this token."""
    session, counter, _ = refresh_token.split(".")
    operation = replace(operation, session=session, counter=int(counter))
    return Request(operation, "POST", "/auth/refresh", body={"refresh_token": refresh_token})


def answered(operation: Operation, response: Response) -> tuple[Operation, Document]:
    """Return the operation with its outcome, and the body of the response."""
    body = response.body
    if not response.is_success:
        code = str(body.get("code", "no code"))
        unknown = response.status == HTTPStatus.SERVICE_UNAVAILABLE and code not in NO_EFFECT
        return replace(operation, outcome=UNKNOWN if unknown else code), body
    operation = replace(operation, outcome=OK)
    if "refresh_token" in body:
        operation = _with_tokens(operation, body)
    if "access" in body:
        seen = UserSeen(Access[body["access"].upper()], body["disabled"], body["username"])
        operation = replace(operation, user_seen=seen)
    if "sessions" in body:
        operation = replace(operation, sessions_seen=frozenset(one["id"] for one in body["sessions"]))
    return operation, body


def _with_tokens(operation: Operation, body: Document) -> Operation:
    encoded = body["access_token"].split(".")[1]
    claims = json.loads(urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    operation = replace(
        operation,
        refresh_token=body["refresh_token"],
        token_session=claims["sid"],
        scope=max(Access[name.upper()] for name in claims["scopes"]),
    )
    if operation.kind is Kind.REFRESH:
        return operation
    return replace(operation, opened=body["refresh_token"].partition(".")[0])


def _refresh_token(session: KnownSession, value: float) -> str:
    """Choose a refresh token: usually the latest one."""
    tokens = session.refresh_tokens
    if value < PREVIOUS_TOKEN or len(tokens) == 1:
        return tokens[-1]
    if value < OLDER_TOKEN:
        return tokens[-2]
    return tokens[int(value * 1000) % len(tokens)]
