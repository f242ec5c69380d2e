"""The shape of times."""

from datetime import datetime
from typing import Annotated

from pydantic import PlainSerializer, WithJsonSchema

from app.clocks import timestamp

# Pydantic's own form depends on the value: without digits of a second if they are 0, which strict parsers reject.
Time = Annotated[
    datetime,
    PlainSerializer(timestamp, return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "type": "string",
            "format": "date-time",
            "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$",
            "description": "UTC, with milliseconds.",
            "examples": ["2026-11-25T12:00:00.000Z"],
        },
        mode="serialization",
    ),
]
