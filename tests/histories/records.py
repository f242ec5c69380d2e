"""The record of a history: each request with its times, its parameters and its outcome."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from app.models.users import Access


class Kind(StrEnum):
    """The kinds of operations."""

    REGISTER = "register"
    LOGIN = "login"
    REFRESH = "refresh"
    LOGOUT = "logout"
    LOGOUT_ALL = "logout-all"
    SESSIONS = "list sessions"
    END_SESSION = "end session"
    PASSWORD = "change password"
    DELETE_ME = "delete own account"
    ME = "get me"
    SECRET = "get secret"
    GET_USER = "get user"
    PATCH_USER = "patch user"
    DELETE_USER = "delete user"
    # Not a request: the time between the last fault and the last requests, in which workers finish interrupted ends.
    SETTLE = "settle"


OK = "ok"  # a success response
UNKNOWN = "unknown"  # 503, a lost connection or no response in time: the operation may take effect at any later time
SESSION_ENDED = "session_ended"
REUSED = "refresh_token_reused"
WRONG_CREDENTIALS = "wrong_credentials"
USERNAME_TAKEN = "username_taken"
INSUFFICIENT_SCOPE = "insufficient_scope"
NOT_FOUND = "not_found"
REVOCATIONS_STALE = "revocations_stale"
HASHING_BUSY = "hashing_busy"
NO_EFFECT = frozenset({REVOCATIONS_STALE, HASHING_BUSY})  # 503 before anything is done

# The operations that change a user and end all its sessions.
CHANGES_OWN_USER = frozenset({Kind.LOGOUT_ALL, Kind.PASSWORD, Kind.DELETE_ME})
CHANGES_TARGET = frozenset({Kind.PATCH_USER, Kind.DELETE_USER})
ADMINISTRATION = CHANGES_TARGET | {Kind.GET_USER}
# The operations with an access token. The worker's memory can reject all of them.
PROTECTED = ADMINISTRATION | CHANGES_OWN_USER | {Kind.LOGOUT, Kind.SESSIONS, Kind.END_SESSION, Kind.ME, Kind.SECRET}
# Those that nothing else can reject as session_ended.
REJECTED_FROM_MEMORY = frozenset({Kind.LOGOUT, Kind.SESSIONS, Kind.SECRET, Kind.GET_USER})

WRONG_PASSWORD = -1


@dataclass(frozen=True, slots=True)
class UserSeen:
    """What a response says about a user."""

    access: Access
    disabled: bool
    name: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation: a request, its times in seconds of the checker's monotonic clock, and its outcome.

    Passwords are numbers, WRONG_PASSWORD stands for one that no user has.
    """

    number: int
    kind: Kind
    invoked: float
    ended: float  # when the client had a response, or had given up
    outcome: str  # OK, UNKNOWN, or the code of a refusal
    user: str = ""  # the user who registers, logs in, or owns the session
    session: str = ""  # the session whose access token or refresh token the request presents
    counter: int = 0  # of the refresh token
    target: str = ""  # the user or the session that the request is about
    password: int = 0
    new_password: int = 0
    access: Access | None = None  # the new access level
    disabled: bool | None = None
    opened: str = ""  # the session of the new tokens
    scope: Access = Access.USER  # the access level in the scopes of the new access token
    refresh_token: str = ""  # the new one
    token_session: str = ""  # the session in the new access token
    user_seen: UserSeen | None = None
    sessions_seen: frozenset[str] = frozenset()
    client: str = ""
    service: int = 0

    @property
    def known(self) -> bool:
        """Whether the response tells the outcome."""
        return self.outcome != UNKNOWN

    @property
    def completed(self) -> float:
        """The time after which the operation has no further effect on others; unknown outcomes have none."""
        return self.ended if self.known else math.inf

    @property
    def accepted(self) -> bool:
        """Whether a worker certainly accepted the access token."""
        refused = {UNKNOWN, SESSION_ENDED, REVOCATIONS_STALE}
        return self.kind in PROTECTED and self.outcome not in refused


@dataclass(frozen=True, slots=True)
class Injected:
    """A fault, and when it was injected, by the clock of the operations."""

    fault: str
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class History:
    """The users at the start with their access levels, and all operations. Their first password is number 0."""

    users: Mapping[str, Access]
    operations: tuple[Operation, ...]
