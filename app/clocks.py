"""The clock by which a worker knows how old its news are, and the form of times for people and programs."""

import sys
import time
from datetime import UTC, datetime


def boot_clock() -> float:
    """Return the seconds since boot, also those that the machine was suspended.

    A virtual machine that its hypervisor stopped cannot know of that time.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


def timestamp(moment: datetime) -> str:
    """Return a time as ISO 8601 in UTC.

    Always with three digits of a second and `Z` (RFC 3339).
    """
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
