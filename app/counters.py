"""Counters with few non-zero entries among many that were."""

from collections import Counter
from collections.abc import Hashable
from typing import TypeVar

K = TypeVar("K", bound=Hashable)


def take_off(counter: Counter[K], key: K) -> None:
    """Count one less of a key, and forget it at zero.

    Without the walk through all keys that `-=` of counters is.
    """
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
