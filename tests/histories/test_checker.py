"""The checker, on histories that were written by hand."""

from dataclasses import replace
from typing import Any

import pytest

from app.models.sessions import ROTATIONS_REMEMBERED
from app.models.users import Access
from tests.histories.checker import Periods, check, independent_parts
from tests.histories.excerpts import excerpt
from tests.histories.linearizability import Search, Undecided
from tests.histories.model import Model
from tests.histories.records import (
    INSUFFICIENT_SCOPE,
    NOT_FOUND,
    OK,
    REUSED,
    SESSION_ENDED,
    UNKNOWN,
    USERNAME_TAKEN,
    WRONG_CREDENTIALS,
    History,
    Injected,
    Kind,
    Operation,
    UserSeen,
)

PERIODS = Periods(grace=1, stale=2)
USERS = {"alice": Access.USER, "bob": Access.USER, "ann": Access.ADMIN, "art": Access.ADMIN}
LATER = 20  # seconds: no token of an ended session is accepted any more


class Story:
    """Makes a history: by default, each operation begins after the one before has ended."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self._now = 0.0

    def __call__(
        self, kind: Kind, user: str, outcome: str = OK, *, at: tuple[float, float] | None = None, **parameters: Any
    ) -> Operation:
        """Add an operation; `at` are the times at which it is invoked and ends."""
        began, ended = at or (self._now, self._now + 0.1)
        self._now = max(self._now, ended) + 0.01
        operation = Operation(len(self.operations), kind, began, ended, outcome, user=user, **parameters)
        self.operations.append(operation)
        return operation

    def log_in(self, user: str, session: str, **options: Any) -> Operation:
        """Add a login that opens a session."""
        scope = options.pop("scope", USERS.get(user, Access.USER))
        return self(Kind.LOGIN, user, opened=session, scope=scope, refresh_token=f"{session}.0.", **options)

    def refresh(self, session: str, counter: int, outcome: str = OK, **options: Any) -> Operation:
        """Add a refresh."""
        token = f"{session}.{counter + 1}." if outcome == OK else ""
        user = options.pop("user", "alice")
        return self(Kind.REFRESH, user, outcome, session=session, counter=counter, refresh_token=token, **options)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds

    @property
    def history(self) -> History:
        """The history."""
        return History(USERS, tuple(self.operations))

    @property
    def broken(self) -> list[str]:
        """The rules that are broken."""
        verdict = check(self.history, PERIODS)
        assert not verdict.undecided
        return [violation.rule for violation in verdict.violations]


@pytest.fixture
def story() -> Story:
    """Alice and bob have a session each, and the administrators ann and art."""
    story = Story()
    for user in USERS:
        story.log_in(user, f"of-{user}")
    return story


NO_ORDER = "an order explains all outcomes"


def test_an_uneventful_history_breaks_no_rule(story: Story) -> None:
    story.refresh("of-alice", 0)
    story(Kind.ME, "alice", session="of-alice", user_seen=UserSeen(Access.USER, disabled=False))
    story.log_in("alice", "second")
    story(Kind.SESSIONS, "alice", session="of-alice", sessions_seen=frozenset({"of-alice", "second"}))
    story(Kind.END_SESSION, "alice", session="of-alice", target="second")
    story(Kind.SESSIONS, "alice", session="of-alice", sessions_seen=frozenset({"of-alice"}))
    story(Kind.LOGOUT, "alice", session="of-alice")
    story.refresh("of-alice", 1, SESSION_ENDED)
    story(Kind.LOGIN, "alice", WRONG_CREDENTIALS, password=-1)
    assert story.broken == []


# Refreshes


def test_concurrent_refreshes_receive_the_same_successor(story: Story) -> None:
    story.refresh("of-alice", 0, at=(10, 11))
    story.refresh("of-alice", 0, at=(10, 11))
    assert story.broken == []


def test_two_successors_break_the_rules(story: Story) -> None:
    story.refresh("of-alice", 0)
    story.operations.append(replace(story.operations[-1], number=99, refresh_token="of-alice.1.other"))
    assert story.broken == ["a refresh token has one successor, with the next counter"]


def test_a_successor_must_have_the_next_counter(story: Story) -> None:
    story(Kind.REFRESH, "alice", session="of-alice", counter=0, refresh_token="of-alice.2.")
    assert story.broken == ["a refresh token has one successor, with the next counter"]


@pytest.mark.parametrize(
    ("seconds", "outcome", "broken"),
    [(0.2, OK, []), (0.2, REUSED, [NO_ORDER]), (3, OK, [NO_ORDER]), (3, REUSED, []), (0.9, OK, []), (0.9, REUSED, [])],
)
def test_the_grace_period_begins_at_the_rotation(story: Story, seconds: float, outcome: str, broken: list[str]) -> None:
    story.refresh("of-alice", 0)
    story.wait(seconds)
    story.refresh("of-alice", 0, outcome)
    assert story.broken == broken


def test_the_grace_period_is_not_extended(story: Story) -> None:
    for _ in range(3):
        story.refresh("of-alice", 0)
        story.wait(0.8)
    assert story.broken == [NO_ORDER]


def test_the_times_of_old_rotations_are_forgotten(story: Story) -> None:
    for counter in range(ROTATIONS_REMEMBERED + 1):
        story.refresh("of-alice", counter, at=(10 + counter / 100, 10 + counter / 100 + 0.005))
    story.refresh("of-alice", 0, REUSED)
    assert story.broken == []


def test_a_reused_token_ends_the_session(story: Story) -> None:
    story.refresh("of-alice", 0)
    story.wait(2)
    story.refresh("of-alice", 0, REUSED)
    story.refresh("of-alice", 1)
    assert story.broken == [NO_ORDER]


def test_a_refresh_without_a_response_may_have_rotated_the_session(story: Story) -> None:
    story.refresh("of-alice", 0, UNKNOWN)
    story.wait(3)
    story.refresh("of-alice", 0, REUSED)
    story.refresh("of-alice", 0, SESSION_ENDED)
    assert story.broken == []


def test_a_refresh_without_a_response_may_have_had_no_effect(story: Story) -> None:
    story.refresh("of-alice", 0, UNKNOWN)
    story.wait(3)
    story.refresh("of-alice", 0)
    assert story.broken == []


# The ends of sessions


@pytest.mark.parametrize("outcome", [OK, SESSION_ENDED])
def test_a_refresh_during_a_logout_may_come_first_or_second(story: Story, outcome: str) -> None:
    story(Kind.LOGOUT, "alice", session="of-alice", at=(10, 11))
    story.refresh("of-alice", 0, outcome, at=(10.2, 10.4))
    assert story.broken == []


def test_a_refresh_after_a_logout_breaks_the_order(story: Story) -> None:
    story(Kind.LOGOUT, "alice", session="of-alice")
    story.refresh("of-alice", 0)
    assert story.broken == [NO_ORDER]


@pytest.mark.parametrize("outcome", [OK, SESSION_ENDED])
def test_a_logout_without_a_response_may_have_had_an_effect(story: Story, outcome: str) -> None:
    story(Kind.LOGOUT, "alice", UNKNOWN, session="of-alice")
    story.refresh("of-alice", 0, outcome)
    assert story.broken == []


def test_a_session_does_not_end_twice(story: Story) -> None:
    story(Kind.LOGOUT, "alice", UNKNOWN, session="of-alice")
    story.refresh("of-alice", 0, SESSION_ENDED)
    story.refresh("of-alice", 0)
    assert story.broken == [NO_ORDER]


def test_what_was_not_acknowledged_must_not_be_remembered(story: Story) -> None:
    story(Kind.LOGOUT, "alice", UNKNOWN, session="of-alice")
    story(Kind.SECRET, "alice", SESSION_ENDED, session="of-alice")
    story.refresh("of-alice", 0)
    refused = "no refresh succeeds after an access token of the session was refused as session_ended"
    assert story.broken == [refused, NO_ORDER]


def test_logout_all_ends_a_session_that_a_concurrent_login_opens(story: Story) -> None:
    story(Kind.LOGOUT_ALL, "alice", session="of-alice", at=(10, 11))
    story.log_in("alice", "second", at=(10.1, 10.9))
    story.refresh("second", 0, SESSION_ENDED)
    assert story.broken == []


def test_a_session_survives_logout_all_only_if_its_login_came_second(story: Story) -> None:
    story(Kind.LOGOUT_ALL, "alice", session="of-alice", at=(10, 11))
    story.log_in("alice", "second", at=(10.1, 10.9))
    story.refresh("second", 0)
    assert story.broken == []


def test_a_login_before_logout_all_does_not_survive_it(story: Story) -> None:
    story.log_in("alice", "second")
    story(Kind.LOGOUT_ALL, "alice", session="of-alice")
    story.refresh("second", 0)
    assert story.broken == [NO_ORDER]


def test_two_concurrent_requests_can_log_out_everywhere(story: Story) -> None:
    """The second begins when the first has changed the user, and has not ended the session yet."""
    story(Kind.LOGOUT_ALL, "alice", session="of-alice", at=(10, 11))
    story(Kind.LOGOUT_ALL, "alice", session="of-alice", at=(10.1, 10.9))
    assert story.broken == []


def test_an_ended_session_cannot_log_out_everywhere(story: Story) -> None:
    story(Kind.LOGOUT_ALL, "alice", session="of-alice")
    story(Kind.LOGOUT_ALL, "alice", session="of-alice")
    assert story.broken == [NO_ORDER]


def test_sessions_end_one_after_the_other(story: Story) -> None:
    """The first step has ended all of them, the second has reached one, and its worker does not respond."""
    story.log_in("alice", "second")
    story(Kind.LOGOUT_ALL, "alice", UNKNOWN, session="of-alice")
    story.refresh("second", 0, SESSION_ENDED)
    story.refresh("of-alice", 0)
    story.refresh("of-alice", 1, SESSION_ENDED)
    assert story.broken == []


def test_two_sessions_do_not_end_each_other(story: Story) -> None:
    story.log_in("alice", "second")
    story(Kind.END_SESSION, "alice", session="of-alice", target="second", at=(10, 11))
    story(Kind.END_SESSION, "alice", session="second", target="of-alice", at=(10, 11))
    assert story.broken == [NO_ORDER]


def test_a_session_whose_end_has_started_is_not_rotated(story: Story) -> None:
    story.log_in("alice", "second")
    story(Kind.END_SESSION, "alice", UNKNOWN, session="of-alice", target="second")
    story.refresh("second", 0, SESSION_ENDED)
    story(Kind.SESSIONS, "alice", session="of-alice", sessions_seen=frozenset({"of-alice", "second"}))
    story(Kind.SECRET, "alice", session="second")
    assert story.broken == []


def test_an_active_session_cannot_be_not_found(story: Story) -> None:
    story.log_in("alice", "second")
    story(Kind.END_SESSION, "alice", NOT_FOUND, session="of-alice", target="second")
    assert story.broken == [NO_ORDER]


def test_a_session_of_another_user_is_not_found(story: Story) -> None:
    story(Kind.END_SESSION, "alice", NOT_FOUND, session="of-alice", target="of-bob")
    assert story.broken == []


OWN_ONLY = "a list has only sessions of the user"


@pytest.mark.parametrize(
    ("other_seen", "broken"),
    [
        (set(), [NO_ORDER]),
        ({"second"}, []),
        ({"second", "of the lost login"}, []),
        ({"second", "of the lost login", "another"}, [OWN_ONLY]),
        ({"second", "of-bob"}, [OWN_ONLY]),
    ],
)
def test_a_list_has_exactly_the_active_sessions(story: Story, other_seen: set[str], broken: list[str]) -> None:
    story.log_in("alice", "second")
    story(Kind.LOGIN, "alice", UNKNOWN)
    story(Kind.SESSIONS, "alice", session="of-alice", sessions_seen=frozenset({"of-alice", *other_seen}))
    assert story.broken == broken


def test_workers_finish_all_ends_that_have_started(story: Story) -> None:
    story.log_in("alice", "second")
    story(Kind.LOGOUT_ALL, "alice", UNKNOWN, session="of-alice")
    story(Kind.LOGIN, "alice", WRONG_CREDENTIALS, password=-1)
    story(Kind.LOGOUT_ALL, "alice", SESSION_ENDED, session="second")  # shows that the first one took effect
    story(Kind.SETTLE, "")
    story.refresh("second", 0)
    assert story.broken == [NO_ORDER]


# Users


def test_a_login_with_the_old_password_may_precede_its_change(story: Story) -> None:
    change: dict[str, Any] = {"session": "of-alice", "password": 0, "new_password": 1, "opened": "new", "at": (10, 11)}
    story(Kind.PASSWORD, "alice", **change)
    story.log_in("alice", "second", at=(10.1, 11.5))
    story.refresh("second", 0, SESSION_ENDED)
    story.refresh("new", 0)
    assert story.broken == []


@pytest.mark.parametrize(("password", "outcome"), [(0, OK), (1, WRONG_CREDENTIALS)])
def test_a_password_change_takes_effect(story: Story, password: int, outcome: str) -> None:
    story(Kind.PASSWORD, "alice", session="of-alice", password=0, new_password=1, opened="new")
    if outcome == OK:
        story.log_in("alice", "second", password=password)
    else:
        story(Kind.LOGIN, "alice", outcome, password=password)
    assert story.broken == [NO_ORDER]


def test_a_login_is_refused_if_its_user_was_changed_meanwhile(story: Story) -> None:
    story(Kind.LOGIN, "alice", WRONG_CREDENTIALS, password=0, at=(10, 11))
    story(Kind.LOGOUT_ALL, "alice", session="of-alice", at=(10.4, 10.6))
    assert story.broken == []


def test_a_login_with_the_right_password_is_not_refused(story: Story) -> None:
    story(Kind.LOGIN, "alice", WRONG_CREDENTIALS, password=0)
    assert story.broken == [NO_ORDER]


def test_a_password_change_may_succeed_although_its_session_is_refused(story: Story) -> None:
    """Another change ends the new session before the response."""
    story.log_in("alice", "second")
    parameters: dict[str, Any] = {"session": "of-alice", "password": 0, "new_password": 1}
    story(Kind.PASSWORD, "alice", SESSION_ENDED, at=(10, 12), **parameters)
    story(Kind.PATCH_USER, "ann", session="of-ann", target="alice", disabled=False, at=(11, 11.5))
    story.log_in("alice", "third", password=1)
    assert story.broken == []


def test_only_one_of_two_concurrent_password_changes_succeeds(story: Story) -> None:
    story.log_in("alice", "second")
    for number, session in enumerate(("of-alice", "second"), 1):
        story(Kind.PASSWORD, "alice", session=session, new_password=number, opened=f"new{number}", at=(10, 11))
    assert story.broken == [NO_ORDER]


def test_two_registrations_of_a_name_break_the_rules(story: Story) -> None:
    for session in ("first", "second"):
        story(Kind.REGISTER, "carol", opened=session, at=(10, 11))
    assert story.broken == ["a name has one registration", NO_ORDER]


def test_a_name_is_taken_from_its_registration_to_its_deletion(story: Story) -> None:
    story(Kind.REGISTER, "carol", UNKNOWN)
    story(Kind.REGISTER, "carol", USERNAME_TAKEN)
    story.log_in("carol", "first")
    story(Kind.DELETE_ME, "carol", session="first")
    story(Kind.REGISTER, "carol", opened="second")
    story.refresh("first", 0, SESSION_ENDED, user="carol")
    assert story.broken == []


def test_a_free_name_is_not_taken(story: Story) -> None:
    story(Kind.REGISTER, "carol", USERNAME_TAKEN)
    assert story.broken == [NO_ORDER]


# Administration

DEMOTED: dict[str, Any] = {"access": Access.USER, "user_seen": UserSeen(Access.USER, disabled=False)}


def test_two_administrators_do_not_demote_each_other(story: Story) -> None:
    story(Kind.PATCH_USER, "ann", session="of-ann", target="art", at=(10, 11), **DEMOTED)
    story(Kind.PATCH_USER, "art", session="of-art", target="ann", at=(10, 11), **DEMOTED)
    assert story.broken == [NO_ORDER]


@pytest.mark.parametrize("outcome", [INSUFFICIENT_SCOPE, SESSION_ENDED, UNKNOWN])
def test_one_of_two_administrators_demotes_the_other(story: Story, outcome: str) -> None:
    story(Kind.PATCH_USER, "ann", session="of-ann", target="art", at=(10, 11), **DEMOTED)
    parameters: dict[str, Any] = {"access": Access.USER} if outcome == UNKNOWN else {}
    story(Kind.PATCH_USER, "art", outcome, session="of-art", target="ann", at=(10, 11), **parameters)
    assert story.broken == []


def test_a_response_shows_the_changed_user(story: Story) -> None:
    story(Kind.PATCH_USER, "ann", session="of-ann", target="alice", disabled=True, **DEMOTED)
    assert story.broken == [NO_ORDER]


def test_a_disabled_user_has_no_session(story: Story) -> None:
    seen = UserSeen(Access.USER, disabled=True)
    story(Kind.PATCH_USER, "ann", session="of-ann", target="alice", disabled=True, user_seen=seen)
    story(Kind.LOGIN, "alice", WRONG_CREDENTIALS)
    story(Kind.GET_USER, "ann", session="of-ann", target="alice", user_seen=seen)
    story.refresh("of-alice", 0, SESSION_ENDED)
    assert story.broken == []


@pytest.mark.parametrize("seen", [UserSeen(Access.ADMIN, disabled=False), UserSeen(Access.USER, disabled=True)])
def test_a_read_shows_the_latest_change(story: Story, seen: UserSeen) -> None:
    story(Kind.GET_USER, "ann", session="of-ann", target="alice", user_seen=seen)
    assert story.broken == [NO_ORDER]


def test_a_deleted_user_is_not_found(story: Story) -> None:
    story(Kind.DELETE_USER, "ann", session="of-ann", target="alice")
    story(Kind.GET_USER, "art", NOT_FOUND, session="of-art", target="alice")
    story(Kind.PATCH_USER, "art", NOT_FOUND, session="of-art", target="alice", disabled=True)
    story(Kind.LOGIN, "alice", WRONG_CREDENTIALS)
    assert story.broken == []


def test_scopes_follow_the_access_level(story: Story) -> None:
    story.log_in("alice", "second", scope=Access.ADMIN)
    assert story.broken == [NO_ORDER]


# Access tokens


@pytest.mark.parametrize(("seconds", "broken"), [(1, 0), (LATER, 1)])
def test_a_token_is_accepted_only_shortly_after_the_end_of_its_session(
    story: Story, seconds: float, broken: int
) -> None:
    story(Kind.LOGOUT, "alice", session="of-alice")
    story.wait(seconds)
    story(Kind.SECRET, "alice", session="of-alice")
    assert len(story.broken) == broken


def test_a_token_is_accepted_only_shortly_after_a_refusal(story: Story) -> None:
    story(Kind.LOGOUT, "alice", UNKNOWN, session="of-alice")
    story(Kind.SECRET, "alice", SESSION_ENDED, session="of-alice")
    story.wait(LATER)
    story(Kind.ME, "alice", session="of-alice", user_seen=UserSeen(Access.USER, disabled=False))
    assert story.broken == ["no access token is accepted 3.0 s after a refusal as session_ended"]


def test_a_token_is_not_refused_without_a_reason(story: Story) -> None:
    story(Kind.LOGOUT, "bob", session="of-bob")
    story(Kind.SECRET, "alice", SESSION_ENDED, session="of-alice")
    assert story.broken == ["no session is refused as session_ended that nothing could have ended", NO_ORDER]


def test_a_response_for_another_user_breaks_the_rules(story: Story) -> None:
    story(Kind.ME, "alice", session="of-alice", user_seen=UserSeen(Access.USER, disabled=False, name="bob"))
    story.refresh("of-alice", 0, token_session="of-bob")
    assert story.broken == [
        "an access token states the session of its refresh token",
        "a response is about the user that was asked for",
    ]


def test_an_unexpected_error_breaks_the_rules(story: Story) -> None:
    story(Kind.SECRET, "alice", "internal_error", session="of-alice")
    assert "get secret must not be answered with internal_error" in story.broken


# The search and its result


def test_users_are_independent_unless_an_administrator_connects_them(story: Story) -> None:
    assert len(list(independent_parts(story.history))) == len(USERS)
    story(Kind.DELETE_USER, "ann", session="of-ann", target="alice")
    assert len(list(independent_parts(story.history))) == len(USERS) - 1


def test_the_search_has_a_limit(story: Story) -> None:
    for number in range(6):
        story.log_in("alice", f"s{number}", at=(10, 11))
    story.refresh("s0", 0, SESSION_ENDED)
    search = Search(Model(story.history, grace_seconds=1), story.history.operations, limit=10)
    with pytest.raises(Undecided):
        search.run()


def test_an_excerpt_has_only_the_operations_that_contradict_each_other(story: Story) -> None:
    story.refresh("of-bob", 0, user="bob")
    story(Kind.PATCH_USER, "ann", UNKNOWN, session="of-ann", target="bob", disabled=True)
    story(Kind.LOGOUT, "alice", session="of-alice")
    story.refresh("of-alice", 0)
    story(Kind.SECRET, "alice", SESSION_ENDED, session="of-alice")
    (violation,) = check(story.history, PERIODS).violations
    assert [one.number for one in violation.operations] == [0, 6, 7]
    faults = [Injected("a fault", 0.1, 0.2), Injected("a later fault", 50, 51)]
    assert [" ".join(line.split()) for line in excerpt(violation, story.history, faults).splitlines()] == [
        "Broken: an order explains all outcomes",
        "0.000 - 0.100 #0 at 1 login alice password 0 -> ok s1 as user",
        "0.660 - 0.760 #6 at 1 logout alice s1 -> ok",
        "0.770 - 0.870 #7 at 1 refresh alice s1 token 0 -> ok token 1",
        "6 other operations are not needed to show it. Faults:",
        "0.100 - 0.200 a fault",
    ]
