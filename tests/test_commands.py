"""Administration on the command line."""

import io
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from app.commands import Commands
from app.context import Context
from app.models.users import Access
from config import Config
from tests import serving
from tests.conftest import PASSWORD, Actor, Document, Service
from tests.processes import TIMEOUT_SECONDS, running, until


@pytest.fixture
def environment(config: Config) -> dict[str, str]:
    """Give the environment variables with which the commands use the service's database."""
    return serving.environment(config.MONGO_URI) | {"APP_MONGO_TIMEOUT_SECONDS": "2"}


def run(environment: dict[str, str], *arguments: str, stdin: str | bytes = "") -> subprocess.CompletedProcess[str]:
    """Run `sanic app exec ...`."""
    command = [serving.SANIC, "app:create_app", "exec", *arguments]
    sent = stdin.encode() if isinstance(stdin, str) else stdin
    ran = subprocess.run(
        command, env=environment, input=sent, capture_output=True, timeout=TIMEOUT_SECONDS, check=False
    )
    return subprocess.CompletedProcess(command, ran.returncode, ran.stdout.decode(), ran.stderr.decode())


def test_a_new_database_has_no_default_account(config: Config) -> None:
    """The password of a default account would be publicly known."""
    uri = f"{config.MONGO_URI}_new"
    with MongoClient[Document](uri) as client:
        database = client.get_default_database()
        with Service(config.model_copy(update={"MONGO_URI": uri})) as new_service:
            assert new_service("GET", "/health/ready").status_code == 200
            assert "users" in database.list_collection_names(), "created at startup"
            assert database.users.count_documents({}) == 0
        client.drop_database(database)


def test_create_admin_creates_the_first_administrator(service: Service, environment: dict[str, str]) -> None:
    name = f"root-{secrets.token_hex(4)}"
    created = run(environment, "create-admin", f"--username={name}", stdin=f"{PASSWORD}\n")
    assert (created.returncode, created.stderr) == (0, "")
    assert f"{name} is an administrator" in created.stdout
    assert PASSWORD not in created.stdout
    admin = Actor(service, name, {}).log_in()
    assert admin.get("/users").status_code == 200


@pytest.fixture
def command(service: Service, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give a function that runs a command in this process, with the service's own stores."""

    @asynccontextmanager
    async def services() -> AsyncIterator[Context]:
        yield service.app.ctx

    def command(name: str, *options: str, stdin: str | io.StringIO = "") -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin) if isinstance(stdin, str) else stdin)
        arguments = dict(option.removeprefix("--").split("=") for option in options)
        service.run(getattr(Commands(services), name.replace("-", "_"))(**arguments))

    return command


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "message"),
    [
        (("create-admin",), PASSWORD, 2, "--username=... is required"),
        (("create-admin", "--username=a b"), PASSWORD, 1, "ASCII letters"),
        (("create-admin", "--username=somebody-new"), "short", 1, "at least 8 characters"),
        (("create-admin", "--username=somebody-new"), "", 1, "at least 8 characters"),
        (("create-admin", "--username=somebody-new"), "password123", 1, "most common"),
        (("disable-user", "--username=nobody-there"), "", 1, "there is no user named nobody-there"),
        (("end-sessions",), "", 2, "--username=... is required"),
        (("set-password",), PASSWORD, 2, "--username=... is required"),
        (("set-password", "--username=nobody-there"), PASSWORD, 1, "there is no user named nobody-there"),
        (("create-admin", "--username=somebody-new"), f"{PASSWORD} \n", 1, "ends with an invisible character"),
        (("create-admin", "--username=somebody-new"), f"\u00a0{PASSWORD}\n", 1, "ends with an invisible character"),
        (("create-admin", "--username=somebody-new"), f"{PASSWORD}\u200b\r\n", 1, "ends with an invisible character"),
        (("create-admin", "--username=somebody-new"), f"{PASSWORD}\t\n", 1, "ends with an invisible character"),
        (("create-admin", "--username=somebody-new"), "correct\0horse battery\n", 1, "control character"),
        (("create-admin", "--username=somebody-new"), "correct horse b\udce4ttery\n", 1, "not valid UTF-8"),
        (("delete-user",), "", 2, "--username=... or --id=... is required"),
        (("delete-user", "--username=somebody", "--id=x"), "", 2, "--username=... or --id=... is required"),
        (("delete-user", "--username=nobody-there"), "", 1, "there is no user named nobody-there"),
        (("delete-user", "--id=6744a1b2c3d4e5f60718293a"), "", 1, "there is no user named 6744a1b2c3d4e5f60718293a"),
    ],
)
def test_a_failed_command_reports_the_reason(
    command: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    stdin: str,
    code: int,
    message: str,
) -> None:
    with pytest.raises(SystemExit) as exited:
        command(*arguments, stdin=stdin)
    assert exited.value.code == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\r", "\r\r\n", "\nanother line\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["plain", "byte order mark"])
