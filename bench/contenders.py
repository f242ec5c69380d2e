"""The servers to compare: this service as in production and its peers, with their start commands."""

import os
from pathlib import Path

from bench.machine import SERVER_CORE
from bench.servers import ROOT, Contender
from config.product import SLUG

OURS = "this service"
CEILING = "Sanic's ceiling"
SANIC_JWT = "Sanic + sanic-jwt"
BLACKSHEEP, LITESTAR, FASTAPI, FLASK = "BlackSheep", "Litestar", "FastAPI", "Flask"

ACCESS_TOKEN_SECONDS = 3600  # longer than a run; the lifetime of a token does not affect the speed of requests


def service(
    key: str, mongo_uri: str, *, name: str = OURS, workers: int = 1, cores: str = str(SERVER_CORE)
) -> Contender:
    """Describe this service as in production: Sanic's command line, settings from the environment.

    Three settings differ, and do not affect a measured request: access tokens outlive the run, the throttle allows one
    address to make all the load, and the service stops without a drain.
    """
    return Contender(
        name,
        [_executable(_own(), "sanic"), "app", "--workers", str(workers), "--host", "127.0.0.1", "--port", "{port}"],
        {
            "APP_ENV": "production",
            "APP_JWT_SECRET_KEY": key,
            "APP_MONGO_URI": mongo_uri,
            "APP_ACCESS_TOKEN_SECONDS": str(ACCESS_TOKEN_SECONDS),
            "APP_LOGIN_FAILURES_PER_ADDRESS": "1000000/15minutes",
            "APP_DRAIN_SECONDS": "0",
        },
        ready="/health/ready",
        cores=cores,
    )


def peers(key: str) -> list[Contender]:
    """Describe the peers, each with one worker and without access logs."""
    environment = {"BENCH_KEY": key, "BENCH_AUDIENCE": SLUG}
    return [
        Contender(CEILING, _sanic("ceiling"), environment),
        Contender(SANIC_JWT, _sanic("sanic_jwt"), environment),
        Contender(BLACKSHEEP, _uvicorn("blacksheep"), environment | {"APP_ENV": "production"}),
        Contender(LITESTAR, _uvicorn("litestar"), environment),
        Contender(FASTAPI, _uvicorn("fastapi"), environment),
        Contender(FLASK, _gunicorn("flask"), environment),
    ]


def versions() -> str:
    """Return the peers' releases from the lock in one line."""
    names = ("sanic", "sanic-jwt", "blacksheep", "litestar", "fastapi", "uvicorn", "flask", "flask-jwt-extended")
    locked = dict(
        line.split(" ")[0].split("==")
        for line in (Path(__file__).parent / "requirements.txt").read_text().splitlines()
        if "==" in line and not line.startswith((" ", "#"))
    )
    return ", ".join(f"{name} {locked[name]}" for name in (*names, "gunicorn", "pyjwt", "uvloop"))


def _sanic(module: str) -> list[str]:
    options = ["--workers", "1", "--no-access-logs", "--host", "127.0.0.1", "--port", "{port}"]
    return [_executable(_peers(), "sanic"), f"bench.peers.{module}:app", *options]


def _uvicorn(module: str) -> list[str]:
    options = ["--no-access-log", "--log-level", "warning", "--host", "127.0.0.1", "--port", "{port}"]
    return [_executable(_peers(), "uvicorn"), f"bench.peers.{module}:app", *options]


def _gunicorn(module: str) -> list[str]:
    # gthread, because gunicorn's sync workers do not support keep-alive, which wrk and all other servers here use.
    options = [
        "--workers",
        "1",
        "--worker-class",
        "gthread",
        "--threads",
        "4",
        "--no-control-socket",
        "--bind",
        "127.0.0.1:{port}",
    ]
    return [_executable(_peers(), "gunicorn"), f"bench.peers.{module}:app", *options]


def _own() -> Path:
    return ROOT / os.environ.get("VENV", ".venv")


def _peers() -> Path:
    return ROOT / os.environ.get("BENCH_VENV", ".venv-bench")


def _executable(environment: Path, name: str) -> str:
    return str(environment / "bin" / name)
