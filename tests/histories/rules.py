"""Rules that hold for each pair of operations.

Most are about access tokens. Workers check these in memory, and learn of ended sessions with a delay, so they are not
linearizable.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.histories.records import (
    ADMINISTRATION,
    CHANGES_OWN_USER,
    CHANGES_TARGET,
    INSUFFICIENT_SCOPE,
    NO_EFFECT,
    NOT_FOUND,
    OK,
    PROTECTED,
    REJECTED_FROM_MEMORY,
    REUSED,
    REVOCATIONS_STALE,
    SESSION_ENDED,
    UNKNOWN,
    USERNAME_TAKEN,
    WRONG_CREDENTIALS,
    History,
    Kind,
    Operation,
)

EXTRA_SECONDS = 1.0  # beyond REVOCATION_STALE_SECONDS
OPENS_SESSION = frozenset({Kind.REGISTER, Kind.LOGIN, Kind.PASSWORD})
REFUSALS: dict[Kind, frozenset[str]] = {
    Kind.REGISTER: frozenset({USERNAME_TAKEN}) | NO_EFFECT,
    Kind.LOGIN: frozenset({WRONG_CREDENTIALS}) | NO_EFFECT,
    Kind.REFRESH: frozenset({SESSION_ENDED, REUSED}),
    Kind.PASSWORD: frozenset({WRONG_CREDENTIALS}) | NO_EFFECT,
    Kind.DELETE_ME: frozenset({WRONG_CREDENTIALS}) | NO_EFFECT,
    Kind.END_SESSION: frozenset({NOT_FOUND}),
    **dict.fromkeys(ADMINISTRATION, frozenset({INSUFFICIENT_SCOPE, NOT_FOUND})),
}


@dataclass(frozen=True)
class Violation:
    """A rule that a history breaks, and the operations that show it."""

    rule: str
    operations: tuple[Operation, ...]


class Rules:
    """The rules, applied to one history. `stale_seconds` is REVOCATION_STALE_SECONDS."""

    def __init__(self, history: History, *, stale_seconds: float) -> None:
        self._operations = history.operations
        self._delay = stale_seconds + EXTRA_SECONDS
        self._opening = {one.opened: one for one in history.operations if one.opened}
        self._of_user: dict[str, list[str]] = defaultdict(list)
        for session, opening in self._opening.items():
            self._of_user[opening.user].append(session)

    def violations(self) -> list[Violation]:
        """Return what breaks a rule."""
        rules: list[Callable[[], Iterator[Violation]]] = [
            self._only_declared_refusals,
            self._no_accepted_token_of_an_ended_session,
            self._no_accepted_token_after_a_refusal,
            self._no_refresh_after_a_refusal,
            self._no_refusal_without_a_reason,
            self._one_successor_for_each_refresh_token,
            self._one_registration_for_each_name,
            self._both_tokens_of_one_session,
            self._only_the_right_user,
            self._only_own_sessions,
        ]
        return [violation for rule in rules for violation in rule()]

    def _only_declared_refusals(self) -> Iterator[Violation]:
        for one in self._operations:
            allowed = {OK, UNKNOWN} | REFUSALS.get(one.kind, frozenset())
            if one.kind in PROTECTED:
                allowed |= {SESSION_ENDED, REVOCATIONS_STALE}
            if one.outcome not in allowed:
                yield Violation(f"{one.kind} must not be answered with {one.outcome}", (one,))

    def _no_accepted_token_of_an_ended_session(self) -> Iterator[Violation]:
        acknowledged = [(session, end) for end in self._operations for session in self._ended_by(end)]
        rule = f"no access token is accepted {self._delay} s after the end of its session was acknowledged"
        yield from self._accepted_later(acknowledged, rule)

    def _no_accepted_token_after_a_refusal(self) -> Iterator[Violation]:
        refused = [(one.session, one) for one in self._operations if one.outcome == SESSION_ENDED]
        rule = f"no access token is accepted {self._delay} s after a refusal as session_ended"
        yield from self._accepted_later(refused, rule)

    def _accepted_later(self, ends: list[tuple[str, Operation]], rule: str) -> Iterator[Violation]:
        for session, end in ends:
            for one in self._operations:
                if one.accepted and one.session == session and one.invoked > end.ended + self._delay:
                    yield Violation(rule, (self._opening[session], end, one))

    def _no_refresh_after_a_refusal(self) -> Iterator[Violation]:
        """Compare refusals from memory, which has acknowledged ends only, with later refreshes."""
        refused = [one for one in self._operations if one.outcome == SESSION_ENDED and one.kind in REJECTED_FROM_MEMORY]
        refreshed = [one for one in self._operations if one.kind is Kind.REFRESH and one.outcome == OK]
        for refusal in refused:
            for refresh in refreshed:
                if refresh.session == refusal.session and refresh.invoked > refusal.ended:
                    rule = "no refresh succeeds after an access token of the session was refused as session_ended"
                    yield Violation(rule, (self._opening[refusal.session], refusal, refresh))

    def _no_refusal_without_a_reason(self) -> Iterator[Violation]:
        for refusal in self._operations:
            if refusal.outcome == SESSION_ENDED and not any(
                self._may_end(one, refusal.session) for one in self._operations if one.invoked < refusal.ended
            ):
                rule = "no session is refused as session_ended that nothing could have ended"
                yield Violation(rule, (self._opening[refusal.session], refusal))

    def _may_end(self, operation: Operation, session: str) -> bool:
        """Return whether an operation could have ended a session."""
        if operation.outcome not in (OK, UNKNOWN, REUSED) and operation.kind is not Kind.PASSWORD:
            return False
        match operation.kind:
            case Kind.LOGOUT:
                return operation.session == session
            case Kind.END_SESSION:
                return operation.target == session
            case Kind.REFRESH:
                return operation.session == session and self._may_be_old(operation)
        return session in self._of_changed_user(operation)

    def _may_be_old(self, refresh: Operation) -> bool:
        """Return whether the token of a refresh may have been rotated before."""
        return any(
            (one.session, one.counter) == (refresh.session, refresh.counter) and one.invoked < refresh.completed
            for one in self._operations
            if one.kind is Kind.REFRESH and one is not refresh
        )

    def _one_successor_for_each_refresh_token(self) -> Iterator[Violation]:
        first: dict[tuple[str, int], Operation] = {}
        for one in self._operations:
            if one.kind is not Kind.REFRESH or one.outcome != OK:
                continue
            other = first.setdefault((one.session, one.counter), one)
            right_form = one.refresh_token.startswith(f"{one.session}.{one.counter + 1}.")
            if one.refresh_token != other.refresh_token or not right_form:
                rule = "a refresh token has one successor, with the next counter"
                yield Violation(rule, (other, one) if other is not one else (one,))

    def _one_registration_for_each_name(self) -> Iterator[Violation]:
        first: dict[str, Operation] = {}
        deletable = {
            one.target or one.user for one in self._operations if one.kind in (Kind.DELETE_ME, Kind.DELETE_USER)
        }
        for one in self._operations:
            if one.kind is Kind.REGISTER and one.outcome == OK and one.user not in deletable:
                other = first.setdefault(one.user, one)
                if other is not one:
                    yield Violation("a name has one registration", (other, one))

    def _both_tokens_of_one_session(self) -> Iterator[Violation]:
        for one in self._operations:
            if one.token_session not in ("", one.opened or one.session):
                yield Violation("an access token states the session of its refresh token", (one,))

    def _only_the_right_user(self) -> Iterator[Violation]:
        for one in self._operations:
            right = one.target if one.kind in ADMINISTRATION else one.user
            if one.user_seen and one.user_seen.name not in ("", right):
                yield Violation("a response is about the user that was asked for", (one,))

    def _only_own_sessions(self) -> Iterator[Violation]:
        """Check lists. Logins without a response may have opened sessions that nothing else is known of."""
        for one in self._operations:
            known = one.sessions_seen & self._opening.keys()
            unknown = sum(
                login.kind in OPENS_SESSION and login.user == one.user and login.outcome != OK
                for login in self._operations
                if login.invoked < one.ended
            )
            if not known <= set(self._of_user[one.user]) or len(one.sessions_seen - known) > unknown:
                yield Violation("a list has only sessions of the user", (one,))

    def _ended_by(self, operation: Operation) -> list[str]:
        """Return the sessions that an acknowledged operation has certainly ended."""
        if operation.kind is Kind.REFRESH and operation.outcome == REUSED:
            return [operation.session]
        if operation.outcome != OK:
            return []
        if operation.kind is Kind.LOGOUT:
            return [operation.session]
        if operation.kind is Kind.END_SESSION:
            return [operation.target]
        return [
            session
            for session in self._of_changed_user(operation)
            if self._opening[session].completed < operation.invoked
        ]

    def _of_changed_user(self, operation: Operation) -> list[str]:
        """Return the known sessions of the user that an operation changes, if it does."""
        if operation.kind in CHANGES_OWN_USER:
            return self._of_user[operation.user]
        return self._of_user[operation.target] if operation.kind in CHANGES_TARGET else []
