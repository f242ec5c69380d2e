"""No process outlives its parent. Of the standard library alone, so that it can also be run on its own."""

import ctypes
import multiprocessing
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(number: signal.Signals) -> None:
    """Have the kernel send the signal to this process when its parent dies, even by SIGKILL.

    For children of multiprocessing, and in others without effect. Linux only (prctl(2), PR_SET_PDEATHSIG).
    """
    parent = multiprocessing.parent_process()
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent.pid:  # it died before the request was made
        os.kill(os.getpid(), number)


# How the process begins that holds the states of Sanic's workers. A signal to the whole group must not take the
# states from workers that still finish; the main process ends it without one.
if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent(signal.SIGKILL)
