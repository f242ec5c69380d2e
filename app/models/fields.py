"""Check the fields of documents: a program, a restore or a person may have written others than this service does."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

MOST = 2**53  # above it, a floating-point number is not exact

Check = Callable[[Any], bool]


def damage(
    document: Mapping[str, Any], required: Mapping[str, Check], optional: Mapping[str, Check] | None = None
) -> tuple[str, ...]:
    """Return the names of the fields that have a wrong value, and of required ones that are missing."""
    present = {name: valid for name, valid in (optional or {}).items() if name in document}
    return tuple(name for name, valid in {**required, **present}.items() if not valid(document.get(name)))


def is_text(value: Any) -> bool:
    """Return whether a value is a text."""
    return isinstance(value, str)


def is_bytes(value: Any) -> bool:
    """Return whether a value is binary."""
    return isinstance(value, bytes)


def is_flag(value: Any) -> bool:
    """Return whether a value is true or false."""
    return isinstance(value, bool)


def is_time(value: Any) -> bool:
    """Return whether a value is a time.

    A time outside of Python's range is decoded as another type.
    """
    return isinstance(value, datetime)


def is_count(value: Any) -> bool:
    """Return whether a value is a whole number from 0.

    MongoDB's old shell stores them as floating-point numbers.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value < MOST and value == int(value)


def is_list(each: Check) -> Check:
    """Return a check for lists of valid values."""
    return lambda value: isinstance(value, list) and all(each(one) for one in value)
