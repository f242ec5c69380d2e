"""Serve with reload, and print example commands when ready: python -m tools.dev_server [--port 8000]."""

import argparse
import os
import secrets
import sys
import threading
import time
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

HOST = "127.0.0.1"
MAILS = Path(__file__).parent.parent / "instance" / "mail"
HINTS = """
  The service is at {url} and its documentation at {url}/docs. To try it, run these commands:

TOKEN=$(curl -s {url}/users/registration -H 'Content-Type: application/json' \
-d '{{"username": "alice-'$$'", "password": "{password}"}}' | sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/')
curl -s -w "\\n" {url}/tests/secret -H "Authorization: Bearer $TOKEN"
curl -s -w "\\n" {url}/tests/secret
"""


def ready(port: int) -> bool:
    """Return whether the service is ready. The request never uses a proxy."""
    with closing(HTTPConnection(HOST, port, timeout=1)) as connection, suppress(OSError, HTTPException):
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    return False


def print_hints_when_ready(port: int, started: threading.Event) -> None:
    """Print the address and three example commands when the service is ready."""
    hints = HINTS.format(url=f"http://{HOST}:{port}", password=secrets.token_urlsafe(12))
    started.wait()
    while not ready(port):
        time.sleep(0.05)
    print(hints, flush=True)


def prepare_mail(port: int) -> None:
    """Start a mail server that prints mails, unless another one is set."""
    from config import ConfigurationError, load
    from config.addresses import DEVELOPMENT_URL
    from tools import dev_mail

    try:
        settings = load()
    except ConfigurationError:  # which the service itself reports
        return
    if settings.SMTP_URL:
        return
    os.environ["APP_SMTP_URL"] = dev_mail.start(MAILS)
    if not settings.MAIL_FROM:
        os.environ["APP_MAIL_FROM"] = "no-reply@localhost.localdomain"
    if settings.PUBLIC_URL == DEVELOPMENT_URL:
        os.environ["APP_PUBLIC_URL"] = f"http://localhost:{port}"


def main() -> None:
    """Check the port, then run Sanic's command line."""
    # Not at module level: the process that holds the workers' states also imports this module and does not need these.
    from sanic.cli.app import SanicCLI

    from app.server.startup import check_free
    from app.server.supervisor import Manager

    parser = argparse.ArgumentParser(prog="scripts/run", description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    port = parser.parse_args().port
    if not 0 < port < 65536:
        parser.error("the port must be a number from 1 to 65535")
    check_free(HOST, port)
    prepare_mail(port)
    threading.Thread(target=print_hints_when_ready, args=(port, Manager.started), daemon=True).start()
    # In a terminal, --dev opens an interactive shell; Sanic looks for --no-repl in sys.argv only.
    sys.argv = ["sanic", "app:create_app", "--dev", "--no-repl", f"--host={HOST}", f"--port={port}"]
    cli = SanicCLI()
    cli.attach()
    cli.run()


if __name__ == "__main__":
    main()
