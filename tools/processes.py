"""What keeps child processes from outliving their parent."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM to this process when its parent dies, even by SIGKILL.

    `parent` is that parent's pid. Linux only; elsewhere a parent killed by SIGKILL leaves its children
    (prctl(2), PR_SET_PDEATHSIG).
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the request was made, and not only pid 1 adopts orphans
        os.kill(os.getpid(), signal.SIGTERM)
