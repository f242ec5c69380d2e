"""The clock by which a worker knows how old its news are."""

import sys
import time


def boot_clock() -> float:
    """Return the seconds since boot, also those that the machine was suspended.

    A virtual machine that its hypervisor stopped cannot know of that time.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()
