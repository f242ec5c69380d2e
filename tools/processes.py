"""Child processes that end with their parent, and commands that receive forwarded signals."""

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
    """Make the kernel send SIGTERM to this process when its parent dies, even by SIGKILL.

    `parent` is the parent's pid. Linux only (prctl(2), PR_SET_PDEATHSIG). On other systems, a parent killed by SIGKILL
    leaves its children running.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # the parent died before prctl(); the adopter of orphans is not always pid 1
        os.kill(os.getpid(), signal.SIGTERM)


def run(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run the command, forward signals to it, and return its exit code as a shell does."""
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def forward(number: int, _: FrameType | None) -> None:
        if child is None:
            early.append(number)
        elif number != signal.SIGINT or not sys.stdin.isatty():  # a terminal signals the whole group, and so the child
            child.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, forward)
    child = subprocess.Popen(command, env=environment, preexec_fn=partial(die_with_parent, os.getpid()))
    for missed in early:
        child.send_signal(missed)
    code = child.wait()
    return 128 - code if code < 0 else code
