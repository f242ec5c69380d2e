"""Serve with reload and tell how to use it once it is ready: python -m tools.dev_server [--port 8000]."""

import argparse
import math
import os
import secrets
import signal
import socket
import sys
import threading
import time
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from types import FrameType
from typing import NoReturn

from sanic.cli.app import SanicCLI
from sanic.mixins import startup
from sanic.worker.manager import WorkerManager

from tools.processes import die_with_parent

HOST = "127.0.0.1"
SAME_SIGNAL_SECONDS = 0.5
MAIN_PID = "DEV_SERVER_PID"
HINTS = """
  The service is at {url} and its documentation at {url}/docs. To try it, paste these lines:

TOKEN=$(curl -s {url}/users/registration -H 'Content-Type: application/json' \
-d '{{"username": "alice-'$RANDOM'", "password": "{password}"}}' | sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/')
curl -s {url}/tests/secret -H "Authorization: Bearer $TOKEN"
curl -s {url}/tests/secret
"""


class Manager(WorkerManager):
    """Sanic's manager of worker processes, with the ways out that it lacks."""

    started = threading.Event()
    told = -math.inf

    def wait_for_ack(self) -> None:
        """Wait until every worker has started."""
        super().wait_for_ack()
        self.started.set()

    def shutdown_signal(self, number: int, frame: FrameType | None) -> None:
        """Stop gracefully; while the workers start, at once, because Sanic would wait for them for ever."""
        now, before = time.monotonic(), self.told
        self.told = now
        if now - before < SAME_SIGNAL_SECONDS:
            return  # once to the whole group and once passed on; Sanic would take the second for impatience
        if self.started.is_set():
            super().shutdown_signal(number, frame)
        else:
            self.kill()

    def kill(self) -> NoReturn:
        """Kill the workers and leave. Sanic would kill the whole process group, which is also the caller's."""
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        os._exit(1)


def ready(port: int) -> bool:
    """Ask the service whether it is ready; never through a proxy."""
    with closing(HTTPConnection(HOST, port, timeout=1)) as connection, suppress(OSError, HTTPException):
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    return False


def tell_when_ready(port: int) -> None:
    """Print the address and three commands to try, as soon as the service answers."""
    hints = HINTS.format(url=f"http://{HOST}:{port}", password=secrets.token_urlsafe(12))
    Manager.started.wait()
    while not ready(port):
        time.sleep(0.05)
    print(hints, flush=True)


def check_free(port: int) -> None:
    """Exit with the reason if nobody could listen on the port now."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Sanic will
            probe.bind((HOST, port))
    except OSError as error:
        sys.exit(f"{HOST}:{port} cannot be used ({error.strerror}): choose another with --port")


def main() -> None:
    """Check the port, then hand over to Sanic's own command line."""
    parser = argparse.ArgumentParser(prog="scripts/run", description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    port = parser.parse_args().port
    if not 0 < port < 65536:
        parser.error("a port is a number from 1 to 65535")
    check_free(port)
    os.environ[MAIN_PID] = str(os.getpid())
    threading.Thread(target=tell_when_ready, args=(port,), daemon=True).start()
    startup.WorkerManager = Manager  # type: ignore[attr-defined]
    # In a terminal --dev would open an interactive shell; Sanic looks for the refusal in sys.argv only.
    sys.argv = ["sanic", "app:create_app", "--dev", "--no-repl", f"--host={HOST}", f"--port={port}"]
    cli = SanicCLI()
    cli.attach()
    cli.run()


# Sanic's children (workers, reloader, manager) are spawned: each runs this module again under another name.
if __name__ == "__mp_main__":
    die_with_parent(int(os.environ[MAIN_PID]))

if __name__ == "__main__":
    main()
