"""MongoDB dies, freezes, stutters, changes its primary, runs full, refuses the password, or is not there at all."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from pymongo import MongoClient

from tests.conftest import PASSWORD, Document
from tests.faults.conftest import BACK_SECONDS, LIMIT_SECONDS, PEOPLE, Footprint, Load, Server, serving
from tests.faults.test_processes import starting
from tests.processes import until
from tests.test_scripts import run_with_mongo
from tools.local_mongo import DATABASE, LocalMongo, ReplicaSet

REPETITIONS = int(os.environ.get("FAULTS_REPETITIONS", "2"))  # how often each crash is repeated; ask for 10
PRIMARIES = 5  # how many are lost, one after the other
AWAY_SECONDS = 5
FROZEN_SECONDS = 10
SILENT_SECONDS = 14  # beyond REVOCATION_STALE_SECONDS
STUTTER_SECONDS = 0.9  # less than the limit, and two of them nearly as much
CALM_SECONDS = 2  # of ordinary service before a fault
DISK_MEGABYTES = 400
INTERRUPTED = 11601  # the server's error code

Note = Callable[[str], None]


def test_a_crash_is_503_in_time_and_nothing_acknowledged_is_lost(server: Server, mongo: LocalMongo, note: Note) -> None:
    with Load(server) as load:
        for _ in range(REPETITIONS):
            time.sleep(CALM_SECONDS)
            mongo.kill()
            time.sleep(AWAY_SECONDS)
            mongo.start()
            note(recovered(load))
    note(load.report())
    load.check_time()
    load.check_answers()
    load.check_memory()


def test_while_it_is_away_nothing_is_opened_and_a_refresh_can_be_repeated(server: Server, mongo: LocalMongo) -> None:
    """The service lives, is not ready, says so to everybody, lets nobody in, and needs no restart."""
    alice = server.post("/users/registration", username="alice", password=PASSWORD).json()
    bob = server.post("/users/registration", username="bobby", password=PASSWORD).json()
    assert server.post("/auth/logout", bob["access_token"]).status_code == 204
    until(lambda: {server.get("/tests/secret", bob["access_token"]).status_code for _ in range(8)} == {401}, "news")
    mongo.kill()
    began = time.monotonic()
    while time.monotonic() - began < SILENT_SECONDS:
        assert server.get("/health/live").status_code == 200
        assert server.get("/tests/secret", bob["access_token"]).status_code in (401, 503)
        assert server.get("/tests/secret", "garbage").status_code == 401
        for refused in (
            server.get("/health/ready"),
            server.get("/auth/me", alice["access_token"]),
            server.post("/auth", username="alice", password=PASSWORD),
            server.post("/auth/refresh", refresh_token=alice["refresh_token"]),
            server.post("/users/registration", username="carol", password=PASSWORD),
        ):
            assert (refused.status_code, refused.headers["content-type"]) == (503, "application/problem+json")
            assert refused.headers["retry-after"]
            assert refused.elapsed.total_seconds() < LIMIT_SECONDS
    assert server.get("/tests/secret", alice["access_token"]).status_code == 503, "too long without news"
    mongo.start()
    until(server.ready, "readiness", seconds=BACK_SECONDS)
    assert server.post("/auth/refresh", refresh_token=alice["refresh_token"]).status_code == 200
    assert server.get("/tests/secret", bob["access_token"]).status_code == 401


def test_a_replica_set_that_loses_its_primary_loses_nothing_acknowledged(replica_set: ReplicaSet, note: Note) -> None:
    with serving(replica_set.uri) as server, Load(server) as load:
        for _ in range(PRIMARIES):
            time.sleep(CALM_SECONDS)
            killed, began = replica_set.primary(), time.monotonic()
            killed.kill()
            replica_set.primary()
            note(f"another primary after {time.monotonic() - began:.2f} s; {recovered(load)}")
            killed.start()
        load.stop()
        note(load.report())
        load.check_answers()
        load.check_memory()


def test_a_frozen_database_piles_nothing_up(server: Server, mongo: LocalMongo, note: Note) -> None:
    """It keeps its connections and answers nothing, so that everybody waits for as long as they may."""
    with Load(server) as load:
        time.sleep(CALM_SECONDS)
        before = [Footprint.of(worker, mongo.port) for worker in server.workers]
        mongo.pause()
        during = []
        for _ in range(FROZEN_SECONDS):
            time.sleep(1)
            during += [Footprint.of(worker, mongo.port) for worker in server.workers]
        mongo.resume()
        note(recovered(load))
        after = [Footprint.of(worker, mongo.port) for worker in server.workers]
    note(load.report())
    note(f"before {Footprint.most(before)}; during {Footprint.most(during)}; after {Footprint.most(after)}")
    load.check_time()
    load.check_answers()
    load.check_memory()
    most, at_first = Footprint.most([*during, *after]), Footprint.most(before)
    assert most.connections <= at_first.connections + 2 * PEOPLE
    assert most.threads <= at_first.threads + 2 * PEOPLE
    assert most.megabytes <= at_first.megabytes + 20


def test_a_database_that_takes_its_time_is_waited_for_once(server: Server, mongo: LocalMongo, note: Note) -> None:
    """Each of its answers comes within the limit, but not all that a login needs: the limit is the request's."""
    with Load(server) as load:
        time.sleep(CALM_SECONDS)
        for _ in range(FROZEN_SECONDS):
            mongo.pause()
            time.sleep(STUTTER_SECONDS)
            mongo.resume()
            time.sleep(0.02)
        note(recovered(load))
    note(load.report())
    load.check_time()
    load.check_answers()
    load.check_memory()