def test_the_line_end_is_not_part_of_the_password(
    service: Service, command: Callable[..., None], start: str, end: str
) -> None:
    name = f"root-{secrets.token_hex(4)}"
    command("create-admin", f"--username={name}", stdin=f"{start}{PASSWORD}{end}")
    assert service("POST", "/auth", json={"username": name, "password": PASSWORD}).status_code == 200


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        ("kräftige Wörter für ein Kennwort\n".encode("latin-1"), "is not valid UTF-8"),
        (f"{PASSWORD}\n".encode("utf-16"), "is not valid UTF-8"),
        (f"{PASSWORD}\n".encode("utf-16-le"), "invisible character"),
    ],
    ids=["latin-1", "utf-16", "utf-16 without a mark"],
)
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_a_password_in_another_encoding_is_one_sentence(
    environment: dict[str, str], stdin: bytes, message: str, locale: str
) -> None:
    """Whatever the locale makes of such bytes."""
    failed = run({**environment, "LC_ALL": locale}, "create-admin", "--username=somebody-new", stdin=stdin)
    assert (failed.returncode, failed.stdout) == (1, "")
    (line,) = failed.stderr.splitlines()
    assert message in line


def test_a_password_of_a_windows_file_logs_in(service: Service, environment: dict[str, str]) -> None:
    name, password = f"root-{secrets.token_hex(4)}", "kräftige Wörter für ein Kennwort"
    for locale in ("C", "C.UTF-8"):
        command = "create-admin" if locale == "C" else "set-password"
        done = run({**environment, "LC_ALL": locale}, command, f"--username={name}", stdin=f"{password}{locale}\r\n")
        assert (done.returncode, done.stderr) == (0, "")
        body = {"username": name, "password": f"{password}{locale}"}
        assert service("POST", "/auth", json=body).status_code == 200


class Terminal(io.StringIO):
    """A standard input at which the password is prompted for."""

    def isatty(self) -> bool:
        """Return True."""
        return True


@pytest.mark.parametrize(
    ("answers", "code", "message"),
    [
        ([PASSWORD, "another"], 1, "the passwords differ"),
        ([EOFError()], 1, "no password was given"),
        ([KeyboardInterrupt()], 130, "cancelled"),
        ([f"{PASSWORD}\u00a0"] * 2, 1, "ends with an invisible character"),
    ],
)
def test_a_prompt_without_a_password_is_one_sentence(
    command: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answers: list[str | BaseException],
    code: int,
    message: str,
) -> None:
    def answer(_: str) -> str:
        given = answers.pop(0)
        if isinstance(given, BaseException):
            raise given
        return given

    monkeypatch.setattr("getpass.getpass", answer)
    with pytest.raises(SystemExit) as exited:
        command("create-admin", "--username=somebody-new", stdin=Terminal())
    assert exited.value.code == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("keys", "code", "message"), [(b"\x03", 130, "cancelled"), (b"\x04", 1, "no password")])
def test_the_prompt_of_a_terminal_can_be_left(
    environment: dict[str, str], keys: bytes, code: int, message: str
) -> None:
    """By Ctrl-C and by Ctrl-D."""
    command = [serving.SANIC, "app:create_app", "exec", "create-admin", "--username=somebody-new"]
    with running(command, cwd=serving.CHECKOUT, env=environment, terminal=True) as prompt:
        until(lambda: "Password:" in prompt.output, "the prompt")
        assert prompt.terminal
        prompt.terminal.type(keys)
        assert prompt.wait() == code
        assert message in prompt.output
        assert "Traceback" not in prompt.output


NEW_PASSWORD = "a quite different sentence"


def test_set_password_replaces_the_password_and_ends_all_sessions(
    service: Service, command: Callable[..., None], alice: Actor, caplog: pytest.LogCaptureFixture
) -> None:
    other = alice.log_in()
    with caplog.at_level("INFO", "audit"):
        command("set-password", f"--username={alice.username.upper()}", stdin=f"{NEW_PASSWORD}\r\n")
    assert [(actor.secret_status, actor.refresh().status_code) for actor in (alice, other)] == [(401, 401)] * 2
    for password, status in ((PASSWORD, 401), (NEW_PASSWORD, 200)):
        body = {"username": alice.username, "password": password}
        assert service("POST", "/auth", json=body).status_code == status
    (facts,) = [record.__dict__["facts"] for record in caplog.records if record.getMessage() == "password_changed"]
    assert facts == {"event": "password_changed", "user_id": alice.claims["sub"], "by": "command line"}


