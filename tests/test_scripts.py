"""scripts/run and scripts/admin in a copy of the repository, and tools.local_mongo below them."""

import json
import os
import re
import shutil
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import httpx
import pymongo
import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tests.conftest import PASSWORD, Document
from tests.copies import copy_tree
from tests.processes import TIMEOUT_SECONDS, Command, Process, descendants, running, until
from tests.serving import CHECKOUT
from tools import local_mongo, mongod
from tools.local_mongo import LocalMongo, MongoFailed, free_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")

ALICE = {"username": "alice", "password": PASSWORD}
CHILDREN = 3  # of Sanic's main process: its worker, its reloader, and the process that holds their states
# As outside of the suite: no settings, no PYTHONPATH into the checkout.
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("APP_", "PYTHONPATH"))},
    "VENV": sys.prefix,
    "no_proxy": "127.0.0.1",
}


class Newcomer:
    """A developer with a fresh copy of the repository, who starts scripts/run in it several times."""

    def __init__(self, folder: Path) -> None:
        self.folder = copy_tree(folder)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = folder / "instance" / "application.cfg"
        self._server: Command | None = None

    def start(self, *, terminal: bool = False) -> Command:
        """Start scripts/run without waiting."""
        self.close()
        command = ["scripts/run", f"--port={self.port}"]
        self._server = Command(command, cwd=self.folder, env=ENVIRONMENT, terminal=terminal)
        return self._server

    def serve(self, *, terminal: bool = False) -> Command:
        """Return a running scripts/run that has printed its hints, in a terminal or not; start it if needed."""
        server = self._server
        if server is None or server.exit_code is not None or bool(server.terminal) != terminal:
            server = self.start(terminal=terminal)
        server.wait_for(f"{self.url}/health/ready")
        until(lambda: "To try it" in server.output, "word of it")
        return server

    def post(self, path: str) -> int:
        """Send alice's credentials and return the status."""
        return httpx.post(f"{self.url}{path}", json=ALICE, trust_env=False, timeout=TIMEOUT_SECONDS).status_code

    def hello(self) -> str:
        """Return what the service says to everyone, or nothing while it does not answer."""
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/tests/hello", trust_env=False, timeout=TIMEOUT_SECONDS).text
        return ""

    def close(self) -> None:
        """Kill all processes that still run."""
        if self._server:
            self._server.close()
            self._server = None


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    """Start scripts/run for the first time, in a terminal, and register alice, who exists after every later start."""
    with closing(Newcomer(tmp_path_factory.mktemp("tree"))) as newcomer:
        newcomer.serve(terminal=True)
        assert newcomer.post("/users/registration") == 201
        yield newcomer


def children(server: Command) -> list[Process]:
    """Return the processes that Sanic's main process has forked or spawned."""
    words = ("tools.dev_server", "spawn_main")
    return [process for process in descendants(server.pid) if any(word in process.command for word in words)]


def ctrl_c(server: Command) -> None:
    """Press Ctrl-C: the terminal sends SIGINT to every process of the foreground group."""
    assert server.terminal
    server.terminal.type(b"\x03")


def terminate(server: Command) -> None:
    server.send(signal.SIGTERM)


def interrupt(server: Command) -> None:
    """Send SIGINT to the parent alone, as `kill -INT` does."""
    server.send(signal.SIGINT)


def kill(server: Command) -> None:
    server.send(signal.SIGKILL)


def test_the_first_start_makes_a_random_secret_that_only_its_owner_reads(newcomer: Newcomer) -> None:
    assert stat.S_IMODE(newcomer.config.stat().st_mode) == 0o600
    secret = r"'[\w-]{64}'\n"
    content = newcomer.config.read_text()
    assert re.fullmatch(rf'JWT_SECRET_KEY = {secret}ENCRYPTION_KEY = {secret}JWT_ALGORITHM = "EdDSA".*\n', content)


def test_the_lines_it_prints_can_be_pasted(newcomer: Newcomer) -> None:
    """In any POSIX shell: they register, show the secret to the token's holder, and reject a request without it."""
    if not shutil.which("curl"):
        pytest.skip("the lines call curl, which is not here")
    server = newcomer.serve(terminal=True)
    assert f"{newcomer.url} and its documentation at {newcomer.url}/docs" in server.output
    token, allowed, refused = [line for line in server.output.splitlines() if line.startswith(("TOKEN=$(curl", "curl"))]
    script = f"{token}\n{allowed}\n{refused}"
    with running(["sh", "-c", script], cwd=newcomer.folder, env=ENVIRONMENT) as shell:
        assert shell.wait() == 0
        secret, problem = shell.output.splitlines()
    assert secret == '{"Hello":"Secret!"}'
    assert json.loads(problem)["status"] == 401