def test_revocations_that_cannot_be_followed_close_protected_routes_only(tmp_path: Path, note: Note) -> None:
    """Only that look fails, while everything else of the database works."""
    mongo = LocalMongo(tmp_path / "mongodb", options=["--setParameter", "enableTestCommands=1"])
    mongo.start()
    with serving(mongo.uri, REVOCATION_STALE_SECONDS="3") as server:
        name = "alice"
        token = server.post("/users/registration", username=name, password=PASSWORD).json()["access_token"]
        look = {"failCommands": ["find"], "namespace": f"{DATABASE}.sessions", "errorCode": INTERRUPTED}
        began = time.monotonic()
        with failing(mongo, look):
            until(lambda: server.get("/tests/secret", token).status_code == 503, "refusals", seconds=3 + 1)
            note(f"protected routes closed after {time.monotonic() - began:.2f} s without news")
            until(lambda: code_of(server.get("/health/ready")) == "revocations_stale", "word of it", seconds=1)
            assert server.get("/tests/secret", token).headers["retry-after"]
            assert server.get("/tests/hello").status_code == 200
            assert server.post("/auth", username=name, password=PASSWORD).status_code == 200
        began = time.monotonic()
        until(lambda: server.get("/tests/secret", token).status_code == 200, "recovery", seconds=BACK_SECONDS)
        until(server.ready, "readiness", seconds=BACK_SECONDS)
        note(f"and open {time.monotonic() - began:.2f} s after the news came again")
    mongo.stop()


def test_a_database_that_is_not_there_at_the_start_is_waited_for(tmp_path: Path, note: Note) -> None:
    mongo = LocalMongo(tmp_path / "mongodb")
    with serving(mongo.uri) as server:
        credentials = {"username": "alice", "password": PASSWORD}
        assert server.get("/tests/hello").status_code == 200
        refused = [server.post("/users/registration", **credentials), server.get("/health/ready")]
        assert [(one.status_code, "retry-after" in one.headers) for one in refused] == [(503, True)] * 2
        mongo.start()
        began = time.monotonic()
        until(server.ready, "readiness", seconds=BACK_SECONDS)
        note(f"ready {time.monotonic() - began:.2f} s after the database came")
        assert server.post("/users/registration", **credentials).status_code == 201
        assert server.post("/users/registration", **credentials).status_code == 409, "the indexes were made after all"
    mongo.stop()