@pytest.mark.parametrize(("password", "rule"), [("short", "at least 8"), ("password123", "common"), (None, "username")])
def test_set_password_checks_the_policy_and_changes_nothing(
    service: Service,
    command: Callable[..., None],
    alice: Actor,
    capsys: pytest.CaptureFixture[str],
    password: str | None,
    rule: str,
) -> None:
    with pytest.raises(SystemExit):
        command("set-password", f"--username={alice.username}", stdin=password or alice.username)
    assert rule in capsys.readouterr().err
    assert alice.secret_status == 200
    assert service("POST", "/auth", json={"username": alice.username, "password": PASSWORD}).status_code == 200


def test_set_password_keeps_a_user_disabled(
    service: Service, command: Callable[..., None], alice: Actor, database: Database[Document]
) -> None:
    command("disable-user", f"--username={alice.username}")
    command("set-password", f"--username={alice.username}", stdin=NEW_PASSWORD)
    body = {"username": alice.username, "password": NEW_PASSWORD}
    assert service("POST", "/auth", json=body).status_code == 401
    command("enable-user", f"--username={alice.username}")
    assert service("POST", "/auth", json=body).status_code == 200
    assert "ending" not in (database.users.find_one({"username": alice.username}) or {})


def test_set_password_ends_the_sessions_in_the_running_service(
    service: Service, environment: dict[str, str], alice: Actor
) -> None:
    done = run(environment, "set-password", f"--username={alice.username}", stdin=f"{NEW_PASSWORD}\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"the password of {alice.username} is set, and all sessions have ended"
    assert NEW_PASSWORD not in done.stdout
    service.run(service.app.ctx.revocations.catch_up())
    assert alice.secret_status == 401


def test_disabling_and_enabling_a_user(
    service: Service, command: Callable[..., None], alice: Actor, database: Database[Document]
) -> None:
    credentials = {"username": alice.username, "password": alice.password}
    command("disable-user", f"--username={alice.username}")
    assert alice.secret_status == 401
    assert alice.refresh().status_code == 401
    assert service("POST", "/auth", json=credentials).status_code == 401
    command("enable-user", f"--username={alice.username.upper()}")
    assert alice.log_in().secret_status == 200
    user = database.users.find_one({"username": alice.username})
    assert user
    assert "ending" not in user


def test_the_last_administrator_cannot_be_disabled(
    command: Callable[..., None], alice: Actor, database: Database[Document], capsys: pytest.CaptureFixture[str]
) -> None:
    database.users.update_many({"access": Access.ADMIN}, {"$set": {"access": Access.USER}})
    database.users.update_one({"username": alice.username}, {"$set": {"access": Access.ADMIN}})
    with pytest.raises(SystemExit):
        command("disable-user", f"--username={alice.username}")
    assert "is the last administrator" in capsys.readouterr().err
    assert alice.secret_status == 200


@pytest.mark.parametrize("option", ["username", "id"])
def test_deleting_a_user(command: Callable[..., None], alice: Actor, database: Database[Document], option: str) -> None:
    command("delete-user", f"--{option}={alice.username.upper() if option == 'username' else alice.claims['sub']}")
    assert alice.secret_status == 401
    assert database.users.find_one({"username": alice.username}) is None


def test_the_last_administrator_cannot_be_deleted(
    command: Callable[..., None], admin: Actor, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command("delete-user", f"--username={admin.username}")
    assert "is the last administrator" in capsys.readouterr().err
    assert admin.get("/users").status_code == 200


def test_create_admin_reports_that_a_username_is_taken(
    command: Callable[..., None], alice: Actor, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command("create-admin", f"--username={alice.username.upper()}", stdin=PASSWORD)
    assert f"the username {alice.username.upper()} is taken" in capsys.readouterr().err


def test_listing_users(command: Callable[..., None], alice: Actor, capsys: pytest.CaptureFixture[str]) -> None:
    command("list-users")
    assert f"{alice.claims['sub']}\tuser\tenabled\t{alice.username}" in capsys.readouterr().out.splitlines()


def test_end_sessions_ends_the_sessions_in_the_running_service(
    service: Service, environment: dict[str, str], alice: Actor
) -> None:
    ended = run(environment, "end-sessions", f"--username={alice.username}")
    assert (ended.returncode, ended.stdout.splitlines()[-1]) == (0, f"all sessions of {alice.username} have ended")
    service.run(service.app.ctx.revocations.catch_up())
    assert alice.secret_status == 401
    assert alice.log_in().secret_status == 200


def test_an_unavailable_database_is_reported_without_a_traceback(environment: dict[str, str]) -> None:
    variables = {**environment, "APP_MONGO_URI": "mongodb://127.0.0.1:9/x", "APP_MONGO_TIMEOUT_SECONDS": "0.3"}
    failed = run(variables, "list-users")
    assert failed.returncode == 1
    assert "127.0.0.1:9: the connection is refused" in failed.stderr
    assert "MONGO_URI" in failed.stderr
    assert "Traceback" not in failed.stderr