def test_the_lines_of_the_readme_reset_a_password(newcomer: Newcomer) -> None:
    """The link is in the terminal and in a file; the page itself is tested in a browser."""
    server = newcomer.serve(terminal=True)
    (lines,) = re.findall(r"```sh\n(JSON=.*?)```", (CHECKOUT / "README.md").read_text(), re.DOTALL)
    script = lines.replace("http://127.0.0.1:8000", newcomer.url).replace("alice", "reader")
    with running(["sh", "-ec", script], cwd=newcomer.folder, env=ENVIRONMENT) as shell:
        assert shell.wait() == 0, shell.output
        assert '"email_verified":true' in shell.output
    link = re.compile(r"http://localhost:(\d+)/account/reset#token=([\w-]{43})")
    until(lambda: link.search(server.output), "the link in the terminal")
    found = link.search(server.output)
    assert found
    assert found[1] == str(newcomer.port)
    new = {"token": found[2], "new_password": "the second sentence"}
    reset = httpx.post(f"{newcomer.url}/auth/reset/confirmation", json=new, trust_env=False, timeout=TIMEOUT_SECONDS)
    assert reset.status_code == 204, reset.text
    login = {"username": "reader@example.com", "password": "the second sentence"}
    assert httpx.post(f"{newcomer.url}/auth", json=login, trust_env=False, timeout=TIMEOUT_SECONDS).status_code == 200
    mails = newcomer.folder / "instance" / "mail"
    until(lambda: len(list(mails.glob("*.eml"))) == 3, "the code, the link, and the notice of the reset")


def test_a_terminal_shows_the_banner_and_no_slow_task(newcomer: Newcomer) -> None:
    """Colors reach the terminal as such, and nothing blocks the event loop at the start."""
    output = newcomer.serve(terminal=True).output
    assert "\\x1b" not in output
    assert "Goin' Fast" in output
    assert "Executing <" not in output


def test_administration_beside_the_running_service(newcomer: Newcomer) -> None:
    """And without it: scripts/admin finds the database in both cases."""
    for name, serving in (("root", True), ("other-root", False)):
        if serving:
            newcomer.serve()
        else:
            newcomer.close()
        command = f"echo {PASSWORD} | scripts/admin create-admin --username={name} && scripts/admin list-users"
        with running(["sh", "-c", command], cwd=newcomer.folder, env=ENVIRONMENT) as admin:
            assert admin.wait() == 0, admin.output
            assert f"admin\tenabled\t{name}\n" in admin.output


def test_a_second_start_beside_the_first_names_the_data_in_use(newcomer: Newcomer) -> None:
    newcomer.serve(terminal=True)
    with running(["scripts/run", f"--port={free_port()}"], cwd=newcomer.folder, env=ENVIRONMENT) as second:
        assert second.wait() == 1
        (line,) = second.output.splitlines()
    assert "instance/mongodb" in line
    assert newcomer.post("/auth") == 200


@pytest.mark.parametrize("port", ["taken", "0", "65536"])
def test_a_port_that_cannot_be_had_is_one_line(newcomer: Newcomer, tmp_path: Path, port: str) -> None:
    """And nothing is left running."""
    newcomer.serve(terminal=True)
    number = newcomer.port if port == "taken" else port
    with running(["scripts/run", f"--port={number}"], cwd=copy_tree(tmp_path), env=ENVIRONMENT) as run:
        assert run.wait() != 0
        *_usage, line = run.output.splitlines()
        assert "port" in line
        assert "Traceback" not in run.output
        assert not run.family()


@pytest.mark.parametrize(
    ("end", "exit_code"),
    [
        (ctrl_c, 0),
        (interrupt, 0),
        (terminate, 0),
        (kill, -signal.SIGKILL),
    ],
)
def test_after_every_kind_of_end_only_the_data_remains(
    newcomer: Newcomer, end: Callable[[Command], None], exit_code: int
) -> None:
    """No process remains and the port is free; the next start, in the next case, has the same users."""
    server = newcomer.serve(terminal=end is ctrl_c)
    assert newcomer.post("/auth") == 200
    until(lambda: len(children(server)) == CHILDREN, "Sanic's children")
    family = server.family()
    assert any("/mongod " in process.command for process in family)
    end(server)
    assert server.wait() == exit_code
    assert "Traceback" not in server.output, server.output
    until(lambda: not any(process.runs() for process in family | server.family()), "the end of every process")
    with pytest.raises(httpx.ConnectError):
        httpx.get(newcomer.url, trust_env=False)


def test_a_changed_module_is_served(newcomer: Newcomer) -> None:
    """The first worker is a copy of the main process; a worker after a change must import it again."""
    newcomer.serve()
    view = newcomer.folder / "app" / "views" / "hello.py"
    before = view.read_text()
    for name in ("Everyone", "World"):
        view.write_text(before.replace("World", name))
        until(lambda name=name: name in newcomer.hello(), "the change")  # type: ignore[misc]


