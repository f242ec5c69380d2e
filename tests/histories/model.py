"""The model: what users and sessions are, and what each operation may do to them and answer.

An operation has one or more steps, each of which is atomic. `Model.move` returns the next step of an operation in a
state, given the outcome that its client saw, or None if the state contradicts the outcome.

A change of a user (password change, logout-all, PATCH, DELETE) has two steps: the change, together with the check of
the actor, increments the user's generation; then the sessions of earlier generations end. Between the two steps, and
after an unknown outcome at any later time, another worker may end any of those sessions. The model does not search
for these times: such a session ends when an outcome shows that it has ended.
"""

from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple, TypeVar

from app.models.sessions import ROTATIONS_REMEMBERED
from app.models.users import Access
from tests.histories.records import (
    INSUFFICIENT_SCOPE,
    NO_EFFECT,
    NOT_FOUND,
    OK,
    REUSED,
    SESSION_ENDED,
    UNKNOWN,
    USERNAME_TAKEN,
    WRONG_CREDENTIALS,
    History,
    Kind,
    Operation,
    UserSeen,
)

TOLERANCE_SECONDS = 0.1  # of comparisons with the grace period, which the database measures by its own clock

T = TypeVar("T")


class Status(IntEnum):
    """Whether a user exists."""

    ABSENT = 0
    PRESENT = 1
    DELETED = 2  # but the deletion is not finished: the name is still taken


class User(NamedTuple):
    """A user. The generation continues if the name is registered again."""

    status: Status
    password: int
    access: Access
    disabled: bool
    generation: int

    def has_password(self, password: int) -> bool:
        """Return whether the user can log in with this password."""
        return self.status is Status.PRESENT and not self.disabled and self.password == password

    @property
    def administrates(self) -> bool:
        """Whether the user is an administrator."""
        return self.status is Status.PRESENT and not self.disabled and self.access is Access.ADMIN

    def looks_like(self, seen: UserSeen | None) -> bool:
        """Return whether a response describes the user correctly."""
        if seen is None or self.status is not Status.PRESENT:
            return False
        return seen.access is self.access and seen.disabled == self.disabled


class Session(NamedTuple):
    """A session. `rotated_by` has the numbers of the operations that rotated it, the latest first."""

    user: int
    generation: int
    access: Access
    counter: int = 0
    rotated_by: tuple[int, ...] = ()
    marked: bool = False  # its end has started: it cannot be rotated any more
    ended: bool = False


NOT_OPENED = Session(user=0, generation=0, access=Access.GUEST, counter=-1)


class State(NamedTuple):
    """All users and sessions of a history, by their positions."""

    users: tuple[User, ...]
    sessions: tuple[Session, ...]

    def with_user(self, position: int, user: User) -> "State":
        """Return the state with a changed user."""
        return State(_replaced(self.users, position, user), self.sessions)

    def with_session(self, position: int, session: Session) -> "State":
        """Return the state with a new or changed session."""
        return State(self.users, _replaced(self.sessions, position, session))

    def ending(self, session: Session) -> bool:
        """Return whether the end of the session has started, so that any worker may finish it."""
        return session.marked or session.generation < self.users[session.user].generation

    def active(self, session: Session) -> bool:
        """Return whether the session is active, and of the user's current generation."""
        user = self.users[session.user]
        return (
            user.status is Status.PRESENT
            and session.generation == user.generation
            and not session.marked
            and not session.ended
        )

    def with_ended(self, positions: Iterable[int]) -> "State":
        """Return the state after the end of these sessions."""
        sessions = list(self.sessions)
        for position in positions:
            sessions[position] = sessions[position]._replace(ended=True)
        return State(self.users, tuple(sessions))


class Phase(NamedTuple):
    """What an operation has done so far, and a generation of the user that it remembers."""

    name: str
    generation: int = 0


class Move(NamedTuple):
    """A step: the state after it, and the phase in which the operation is then; None if it is done."""

    state: State
    phase: Phase | None


START = Phase("start")
DONE = None
IMPOSSIBLE = None


