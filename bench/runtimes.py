"""The peers in other languages: install or build them. A peer is not measured where its runtime is missing."""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench import installs
from bench.commands import output
from bench.machine import BenchFailed

FASTIFY, FASTIFY_CACHED, GO = "Fastify", "Fastify with token cache", "Go net/http"
CACHED_TOKENS = 20_000  # in Fastify's cache, as many as in this service's
PEERS = Path(__file__).parent / "peers"
NODE_MAJOR = 20  # the lowest that Fastify supports
# Debian's packages of Go libraries are for GOPATH mode, which needs no network.
GOPATH = "/usr/share/gocode"
GO_LIBRARY = "golang-github-golang-jwt-jwt-dev"
GO_PACKAGES = f"apt-get install golang-go {GO_LIBRARY}"


class RuntimeMissing(Exception):
    """A peer cannot run on this machine; the message gives the reason in one line."""


@dataclass(frozen=True)
class Program:
    """A peer that is ready to start, with the versions of what it consists of."""

    command: list[str]
    versions: str
    environment: Mapping[str, str] = field(default_factory=dict)


def prepare(name: str, folder: Path) -> Program:
    """Install a peer, or build it in the folder. Raises RuntimeMissing."""
    try:
        return PREPARATIONS[name](folder)
    except BenchFailed as failed:
        raise RuntimeMissing(str(failed)) from failed


def _fastify(cached_tokens: int) -> Program:
    if not shutil.which("node") or not shutil.which("npm"):
        raise RuntimeMissing(f"node and npm are missing, version {NODE_MAJOR} or later of Node.js")
    version = output("node", "--version").removeprefix("v")
    if int(version.partition(".")[0]) < NODE_MAJOR:
        raise RuntimeMissing(f"Node.js is {version}; {NODE_MAJOR} or later is needed")
    project = PEERS / "fastify"
    installs.node_modules(project)
    locked = json.loads((project / "package-lock.json").read_text())["packages"]
    packages = (f"{name} {locked[f'node_modules/{name}']['version']}" for name in ("fastify", "@fastify/jwt"))
    command = ["node", str(project / "server.js"), "{port}"]
    environment = {"NODE_ENV": "production", "BENCH_CACHE": str(cached_tokens)}
    return Program(command, ", ".join([f"Node.js {version}", *packages]), environment)


def _go(folder: Path) -> Program:
    if not shutil.which("go"):
        raise RuntimeMissing(f"go is missing: {GO_PACKAGES}")
    if not (Path(GOPATH) / "src/github.com/golang-jwt/jwt").is_dir():
        raise RuntimeMissing(f"golang-jwt is missing: {GO_PACKAGES}")
    program = folder / "go-server"
    environment = {"GO111MODULE": "off", "GOPATH": GOPATH}
    output("go", "build", "-o", program, PEERS / "go" / "server.go", environment=environment)
    version = output("go", "env", "GOVERSION").removeprefix("go")
    versions = f"Go {version}, golang-jwt {_debian_version(GO_LIBRARY)}"
    return Program([str(program), "{port}"], versions, {"GOMAXPROCS": "1"})


def _debian_version(package: str) -> str:
    """Return the version without Debian's epoch and revision."""
    version = output("dpkg-query", "--show", "--showformat=${Version}", package)
    return re.sub(r"^\d+:|-[^-]*$", "", version)


PREPARATIONS: dict[str, Callable[[Path], Program]] = {
    FASTIFY: lambda _: _fastify(0),
    FASTIFY_CACHED: lambda _: _fastify(CACHED_TOKENS),
    GO: _go,
}
