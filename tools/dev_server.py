"""Serve with reload on a private MongoDB, and print example commands when ready: scripts/run [--port 8000].

MongoDB starts while the service is imported. With APP_MONGO_URI, that database is used instead.
"""

import argparse
import os
import secrets
import signal
import sys
import threading
import time
from contextlib import closing, suppress
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

from tools.local_mongo import LocalMongo, MongoFailed

if TYPE_CHECKING:
    from aiosmtpd.controller import Controller

HOST = "127.0.0.1"
INSTANCE = Path(__file__).parent.parent / "instance"
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


def print_hints_when_ready(port: int) -> None:
    """Print the address and three example commands when the service is ready."""
    hints = HINTS.format(url=f"http://{HOST}:{port}", password=secrets.token_urlsafe(12))
    while not ready(port):
        time.sleep(0.05)
    print(hints, flush=True)


def prepare_mail(port: int) -> "Controller | None":
    """Return a mail server that prints mails, which is not started, or None if another one is set."""
    from config import ConfigurationError, load
    from config.addresses import DEVELOPMENT_URL
    from tools import dev_mail

    try:
        settings = load()
    except ConfigurationError:  # which the service itself reports
        return None
    if settings.SMTP_URL:
        return None
    server = dev_mail.server(INSTANCE / "mail")
    os.environ["APP_SMTP_URL"] = f"smtp://{server.hostname}:{server.port}"
    if not settings.MAIL_FROM:
        os.environ["APP_MAIL_FROM"] = "no-reply@localhost.localdomain"
    if settings.PUBLIC_URL == DEVELOPMENT_URL:
        os.environ["APP_PUBLIC_URL"] = f"http://localhost:{port}"
    return server


def serve(port: int, mongo: LocalMongo | None) -> None:
    """Check the port, then run Sanic's command line. Raises MongoFailed."""
    # Not at module level: MongoDB starts meanwhile.
    from sanic.cli.app import SanicCLI

    from app.server import workers
    from app.server.startup import check_free
    from app.server.supervisor import Manager

    check_free(HOST, port)
    if mongo:
        mongo.wait()
        workers.run_apart(partial(_elect, mongo))
        os.environ["APP_MONGO_URI"] = mongo.uri
    mail = prepare_mail(port)

    def started() -> None:
        """Start what needs threads, which the main process must not have when it forks workers."""
        if mail:
            mail.start()
        threading.Thread(target=print_hints_when_ready, args=(port,), daemon=True).start()

    Manager.when_started = staticmethod(started)
    # In a terminal, --dev opens an interactive shell; Sanic looks for --no-repl in sys.argv only.
    sys.argv = ["sanic", "app:create_app", "--dev", "--no-repl", f"--host={HOST}", f"--port={port}"]
    cli = SanicCLI()
    cli.attach()
    cli.run()


def _elect(mongo: LocalMongo) -> None:
    try:
        mongo.elect()
    except MongoFailed as failed:
        raise SystemExit(_line(failed)) from None


def _line(failed: MongoFailed) -> str:
    return f"scripts/run: {failed}"


def main() -> None:
    """Start MongoDB, serve, and stop MongoDB."""
    parser = argparse.ArgumentParser(prog="scripts/run", description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    port = parser.parse_args().port
    if not 0 < port < 65536:
        parser.error("the port must be a number from 1 to 65535")
    for number in (signal.SIGINT, signal.SIGTERM):  # until Sanic sets its own handlers
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    mongo = None if os.environ.get("APP_MONGO_URI") else LocalMongo(INSTANCE / "mongodb")
    try:
        if mongo:
            mongo.launch()
        serve(port, mongo)
    except MongoFailed as failed:
        raise SystemExit(_line(failed)) from None
    finally:
        if mongo:
            mongo.stop()


if __name__ == "__main__":
    main()
