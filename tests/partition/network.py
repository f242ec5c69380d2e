"""Hosts in network namespaces of their own, and a switch between them whose links can be cut, slow or lossy.

The hosts have no route to anywhere else. Each has a TUN device, and a process carries the packets between the devices,
so the kernel needs no packet scheduler (netem). Linux only; the caller must be root.
"""

import ctypes
import fcntl
import json
import os
import secrets
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from tests.partition.switch import Link
from tests.serving import CHECKOUT

NETWORK = "192.0.2."  # TEST-NET-1, for examples (RFC 5737)
TUN = Path("/dev/net/tun")
DEVICE = "tun0"
MTU = "9000"
CLONE_NEWNET = 0x4000_0000  # setns(2)
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x4004_54CA, 0x0001, 0x1000  # linux/if_tun.h
THREADS = 32  # of this process in each namespace
STOP_SECONDS = 5
CUT = Link(loss=1.0)

T = TypeVar("T")
Hosts = Sequence["Host"]


def missing_requirements() -> list[str]:
    """Return what this machine lacks for such a network."""
    programs = {"ip": "iproute2", "iptables": "iptables"}
    lacking = [f"{name} (apt-get install {package})" for name, package in programs.items() if not shutil.which(name)]
    if sys.platform != "linux":
        return ["Linux"]
    if os.geteuid() != 0:
        lacking.append("root")
    if not TUN.exists():
        lacking.append(str(TUN))
    return lacking


def run(*command: str) -> None:
    """Run a command to its end. Raises CalledProcessError."""
    subprocess.run(command, check=True, capture_output=True, text=True)


class Host:
    """A network namespace with an address, and threads of this process that are in it."""

    def __init__(self, name: str, number: int, namespace: str) -> None:
        self.name = name
        self.number = number
        self.address = f"{NETWORK}{number}"
        self.device = -1  # the descriptor
        self._namespace = namespace
        self._threads = ThreadPoolExecutor(THREADS, initializer=self._enter)

    def open(self) -> None:
        """Create the namespace with its device."""
        run("ip", "netns", "add", self._namespace)
        self.device = self.run(_open_device)
        for settings in (
            ("addr", "add", f"{self.address}/24", "dev", DEVICE),
            ("link", "set", DEVICE, "mtu", MTU, "up"),
            ("link", "set", "lo", "up"),
        ):
            run("ip", "-n", self._namespace, *settings)

    def close(self) -> None:
        """Remove the namespace. Does nothing if it was not created."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self.device >= 0:
            os.close(self.device)
        with suppress(subprocess.CalledProcessError):
            run("ip", "netns", "delete", self._namespace)

    def start(self, call: Callable[[], T]) -> Future[T]:
        """Start a call in a thread of this host; sockets that it opens are in its network."""
        return self._threads.submit(call)

    def run(self, call: Callable[[], T]) -> T:
        """Return the result of a call in a thread of this host."""
        return self.start(call).result()

    def command(self, *command: str) -> list[str]:
        """Return the command that runs another one in this namespace; it becomes that process."""
        return ["ip", "netns", "exec", self._namespace, *command]

    def reject(self, other: "Host") -> None:
        """Reject what this host sends to another: programs learn at once that their connections are closed."""
        rule = ("-p", "tcp", "-d", other.address, "-j", "REJECT", "--reject-with", "tcp-reset")
        run(*self.command("iptables", "-A", "OUTPUT", *rule))

    def stop_rejecting(self) -> None:
        """Send to all hosts again."""
        run(*self.command("iptables", "-F", "OUTPUT"))

    def _enter(self) -> None:
        with (Path("/run/netns") / self._namespace).open() as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns(2) failed")


def _open_device() -> int:
    descriptor = os.open(TUN, os.O_RDWR)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    return descriptor


class Network:
    """Hosts and the links between them. The names of namespaces are unique, so several networks can exist."""

    def __init__(self, names: Sequence[str]) -> None:
        prefix = f"partition-{secrets.token_hex(4)}"
        self.hosts = {name: Host(name, number, f"{prefix}-{name}") for number, name in enumerate(names, 1)}
        self._links: dict[tuple[int, int], Link] = {}
        self._rejecting: set[Host] = set()
        self._switch: subprocess.Popen[str] | None = None

    def open(self) -> None:
        """Create the hosts and connect them."""
        for host in self.hosts.values():
            host.open()
        devices = {host.number: host.device for host in self.hosts.values()}
        arguments = [f"{number}={device}" for number, device in devices.items()]
        self._switch = subprocess.Popen(
            [sys.executable, "-m", "tests.partition.switch", *arguments],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=list(devices.values()),
            text=True,
            start_new_session=True,  # Ctrl-C ends the tests, which end the switch
        )

    def close(self) -> None:
        """Remove everything that was created."""
        if self._switch:
            with self._switch as switch:
                switch.kill()
        for host in self.hosts.values():
            host.close()

    def cut(self, senders: Hosts, receivers: Hosts, *, one_way: bool = False) -> None:
        """Lose all packets between two sides, or only those of the senders."""
        self._set(senders, receivers, CUT, one_way=one_way)

    def delay(self, senders: Hosts, receivers: Hosts, seconds: float, *, one_way: bool = False) -> None:
        """Delay packets between two sides, or only those of the senders."""
        self._set(senders, receivers, Link(delay_seconds=seconds), one_way=one_way)

    def lose(self, some: Hosts, others: Hosts, share: float) -> None:
        """Lose a share of the packets between two sides."""
        self._set(some, others, Link(loss=share))

    def reject(self, some: Hosts, others: Hosts) -> None:
        """Reject packets between two sides, so that programs do not wait for an answer."""
        for one in some:
            for other in others:
                one.reject(other)
                other.reject(one)
        self._rejecting |= {*some, *others}

    def heal(self) -> None:
        """Make all links perfect again; delayed packets still arrive."""
        self._links = {}
        self._send_links()
        while self._rejecting:
            self._rejecting.pop().stop_rejecting()

    def _set(self, some: Hosts, others: Hosts, link: Link, *, one_way: bool = False) -> None:
        for one in some:
            for other in others:
                self._links[one.number, other.number] = link
                if not one_way:
                    self._links[other.number, one.number] = link
        self._send_links()

    def _send_links(self) -> None:
        assert self._switch, "the network is open"
        assert self._switch.stdin
        assert self._switch.stdout
        links = [[sender, receiver, *link] for (sender, receiver), link in self._links.items()]
        self._switch.stdin.write(f"{json.dumps(links)}\n")
        self._switch.stdin.flush()
        assert self._switch.stdout.readline(), "the switch has ended"