class Model:
    """The moves of the operations of one history.

    `grace_seconds` is REFRESH_GRACE_SECONDS.
    """

    def __init__(self, history: History, *, grace_seconds: float) -> None:
        names = sorted({*history.users, *(one.user for one in history.operations if one.user)})
        self._first = history.users
        self._users = {name: position for position, name in enumerate(names)}
        opened = [one.opened for one in history.operations if one.opened]
        self._sessions = {session: position for position, session in enumerate(opened)}
        self._operations = {one.number: one for one in history.operations}
        self._grace = grace_seconds
        self._moves = {
            Kind.REGISTER: self._register,
            Kind.LOGIN: self._login,
            Kind.REFRESH: self._refresh,
            Kind.LOGOUT: self._logout,
            Kind.LOGOUT_ALL: self._logout_all,
            Kind.SESSIONS: self._list_sessions,
            Kind.END_SESSION: self._end_session,
            Kind.PASSWORD: self._change_password,
            Kind.DELETE_ME: self._delete_me,
            Kind.ME: self._me,
            Kind.SECRET: self._only_from_memory,
            Kind.GET_USER: self._get_user,
            Kind.PATCH_USER: self._change_user,
            Kind.DELETE_USER: self._change_user,
            Kind.SETTLE: self._settle,
        }

    def initial(self) -> State:
        """Return the state at the start."""
        users = (
            User(Status.PRESENT, 0, self._first[name], disabled=False, generation=0)
            if name in self._first
            else User(Status.ABSENT, 0, Access.USER, disabled=False, generation=-1)
            for name in self._users
        )
        return State(tuple(users), (NOT_OPENED,) * len(self._sessions))

    def footprint(self, operation: Operation) -> int:
        """Return the users and sessions that an operation depends on or changes, as a bit mask."""
        if operation.kind is Kind.SETTLE:
            return -1
        owners = {one.opened: one.user for one in self._operations.values() if one.opened}
        names = {operation.session, operation.opened}
        if operation.known or operation.kind not in (Kind.REFRESH, Kind.LOGOUT):
            names |= {operation.user, operation.target}
        if operation.known:  # it may depend on all sessions of these users, which share a generation
            names |= {name for name, owner in owners.items() if owner in names}
        positions = {**self._users, **{name: len(self._users) + number for name, number in self._sessions.items()}}
        return sum(1 << positions[name] for name in names if name in positions)

    def move(self, operation: Operation, phase: Phase, state: State) -> Move | None:
        """Return the next step of an operation that is in this phase, or None if it cannot be taken in this state."""
        if operation.outcome in NO_EFFECT:
            return Move(state, DONE)
        return self._moves[operation.kind](operation, phase, state)

    # Registration and login

    def _register(self, operation: Operation, _: Phase, state: State) -> Move | None:
        position = self._users[operation.user]
        user = state.users[position]
        if operation.outcome == USERNAME_TAKEN:
            return _if(user.status is not Status.ABSENT, state)
        if user.status is Status.PRESENT:
            return IMPOSSIBLE
        if user.status is Status.DELETED:  # so the deletion was finished in the meantime
            state = self._finished(state, position, user.generation)
        new = User(Status.PRESENT, operation.password, Access.USER, disabled=False, generation=user.generation + 1)
        return self._opened(operation, state.with_user(position, new))

    def _login(self, operation: Operation, phase: Phase, state: State) -> Move | None:
        user = state.users[self._users[operation.user]]
        if operation.outcome == OK:
            return self._opened(operation, state) if user.has_password(operation.password) else IMPOSSIBLE
        if operation.outcome != WRONG_CREDENTIALS:
            return IMPOSSIBLE  # with an unknown outcome, nobody has the tokens
        if phase == START:
            if not user.has_password(operation.password):
                return Move(state, DONE)
            return Move(state, Phase("password was right", user.generation))
        return _if(_changed(user, phase), state)  # the service reads the user again

    def _opened(self, operation: Operation, state: State) -> Move | None:
        """Open the session of the response. The scopes of its tokens must be those of the user."""
        if not operation.opened:
            return Move(state, DONE)
        position = self._users[operation.user]
        user = state.users[position]
        if operation.scope is not user.access:
            return IMPOSSIBLE
        session = Session(position, user.generation, user.access)
        return Move(state.with_session(self._sessions[operation.opened], session), DONE)

    # Refresh

    def _refresh(self, operation: Operation, phase: Phase, state: State) -> Move | None:
        position = self._sessions[operation.session]
        session = state.sessions[position]
        if operation.outcome == SESSION_ENDED:
            if session.marked and session.counter == operation.counter:
                return Move(state, DONE)
            return self._shows_the_end(state, position)
        if phase.name == "reused":
            return Move(state.with_ended([position]), DONE)
        if session.ended:
            return IMPOSSIBLE
        if session.counter == operation.counter:
            return self._rotated(operation, state, position)
        return self._already_rotated(operation, state, position)

    def _rotated(self, operation: Operation, state: State, position: int) -> Move | None:
        session = state.sessions[position]
        if operation.outcome not in (OK, UNKNOWN) or session.marked:
            return IMPOSSIBLE
        rotated_by = (operation.number, *session.rotated_by)[:ROTATIONS_REMEMBERED]
        session = session._replace(counter=session.counter + 1, rotated_by=rotated_by)
        return Move(state.with_session(position, session), DONE)

    def _already_rotated(self, operation: Operation, state: State, position: int) -> Move | None:
        session = state.sessions[position]
        ago = session.counter - operation.counter
        if ago <= 0:
            return IMPOSSIBLE  # the token does not exist yet
        shortest, longest = self._seconds_since(session, ago, operation)
        if operation.outcome == OK:
            return _if(shortest <= self._grace + TOLERANCE_SECONDS and not session.marked, state)
        if longest < self._grace - TOLERANCE_SECONDS:
            return IMPOSSIBLE
        if operation.outcome == REUSED:
            return Move(state, Phase("reused"))
        return Move(state.with_ended([position]), DONE)

    def _seconds_since(self, session: Session, ago: int, operation: Operation) -> tuple[float, float]:
        """Return the shortest and the longest time from a rotation to an operation."""
        if ago > len(session.rotated_by):
            return self._grace * 2, self._grace * 2  # the service has forgotten when it was
        rotation = self._operations[session.rotated_by[ago - 1]]
        return operation.invoked - rotation.completed, operation.completed - rotation.invoked

    # The ends of sessions

    def _logout(self, operation: Operation, _: Phase, state: State) -> Move | None:
        position = self._sessions[operation.session]
        if operation.outcome == SESSION_ENDED:
            return self._shows_the_end(state, position)
        return Move(state.with_ended([position]), DONE)

    def _end_session(self, operation: Operation, phase: Phase, state: State) -> Move | None:
        own, target = self._own(operation, state), self._sessions.get(operation.target)
        if operation.outcome == SESSION_ENDED:
            return self._shows_the_end(state, self._sessions[operation.session], unless=own.marked)
        if target is None or (session := state.sessions[target]).user != own.user:  # a session of another user
            return _if(operation.outcome == NOT_FOUND and not own.ended and not own.marked, state)
        if phase.name == "marked":
            return Move(state.with_ended([target]), DONE)
        if own.ended or own.marked:
            return IMPOSSIBLE
        if operation.outcome == NOT_FOUND:
            return self._shows_the_end(state, target)
        if session is NOT_OPENED or session.ended:
            return IMPOSSIBLE
        marked = state.with_session(target, session._replace(marked=True))
        return Move(marked, Phase("marked") if operation.known else DONE)

    def _logout_all(self, operation: Operation, phase: Phase, state: State) -> Move | None:
        own = self._own(operation, state)
        if phase.name == "finish":
            return Move(self._finished(state, own.user, phase.generation), DONE)
        if operation.outcome == SESSION_ENDED:
            return _if(not state.active(own), state)
        user = state.users[own.user]
        if operation.outcome == OK and user.status is not Status.PRESENT:
            return Move(state, Phase("finish", user.generation))
        if own.ended or own.marked:
            return IMPOSSIBLE
        return self._changed(operation, state, own.user)  # of any generation, so that it can be repeated

    # The own account

    def _change_password(self, operation: Operation, phase: Phase, state: State) -> Move | None:
        own = self._own(operation, state)
        user = state.users[own.user]
        if phase.name == "finish":
            return Move(self._finished(state, own.user, phase.generation), Phase("changed", phase.generation))
        if phase.name == "changed":
            return self._password_changed(operation, phase, state)
        if operation.outcome == WRONG_CREDENTIALS:
            return _if(user.status is Status.PRESENT and not user.has_password(operation.password), state)
        if operation.outcome == SESSION_ENDED and not state.active(own):
            return Move(state, DONE)
        if not state.active(own) or not user.has_password(operation.password):
            return IMPOSSIBLE
        return self._changed(operation, state, own.user, password=operation.new_password)

    def _password_changed(self, operation: Operation, phase: Phase, state: State) -> Move | None:
        """Open the new session, unless the user was changed again in the meantime."""
        changed = _changed(state.users[self._users[operation.user]], phase)
        if operation.outcome == SESSION_ENDED:
            return _if(changed, state)
        return IMPOSSIBLE if changed else self._opened(operation, state)

    def _delete_me(self, operation: Operation, phase: Phase, state: State) -> Move | None:
        own = self._own(operation, state)
        user = state.users[own.user]
        if phase.name == "finish":
            return Move(self._finished(state, own.user, phase.generation), DONE)
        if operation.outcome == SESSION_ENDED:
            return _if(not state.active(own), state)
        if phase == START and operation.outcome == WRONG_CREDENTIALS:
            return _if(user.status is Status.PRESENT and not user.has_password(operation.password), state)
        if phase == START and operation.outcome == OK:
            return Move(state, Phase("password was right")) if user.has_password(operation.password) else IMPOSSIBLE
        if operation.outcome == OK and user.status is not Status.PRESENT:  # another request deleted it
            return Move(state, Phase("finish", user.generation))
        if not state.active(own) or not user.has_password(operation.password):
            return IMPOSSIBLE
        return self._changed(operation, state, own.user, deleted=True)

    # Reads

    def _only_from_memory(self, operation: Operation, _: Phase, state: State) -> Move | None:
        if operation.outcome == SESSION_ENDED:
            return self._shows_the_end(state, self._sessions[operation.session])
        return _if(operation.outcome == OK, state)

    def _me(self, operation: Operation, _: Phase, state: State) -> Move | None:
        position = self._sessions[operation.session]
        user = state.users[state.sessions[position].user]
        if operation.outcome == SESSION_ENDED:
            return self._shows_the_end(state, position, unless=user.status is not Status.PRESENT)
        return _if(operation.outcome == OK and user.looks_like(operation.user_seen), state)

    def _list_sessions(self, operation: Operation, _: Phase, state: State) -> Move | None:
        """Compare a list with the state. Sessions in it that the model does not know are none of its concern."""
        own = self._sessions[operation.session]
        if operation.outcome == SESSION_ENDED:
            return self._shows_the_end(state, own)
        if operation.outcome != OK:
            return IMPOSSIBLE
        missing = []
        for name, position in self._sessions.items():
            session = state.sessions[position]
            listed = name in operation.sessions_seen
            if listed and (session is NOT_OPENED or session.ended):
                return IMPOSSIBLE
            expected = session is not NOT_OPENED and session.user == state.sessions[own].user and not session.ended
            if expected and not listed:
                if not state.ending(session):
                    return IMPOSSIBLE
                missing.append(position)
        return Move(state.with_ended(missing) if missing else state, DONE)

    # Administration

    def _get_user(self, operation: Operation, phase: Phase, state: State) -> Move | None:
        own = self._own(operation, state)
        if operation.outcome == SESSION_ENDED:
            return self._shows_the_end(state, self._sessions[operation.session])
        return self._as_administrator(operation, phase, state, own)

    def _as_administrator(self, operation: Operation, phase: Phase, state: State, own: Session) -> Move | None:
        """Read: first whether the actor is an administrator, then the user."""
        administrates = own.access is Access.ADMIN and state.users[own.user].administrates
        if operation.outcome == INSUFFICIENT_SCOPE:
            return _if(not administrates, state)
        if phase == START:
            return Move(state, Phase("administrator")) if administrates else IMPOSSIBLE
        target = state.users[self._users[operation.target]]
        if operation.outcome == NOT_FOUND:
            return _if(target.status is not Status.PRESENT, state)
        return _if(operation.outcome == OK and target.looks_like(operation.user_seen), state)

    def _change_user(self, operation: Operation, phase: Phase, state: State) -> Move | None:
        """PATCH or DELETE. The actor's session and rank are part of the change."""
        position = self._users[operation.target]
        if phase.name == "finish":
            return Move(self._finished(state, position, phase.generation), DONE)
        own = self._own(operation, state)
        if operation.outcome == SESSION_ENDED:
            return _if(not state.active(own), state)
        if operation.outcome not in (OK, UNKNOWN):
            return self._as_administrator(operation, phase, state, own)
        administrates = own.access is Access.ADMIN and state.users[own.user].administrates
        if not administrates or not state.active(own) or state.users[position].status is not Status.PRESENT:
            return IMPOSSIBLE
        return self._changed(operation, state, position, deleted=operation.kind is Kind.DELETE_USER)

    # Changes of users

    def _changed(
        self, operation: Operation, state: State, position: int, *, password: int | None = None, deleted: bool = False
    ) -> Move | None:
        """Change a user and start a generation."""
        user = state.users[position]
        changed = User(
            status=Status.DELETED if deleted else user.status,
            password=user.password if password is None else password,
            access=user.access if operation.access is None else operation.access,
            disabled=deleted or (user.disabled if operation.disabled is None else operation.disabled),
            generation=user.generation + 1,
        )
        if operation.user_seen and not changed.looks_like(operation.user_seen):
            return IMPOSSIBLE
        phase = Phase("finish", changed.generation) if operation.known else DONE
        return Move(state.with_user(position, changed), phase)

    def _finished(self, state: State, position: int, generation: int) -> State:
        """End the user's sessions of earlier generations; remove the user if it was deleted."""
        user = state.users[position]
        earlier = (
            number
            for number, session in enumerate(state.sessions)
            if session is not NOT_OPENED and session.user == position and session.generation < generation
        )
        state = state.with_ended(earlier)
        if user.status is Status.DELETED and user.generation == generation:
            state = state.with_user(position, user._replace(status=Status.ABSENT))
        return state

    def _settle(self, _: Operation, __: Phase, state: State) -> Move | None:
        """Finish all ends that have started."""
        for position, user in enumerate(state.users):
            state = self._finished(state, position, user.generation)
        marked = [number for number, session in enumerate(state.sessions) if session.marked]
        return Move(state.with_ended(marked), DONE)

    def _own(self, operation: Operation, state: State) -> Session:
        """Return the session whose access token an operation presents."""
        if operation.session in self._sessions:
            return state.sessions[self._sessions[operation.session]]
        # Its opening was left out of the history, so whatever the operation may have done is possible.
        user = self._users[operation.user]
        return Session(user, state.users[user].generation, Access.ADMIN)

    def _shows_the_end(self, state: State, position: int, *, unless: bool = False) -> Move | None:
        """Require that a session has ended, or end it if its end has started; unless there is another reason."""
        session = state.sessions[position]
        if session.ended or unless:
            return Move(state, DONE)
        if session is not NOT_OPENED and state.ending(session):
            return Move(state.with_ended([position]), DONE)
        return IMPOSSIBLE


def _changed(user: User, phase: Phase) -> bool:
    """Return whether a user was changed after the operation has read it."""
    return user.status is not Status.PRESENT or user.disabled or user.generation != phase.generation


def _if(condition: bool, state: State) -> Move | None:
    """Return the last step, which changes nothing, if the condition is true."""
    return Move(state, DONE) if condition else IMPOSSIBLE


def _replaced(items: tuple[T, ...], position: int, item: T) -> tuple[T, ...]:
    return (*items[:position], item, *items[position + 1 :])
