"""What the clients of a history know: users, passwords and tokens.

They share it, as attackers with stolen tokens do.
"""

from dataclasses import dataclass, field

from app.models.users import Access
from tests.conftest import Document
from tests.histories.records import (
    CHANGES_OWN_USER,
    CHANGES_TARGET,
    OK,
    REUSED,
    SESSION_ENDED,
    UNKNOWN,
    WRONG_CREDENTIALS,
    Kind,
    Operation,
)

ENDED_SHARE = 6  # one request in so many may present a session that has probably ended


@dataclass
class KnownSession:
    """A session and its tokens."""

    id: str
    access_token: str
    refresh_tokens: list[str]  # by counter; the last one is the latest that the clients know
    ended: bool = False  # as far as the clients know


@dataclass
class KnownUser:
    """A user."""

    name: str
    id: str  # empty for a name that is free at the start
    access: Access
    passwords: list[int] = field(default_factory=lambda: [0])  # the last one is the current one, as far as they know
    sessions: list[KnownSession] = field(default_factory=list)

    def session(self, choice: int) -> KnownSession | None:
        """Return one of the sessions, usually an active one; None without any."""
        active = [session for session in self.sessions if not session.ended]
        pool = self.sessions if choice % ENDED_SHARE == 0 or not active else active
        return pool[choice // ENDED_SHARE % len(pool)] if pool else None

    @property
    def has_active_session(self) -> bool:
        """Whether any session is active, as far as the clients know."""
        return any(not session.ended for session in self.sessions)

    def end_all(self, *, but: str = "") -> None:
        """Take all sessions for ended, except one."""
        for session in self.sessions:
            session.ended = session.ended or session.id != but


class Knowledge:
    """All that the clients know."""

    def __init__(self, users: list[KnownUser]) -> None:
        self.users = users
        self._by_name = {user.name: user for user in users}
        self._sessions: dict[str, KnownSession] = {}

    def learn(self, operation: Operation, body: Document) -> None:
        """Learn from an outcome and the body of its response."""
        user = self._by_name.get(operation.user)
        if user is None:
            return
        if operation.opened:
            session = KnownSession(operation.opened, body["access_token"], [body["refresh_token"]])
            user.sessions.append(session)
            self._sessions[session.id] = session
        if operation.kind is Kind.REFRESH and operation.outcome == OK:
            self._refreshed(operation, body)
        self._learn_passwords(operation, user)
        self._learn_ends(operation, user)

    def _refreshed(self, operation: Operation, body: Document) -> None:
        session = self._sessions[operation.session]
        session.access_token = body["access_token"]
        if len(session.refresh_tokens) == operation.counter + 1:
            session.refresh_tokens.append(body["refresh_token"])

    def _learn_passwords(self, operation: Operation, user: KnownUser) -> None:
        if operation.kind is Kind.LOGIN and operation.outcome == WRONG_CREDENTIALS:
            if operation.password == user.passwords[-1]:  # perhaps a change with an unknown outcome took effect
                user.passwords.insert(0, user.passwords.pop())
        elif operation.kind is Kind.REGISTER and operation.outcome in (OK, UNKNOWN):
            user.passwords.append(operation.password)
        elif operation.kind is Kind.PASSWORD and operation.outcome in (OK, UNKNOWN):
            user.passwords.append(operation.new_password)

    def _learn_ends(self, operation: Operation, user: KnownUser) -> None:
        if operation.outcome in (SESSION_ENDED, REUSED):
            self._sessions[operation.session].ended = True
        if operation.outcome != OK:
            return
        if operation.kind is Kind.LOGOUT:
            self._sessions[operation.session].ended = True
        elif operation.kind is Kind.END_SESSION:
            self._sessions[operation.target].ended = True
        elif operation.kind in CHANGES_OWN_USER:
            user.end_all(but=operation.opened)
        elif operation.kind in CHANGES_TARGET:
            self._by_name[operation.target].end_all()
