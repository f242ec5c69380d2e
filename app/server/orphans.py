"""End processes with their parent."""

import ctypes
import multiprocessing
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(number: signal.Signals) -> None:
    """Have the kernel send a signal to this process when its parent dies, even by SIGKILL.

    Only in children of multiprocessing, and only on Linux (prctl(2), PR_SET_PDEATHSIG).
    """
    parent = multiprocessing.parent_process()
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent.pid:  # it died before the call
        os.kill(os.getpid(), number)


def end_only_with_parent() -> None:
    """Ignore SIGTERM, and end when the parent has ended.

    For the process that holds the states of Sanic's workers: a signal to the process group must not take them from
    workers that are still finishing. The main process ends it without a signal.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent(signal.SIGKILL)
