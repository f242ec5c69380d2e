"""Run this checkout's service on a MongoDB of its own, with the settings of one measurement, and servers beside it."""

import os
import secrets
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench import ROOT, contenders, servers
from bench.checkouts import OURS, Checkout
from bench.machine import BOTH_CORES, SERVER_CORE
from tools.local_mongo import free_port, local_mongo

STOP_SECONDS = 20


@contextmanager
def service(settings: Mapping[str, str], *, workers: int = 1) -> Iterator[servers.Server]:
    """Run the service for the context; several workers share both cores. Raises BenchFailed."""
    cores = str(SERVER_CORE) if workers == 1 else BOTH_CORES
    checkout = Checkout(OURS, ROOT, ROOT / os.environ.get("VENV", ".venv"))
    with local_mongo() as mongo, tempfile.TemporaryDirectory() as folder:
        uri = f"{mongo.uri.rpartition('/')[0]}/bench"
        ours = contenders.service(checkout, secrets.token_urlsafe(48), uri, workers=workers, cores=cores)
        with servers.running(ours.with_settings(settings), Path(folder)) as server:
            yield server


def uri_of(server: servers.Server) -> str:
    """Return the URI of the service's database."""
    return server.contender.environment["APP_MONGO_URI"]


@contextmanager
def beside(command: Sequence[str], variables: Mapping[str, str]) -> Iterator[int]:
    """Run a server that listens at the variable PORT, and yield this port."""
    port = free_port()
    process = subprocess.Popen(command, env={**os.environ, **variables, "PORT": str(port)})
    try:
        yield port
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)
