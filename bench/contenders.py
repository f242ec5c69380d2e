"""The servers to compare: this service as in production and its peers, with their start commands."""

from pathlib import Path

from bench.checkouts import Checkout
from bench.machine import SERVER_CORE
from bench.servers import Contender
from bench.setup import Peers
from config.product import SLUG

CEILING = "Sanic's ceiling"
SANIC_JWT = "Sanic + sanic-jwt"
BLACKSHEEP, LITESTAR, FASTAPI, FLASK = "BlackSheep", "Litestar", "FastAPI", "Flask"

ACCESS_TOKEN_SECONDS = 3600  # longer than a run; the lifetime of a token does not affect the speed of requests


def service(
    checkout: Checkout,
    key: str,
    mongo_uri: str,
    *,
    name: str = "",
    workers: int = 1,
    cores: str = str(SERVER_CORE),
) -> Contender:
    """Describe a checkout's service as in production: Sanic's command line, settings from the environment.

    Three settings differ, and do not affect a measured request: access tokens outlive the run, the throttle allows one
    address to make all the load, and the service stops without a drain.
    """
    options = ["--workers", str(workers), "--host", "127.0.0.1", "--port", "{port}"]
    settings = {
        "APP_ENV": "production",
        "APP_JWT_SECRET_KEY": key,
        "APP_JWT_ALGORITHM": "HS256",  # scripts/run has written another one into instance/application.cfg
        "APP_MONGO_URI": mongo_uri,
        "APP_ACCESS_TOKEN_SECONDS": str(ACCESS_TOKEN_SECONDS),
        "APP_LOGIN_FAILURES_PER_ADDRESS": "1000000/15minutes",
        "APP_DRAIN_SECONDS": "0",
    }
    return Contender(
        name or checkout.name,
        [_executable(checkout.environment, "sanic"), "app", *options],
        checkout.known(settings),
        ready="/health/ready",
        cores=cores,
        root=checkout.root,
        accepts_service_tokens=True,
    )


def peers(key: str, installed: Peers) -> list[Contender]:
    """Describe the peers that run on this machine, each with one worker and without access logs."""
    environment = {"BENCH_KEY": key, "BENCH_AUDIENCE": SLUG}
    commands = {
        CEILING: _sanic(installed.environment, "ceiling"),
        SANIC_JWT: _sanic(installed.environment, "sanic_jwt"),
        BLACKSHEEP: _uvicorn(installed.environment, "blacksheep"),
        LITESTAR: _uvicorn(installed.environment, "litestar"),
        FASTAPI: _uvicorn(installed.environment, "fastapi"),
        FLASK: _gunicorn(installed.environment, "flask"),
    }
    own = {BLACKSHEEP: {"APP_ENV": "production"}}
    return [
        *(
            Contender(name, command, environment | own.get(name, {}), accepts_service_tokens=name == CEILING)
            for name, command in commands.items()
        ),
        *(Contender(name, one.command, {**environment, **one.environment}) for name, one in installed.programs.items()),
    ]


def _sanic(environment: Path, module: str) -> list[str]:
    options = ["--workers", "1", "--no-access-logs", "--host", "127.0.0.1", "--port", "{port}"]
    return [_executable(environment, "sanic"), f"bench.peers.{module}:app", *options]


def _uvicorn(environment: Path, module: str) -> list[str]:
    options = ["--no-access-log", "--log-level", "warning", "--host", "127.0.0.1", "--port", "{port}"]
    return [_executable(environment, "uvicorn"), f"bench.peers.{module}:app", *options]


def _gunicorn(environment: Path, module: str) -> list[str]:
    # gthread, because gunicorn's sync workers do not support keep-alive, which wrk and all other servers here use.
    workers = ["--workers", "1", "--worker-class", "gthread", "--threads", "4", "--no-control-socket"]
    return [_executable(environment, "gunicorn"), f"bench.peers.{module}:app", *workers, "--bind", "127.0.0.1:{port}"]


def _executable(environment: Path, name: str) -> str:
    return str(environment / "bin" / name)