@pytest.mark.parametrize("processes", ["--workers=2", "--single-process"])
@pytest.mark.parametrize("login", ["root:wrong@", ""], ids=["wrong", "none"])
def test_credentials_that_the_database_refuses_stop_the_start_in_one_line(
    tmp_path: Path, login: str, processes: str
) -> None:
    """And a database that comes later than the service refuses nobody yet."""
    mongo = LocalMongo(tmp_path / "mongodb")
    mongo.start()
    with MongoClient[Document](mongo.uri) as client:
        client.admin.command("createUser", "root", pwd="right", roles=["root"])
    mongo.stop()
    strict = LocalMongo(tmp_path / "mongodb", options=["--auth"])
    strict.start()
    with starting(strict.uri.replace("//", f"//{login}") + "?authSource=admin", processes) as server:
        assert server.command.wait() == 1
        assert server.command.output == (
            "The service cannot start with these settings:\n"
            "  MONGO_URI: the database refuses this user name and password\n"
        )
    with starting(strict.uri.replace("//", "//root:right@") + "?authSource=admin", processes) as server:
        server.command.wait_for(f"{server.url}/health/ready")
    strict.stop()


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_a_folder_that_takes_no_data_is_named_in_one_line(tmp_path: Path, fault: str) -> None:
    with small_disk(tmp_path / "disk") as disk:
        if fault == "full":
            fill(disk)
        else:
            subprocess.check_call(["mount", "-o", "remount,ro", disk])  # noqa: S607
        code, output = run_with_mongo("--data", str(disk / "mongodb"), "--", "true")
    assert code == 1
    (line,) = output.splitlines()
    assert "--data" in line
    assert str(disk / "mongodb") in line


def test_a_full_disk_is_503_and_nothing_acknowledged_is_lost(tmp_path: Path, note: Note) -> None:
    """MongoDB ends itself when it cannot write; with room again and restarted it has everything."""
    with small_disk(tmp_path / "disk") as disk:
        mongo = LocalMongo(disk / "mongodb")
        mongo.start()
        with serving(mongo.uri) as server, Load(server) as load:
            time.sleep(CALM_SECONDS)
            ballast = fill(disk)
            until(lambda: mongo.ended or load.seconds_since(503) < 1, "consequences", seconds=60)
            time.sleep(AWAY_SECONDS)
            note(f"mongod {'ended itself' if mongo.ended else 'went on'}")
            ballast.unlink()
            mongo.restart()
            note(recovered(load))
            load.stop()
            note(load.report())
            load.check_time()
            load.check_answers()
            load.check_memory()
        mongo.stop()


def test_a_replica_set_has_a_primary_and_after_a_restart_its_data(tmp_path: Path) -> None:
    """Whatever ports its members have then; the connection string names them all, and takes a majority's word."""
    write = (
        "import os; from pymongo import MongoClient; client = MongoClient(os.environ['APP_MONGO_URI'], w='majority');"
        "notes = client.get_default_database().notes; notes.insert_one({});"
        "print(len(client.nodes), notes.count_documents({}), client.topology_description.replica_set_name)"
    )
    arguments = ["--data", str(tmp_path), "--replicas", "3", "--", sys.executable, "-c", write]
    assert run_with_mongo(*arguments) == (0, "3 1 rs0\n")
    assert run_with_mongo(*arguments) == (0, "3 2 rs0\n")


def recovered(load: Load) -> str:
    """Wait until everything must work again, see that it does, and say how long it took."""
    back = time.monotonic()
    time.sleep(BACK_SECONDS + 1)
    last = max((one.at + one.seconds - back for one in load.answers if one.status == 503), default=0)
    assert last < BACK_SECONDS
    return f"the last refusal came {last:.2f} s after the return"


@contextmanager
def failing(mongo: LocalMongo, what: Document) -> Iterator[None]:
    """Have MongoDB answer some commands with an error."""
    with MongoClient[Document](mongo.uri) as client:
        client.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=what)
        yield
        client.admin.command("configureFailPoint", "failCommand", mode="off")


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a small file system in memory, where that is allowed."""
    folder.mkdir()
    if subprocess.call(["mount", "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m", "tmpfs", folder]):  # noqa: S607
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        subprocess.check_call(["umount", folder])  # noqa: S607


def fill(disk: Path) -> Path:
    """Leave no room."""
    ballast = disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(65536))
    return ballast


def code_of(response: httpx.Response) -> str | None:
    """Return the stable code of a refusal."""
    code: str | None = response.json().get("code")
    return code
