"""Parts of update pipelines. All times are the database's own ($$NOW)."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any


def literals(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields with constant values.

    Without $literal, a pipeline would evaluate a text that begins with $ (NoSQL injection).
    """
    return {name: {"$literal": value} for name, value in values.items()}


def later(duration: timedelta) -> dict[str, Any]:
    """Return the time after a duration."""
    return {"$add": ["$$NOW", milliseconds(duration)]}


def milliseconds(duration: timedelta) -> int:
    """Return a duration as MongoDB adds it to times."""
    return int(duration.total_seconds() * 1000)
