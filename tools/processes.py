"""Child processes: none outlives its parent, and a command gets the signals that are meant for it."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from types import FrameType

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


def run(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run the command, pass signals on to it, and return its exit code as a shell would."""
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def forward(number: int, _: FrameType | None) -> None:
        if child is None:
            early.append(number)
        elif number != signal.SIGINT or not sys.stdin.isatty():  # a terminal tells the whole group, so also the child
            child.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, forward)
    child = subprocess.Popen(command, env=environment, preexec_fn=partial(die_with_parent, os.getpid()))
    for missed in early:
        child.send_signal(missed)
    code = child.wait()
    return 128 - code if code < 0 else code
