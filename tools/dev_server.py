"""Serve with reload and tell how to use it once it is ready: python -m tools.dev_server [--port 8000]."""

import argparse
import os
import secrets
import socket
import sys
import threading
import time
from urllib.error import URLError
from urllib.request import urlopen

from sanic.cli.app import SanicCLI

from tools.processes import die_with_parent

HOST = "127.0.0.1"
HINTS = """
  The service is at {url} and its documentation at {url}/docs. To try it, paste these lines:

TOKEN=$(curl -s {url}/users/registration -H 'Content-Type: application/json' \
-d '{{"username": "alice-'$RANDOM'", "password": "{password}"}}' | sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/')
curl -s {url}/tests/secret -H "Authorization: Bearer $TOKEN"
curl -s {url}/tests/secret
"""


def tell_when_ready(url: str) -> None:
    """Print the address and three commands to try, as soon as the service answers."""
    hints = HINTS.format(url=url, password=secrets.token_urlsafe(12))
    while True:
        try:
            with urlopen(f"{url}/health/ready", timeout=1):
                break
        except (URLError, OSError):
            time.sleep(0.05)
    print(hints, flush=True)


def taken(port: int) -> bool:
    """Tell whether somebody listens on the port already."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def main() -> None:
    """Check the port, then hand over to Sanic's own command line."""
    parser = argparse.ArgumentParser(prog="scripts/run", description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    port = parser.parse_args().port
    if taken(port):
        sys.exit(f"{HOST}:{port} is taken: stop what listens there, or choose another with --port")
    # Sanic kills its whole process group when a worker fails to start; ours must not be the caller's.
    os.setpgrp()
    threading.Thread(target=tell_when_ready, args=(f"http://{HOST}:{port}",), daemon=True).start()
    cli = SanicCLI()
    cli.attach()
    cli.run(["app:create_app", "--dev", f"--host={HOST}", f"--port={port}"])


# Sanic's children (workers, reloader, manager) are spawned: each runs this module again under another name.
if __name__ == "__mp_main__":
    die_with_parent()

if __name__ == "__main__":
    main()
