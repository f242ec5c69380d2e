"""Times in JSON have one form, with the same number of digits whatever the value."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel
from pymongo.database import Database

from app.schemas.times import Time
from tests.conftest import Actor, Document, Service
from tests.properties import repeatable

FORM = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=zones)  # noqa: DTZ001


class Shape(BaseModel):
    """A shape with a time."""

    time: Time


@repeatable(200)
@given(moments)
@example(datetime(2026, 11, 25, 12, tzinfo=UTC))
@example(datetime(2026, 11, 25, 12, 0, 0, 1, tzinfo=UTC))
@example(datetime(2026, 11, 25, 12, 0, 0, 999_999, tzinfo=UTC))
@example(datetime(800, 1, 1, tzinfo=UTC))
def test_a_time_has_three_digits_of_a_second_and_is_utc(moment: datetime) -> None:
    written = json.loads(Shape(time=moment).model_dump_json())["time"]
    assert re.fullmatch(FORM, written)
    assert datetime.fromisoformat(written) == moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@pytest.mark.parametrize("microsecond", [0, 1000, 43_000, 500_000, 999_000])
def test_times_of_users_and_sessions_have_the_form(
    service: Service, alice: Actor, admin: Actor, database: Database[Document], microsecond: int
) -> None:
    """MongoDB stores milliseconds, which are 0 for one user in a thousand."""
    moment = datetime.now(UTC).replace(microsecond=microsecond)
    database.users.update_one({"username": alice.username}, {"$set": {"created_at": moment}})
    times = {"created_at": moment, "refreshed_at": moment}
    database.sessions.update_one({"_id": alice.claims["sid"]}, {"$set": times})
    user_id = alice.claims["sub"]
    responses = [
        alice.get("/auth/me").json(),
        alice.get("/auth/sessions").json()["sessions"][0],
        admin.get(f"/users/{user_id}").json(),
        next(user for user in every_user(admin) if user["id"] == user_id),
        service("PATCH", f"/users/{user_id}", token=admin.tokens["access_token"], json={"access": "user"}).json(),
    ]
    for shown in responses:
        for name in times.keys() & shown.keys():
            assert re.fullmatch(FORM, shown[name])
            assert datetime.fromisoformat(shown[name]) == moment


def every_user(admin: Actor) -> Iterator[Document]:
    """Yield all users of all pages."""
    after = ""
    while after is not None:
        page = admin.get(f"/users?limit=100&after={after}").json()
        yield from page["users"]
        after = page["next"]


def test_every_time_of_the_description_has_the_form(service: Service) -> None:
    """So a field that is declared as a plain datetime fails here."""
    found = list(date_times(service("GET", "/docs/openapi.json").json()))
    assert len(found) >= 3
    for schema in found:
        assert re.fullmatch(schema["pattern"], schema["examples"][0])
        assert not re.fullmatch(schema["pattern"], "2026-11-25T12:00:00Z")


def date_times(part: Any) -> Iterator[Document]:
    """Yield every schema of a time."""
    if isinstance(part, dict):
        if part.get("format") == "date-time":
            yield part
        for inner in part.values():
            yield from date_times(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from date_times(inner)