def test_the_secret_and_the_users_survive_every_kind_of_end(newcomer: Newcomer) -> None:
    secret = newcomer.config.read_bytes()
    newcomer.serve()
    assert newcomer.config.read_bytes() == secret
    assert newcomer.post("/auth") == 200


@pytest.mark.parametrize("end", [ctrl_c, terminate, kill])
def test_a_stop_during_the_start_ends_it(newcomer: Newcomer, end: Callable[[Command], None]) -> None:
    """Sanic alone would wait for workers that it has already ended."""
    server = newcomer.start(terminal=end is ctrl_c)
    until(lambda: len(children(server)) == CHILDREN, "Sanic's children")
    end(server)
    server.wait()
    assert end is not terminate or "Traceback" not in server.output
    until(lambda: not server.family(), "the end of every process")


def run_with_mongo(*command: str) -> tuple[int, str]:
    """Run a command with tools.local_mongo and return its exit code and output."""
    with running([sys.executable, "-m", "tools.local_mongo", *command], cwd=CHECKOUT) as run:
        return run.wait(), run.output


def test_ctrl_c_while_mongodb_starts_is_quiet() -> None:
    with running([sys.executable, "-m", "tools.local_mongo", "--", "sleep", "60"], cwd=CHECKOUT) as run:
        until(lambda: descendants(run.pid), "mongod")
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait() == 128 + signal.SIGINT
        until(lambda: not run.family(), "the end of every process")
        assert run.output == ""


@pytest.mark.parametrize(("parent", "exit_code"), [("os.getppid()", 0), ("0", -signal.SIGTERM)])
def test_a_process_whose_parent_has_already_died_ends(parent: str, exit_code: int) -> None:
    """Whichever process has adopted it: on a desktop that is seldom process 1."""
    program = f"import os; from tools.processes import die_with_parent; die_with_parent({parent})"
    with running([sys.executable, "-c", program], cwd=CHECKOUT) as orphan:
        assert orphan.wait() == exit_code


def test_local_mongo_ends_as_its_command_does() -> None:
    assert run_with_mongo("--", "sh", "-c", "echo $APP_MONGO_URI; exit 7")[0] == 7


def test_local_mongo_without_a_command_explains_itself() -> None:
    code, output = run_with_mongo()
    assert code == 2
    assert output.startswith("usage: python -m tools.local_mongo")


def test_a_frozen_mongodb_times_out_and_keeps_its_data(tmp_path: Path) -> None:
    with local_mongo.local_mongo(tmp_path) as mongo, MongoClient[Document](mongo.uri) as client:
        assert isinstance(mongo, LocalMongo)
        notes = client.get_default_database()["notes"]
        notes.insert_one({})
        mongo.pause()
        with pytest.raises(PyMongoError), pymongo.timeout(0.5):
            notes.find_one()
        mongo.resume()
        assert notes.find_one()
        mongo.restart()
        assert notes.find_one()


def test_a_frozen_mongodb_ends_with_its_parent(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, time; from tools.local_mongo import LocalMongo;"
        "mongo = LocalMongo(pathlib.Path(sys.argv[1])); mongo.start(); mongo.pause(); print('frozen', flush=True);"
        "time.sleep(60)"
    )
    with running([sys.executable, "-c", program, str(tmp_path)], cwd=CHECKOUT) as parent:
        until(lambda: "frozen" in parent.output, "a frozen mongod")
        family = parent.family()
        assert any("/mongod " in process.command for process in family)
        parent.send(signal.SIGKILL)
        until(lambda: not any(process.runs() for process in family), "the end of every process")


def test_a_missing_mongod_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(mongod, "BUNDLE", "not_installed.db")
    with pytest.raises(MongoFailed, match="no mongod on PATH"):
        mongod.mongod_path()


def test_a_mongod_that_cannot_be_loaded_is_reported_with_its_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example without libcurl: there is no log, or only that of an earlier start."""
    words = "mongod: error while loading shared libraries: libcurl.so.4: cannot open shared object file"
    (tmp_path / "mongod").write_text(f"#!/bin/sh\necho '{words}' >&2\nexit 127\n")
    (tmp_path / "mongod").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    said = f"local_mongo: mongod did not start (exit code 127): {words}\n"
    data = tmp_path / "data"
    assert run_with_mongo("--data", str(data), "--", "true") == (1, said)
    (data / "mongod.log").touch()
    os.utime(data / "mongod.log", (0, 0))
    assert run_with_mongo("--data", str(data), "--", "true") == (1, said)


def test_the_log_of_a_mongod_that_ended_is_named(tmp_path: Path) -> None:
    broken = LocalMongo(tmp_path, options=["--keyFile", "/nonexistent"])
    with pytest.raises(MongoFailed, match="its log is") as failed:
        broken.start()
    broken.stop()
    assert "/nonexistent" in Path(str(failed.value).rpartition(" ")[2]).read_text()
