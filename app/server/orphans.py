"""End processes with their parent. Uses only the standard library, so that it can also run on its own."""

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


# The start of the process that holds the states of Sanic's workers. A signal to the process group must not take the
# states from workers that are still finishing; the main process ends it without a signal.
if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent(signal.SIGKILL)
