"""Tests with a MongoDB that is killed, frozen, slow, full, without a primary, unavailable, or rejects the password."""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from pymongo import MongoClient

from tests.conftest import PASSWORD, Document
from tests.faults.conftest import (
    LOAD_CLIENTS,
    RECOVERY_SECONDS,
    RESPONSE_LIMIT_SECONDS,
    Footprint,
    Load,
    Server,
    fill,
    running_mongo,
    serving,
    small_disk,
)
from tests.faults.test_processes import starting
from tests.processes import until
from tests.test_scripts import run_with_mongo
from tools.local_mongo import DATABASE, LocalMongo, ReplicaSet

REPETITIONS = int(os.environ.get("FAULTS_REPETITIONS", "2"))  # of a crash; set 10 for a thorough run
PRIMARIES = 5  # the number of primaries that are killed, one after the other
OUTAGE_SECONDS = 5
FROZEN_SECONDS = 10
LONG_OUTAGE_SECONDS = 14  # beyond REVOCATION_STALE_SECONDS
SHORT_PAUSE_SECONDS = 0.9  # below the time limit; two of them are nearly as long as the limit
CALM_SECONDS = 2  # of load before a fault
DISK_MEGABYTES = 400
INTERRUPTED = 11601  # MongoDB's error code

Note = Callable[[str], None]


def test_a_database_crash_is_503_in_time_and_loses_no_acknowledged_write(
    server: Server, mongo: LocalMongo, note: Note
) -> None:
    with Load(server) as load:
        for _ in range(REPETITIONS):
            time.sleep(CALM_SECONDS)
            mongo.kill()
            time.sleep(OUTAGE_SECONDS)
            mongo.start()
            note(recovered(load))
    note(load.report())
    load.assert_in_time()
    load.assert_expected_statuses()
    load.assert_acknowledged_writes()


def test_an_unavailable_database_allows_no_access_and_refreshes_can_be_retried(
    server: Server, mongo: LocalMongo
) -> None:
    """The service is live, not ready, answers 503, accepts no ended session, and recovers without a restart."""
    alice = server.post("/users/registration", username="alice", password=PASSWORD).json()
    bob = server.post("/users/registration", username="bobby", password=PASSWORD).json()
    assert server.post("/auth/logout", bob["access_token"]).status_code == 204
    with server.each_worker() as workers:
        until(lambda: {worker.secret(bob["access_token"]) for worker in workers} == {401}, "the logout")
    mongo.kill()
    began = time.monotonic()
    while time.monotonic() - began < LONG_OUTAGE_SECONDS:
        assert server.get("/health/live").status_code == 200
        assert server.get("/tests/secret", bob["access_token"]).status_code in (401, 503)
        assert server.get("/tests/secret", "garbage").status_code == 401
        for response in (
            server.get("/health/ready"),
            server.get("/auth/me", alice["access_token"]),
            server.post("/auth", username="alice", password=PASSWORD),
            server.post("/auth/refresh", refresh_token=alice["refresh_token"]),
            server.post("/users/registration", username="carol", password=PASSWORD),
        ):
            assert (response.status_code, response.headers["content-type"]) == (503, "application/problem+json")
            assert response.headers["retry-after"]
            assert response.elapsed.total_seconds() < RESPONSE_LIMIT_SECONDS
    with server.each_worker() as workers:
        assert {worker.secret(alice["access_token"]) for worker in workers} == {503}, "the revocations are stale"
    mongo.start()
    server.wait_until_ready(RECOVERY_SECONDS)
    assert server.post("/auth/refresh", refresh_token=alice["refresh_token"]).status_code == 200
    with server.each_worker() as workers:

        def rejected() -> bool:
            statuses = {worker.secret(bob["access_token"]) for worker in workers}
            assert statuses <= {401, 503}  # each worker has news of its own
            return statuses == {401}

        until(rejected, "every worker knows the logout")


def test_the_loss_of_a_primary_loses_no_acknowledged_write(replica_set: ReplicaSet, note: Note) -> None:
    with serving(replica_set.uri) as server, Load(server) as load:
        for _ in range(PRIMARIES):
            time.sleep(CALM_SECONDS)
            killed, began = replica_set.primary(), time.monotonic()
            killed.kill()
            replica_set.primary()
            note(f"a new primary after {time.monotonic() - began:.2f} s; {recovered(load)}")
            killed.start()
        load.stop()
        note(load.report())
        load.assert_expected_statuses()
        load.assert_acknowledged_writes()


def test_a_frozen_database_does_not_accumulate_connections_threads_or_memory(
    server: Server, mongo: LocalMongo, note: Note
) -> None:
    """It keeps its connections open and sends no responses, so every request uses its whole time budget."""
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
    note(f"before {Footprint.maximum(before)}; during {Footprint.maximum(during)}; after {Footprint.maximum(after)}")
    load.assert_in_time()
    load.assert_expected_statuses()
    load.assert_acknowledged_writes()
    highest, initial = Footprint.maximum([*during, *after]), Footprint.maximum(before)
    assert highest.connections <= initial.connections + 2 * LOAD_CLIENTS
    assert highest.threads <= initial.threads + 2 * LOAD_CLIENTS
    assert highest.megabytes <= initial.megabytes + 20


def test_a_slow_database_is_limited_by_the_time_budget_of_the_request(
    server: Server, mongo: LocalMongo, note: Note
) -> None:
    """Each database command completes within the limit, but a login needs several: the limit applies to the request."""
    with Load(server) as load:
        time.sleep(CALM_SECONDS)
        for _ in range(FROZEN_SECONDS):
            mongo.pause()
            time.sleep(SHORT_PAUSE_SECONDS)
            mongo.resume()
            time.sleep(0.02)
        note(recovered(load))
    note(load.report())
    load.assert_in_time()
    load.assert_expected_statuses()
    load.assert_acknowledged_writes()


def test_stale_revocations_make_only_protected_routes_unavailable(tmp_path: Path, note: Note) -> None:
    """Only the query for revocations fails; all other database commands succeed."""
    with (
        running_mongo(tmp_path / "mongodb", "--setParameter", "enableTestCommands=1") as mongo,
        serving(mongo.uri, REVOCATION_STALE_SECONDS="3") as server,
        server.each_worker() as workers,
    ):

        def statuses() -> set[int]:
            return {worker.secret(token) for worker in workers}

        def readiness_codes() -> set[str | None]:
            return {code_of(worker("GET", "/health/ready")) for worker in workers}

        name = "alice"
        token = server.post("/users/registration", username=name, password=PASSWORD).json()["access_token"]
        fault = {"failCommands": ["find"], "namespace": f"{DATABASE}.sessions", "errorCode": INTERRUPTED}
        began = time.monotonic()
        with failing(mongo, fault):
            until(lambda: statuses() == {503}, "503 from every worker", seconds=3 + 1)
            note(f"protected routes unavailable {time.monotonic() - began:.2f} s after the fault")
            until(lambda: readiness_codes() == {"revocations_stale"}, "503 from readiness", seconds=1)
            assert server.get("/tests/secret", token).headers["retry-after"]
            assert server.get("/tests/hello").status_code == 200
            assert server.post("/auth", username=name, password=PASSWORD).status_code == 200
        began = time.monotonic()
        until(lambda: statuses() == {200}, "recovery", seconds=RECOVERY_SECONDS)
        server.wait_until_ready(RECOVERY_SECONDS)
        note(f"and available {time.monotonic() - began:.2f} s after its end")


def test_the_service_starts_before_its_database(tmp_path: Path, note: Note) -> None:
    mongo = LocalMongo(tmp_path / "mongodb")
    with ExitStack() as running, serving(mongo.uri) as server:
        credentials = {"username": "alice", "password": PASSWORD}
        assert server.get("/tests/hello").status_code == 200
        responses = [server.post("/users/registration", **credentials), server.get("/health/ready")]
        assert [(one.status_code, "retry-after" in one.headers) for one in responses] == [(503, True)] * 2
        running.callback(mongo.stop)
        mongo.start()
        began = time.monotonic()
        server.wait_until_ready(RECOVERY_SECONDS)
        note(f"ready {time.monotonic() - began:.2f} s after the database started")
        assert server.post("/users/registration", **credentials).status_code == 201
        assert server.post("/users/registration", **credentials).status_code == 409, "the indexes exist"


@pytest.mark.parametrize("processes", ["--workers=2", "--single-process"])
@pytest.mark.parametrize(
    ("login", "reason"),
    [
        ("root:wrong@", "the database rejects this user name and password"),
        ("", "the database requires a user name and a password (Unauthorized 13)"),
    ],
    ids=["wrong", "none"],
)
def test_rejected_database_credentials_stop_the_start_with_one_line(
    tmp_path: Path, login: str, reason: str, processes: str
) -> None:
    """In contrast, an unavailable database does not stop the start, because it has not rejected the credentials."""
    data, key = tmp_path / "mongodb", tmp_path / "key"
    key.write_text(secrets.token_hex(32))
    key.chmod(0o600)
    with running_mongo(data) as mongo, MongoClient[Document](mongo.uri) as client:
        client.admin.command("createUser", "root", pwd="right", roles=["root"])
    # Members of a replica set that require authentication authenticate to each other with a key file.
    with running_mongo(data, "--keyFile", str(key), port=mongo.port) as strict:
        with starting(strict.uri.replace("//", f"//{login}") + "?authSource=admin", processes) as server:
            assert server.command.wait() == 1
            assert server.command.output == f"The service cannot start with these settings:\n  MONGO_URI: {reason}\n"
        with starting(strict.uri.replace("//", "//root:right@") + "?authSource=admin", processes) as server:
            server.command.wait_for(f"{server.url}/health/ready")


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_a_data_folder_that_is_not_writable_is_reported_in_one_line(tmp_path: Path, fault: str) -> None:
    with small_disk(tmp_path / "disk", megabytes=DISK_MEGABYTES) as disk:
        if fault == "full":
            fill(disk)
        else:
            subprocess.check_call(["mount", "-o", "remount,ro", disk])  # noqa: S607
        code, output = run_with_mongo("--data", str(disk / "mongodb"), "--", "true")
    assert code == 1
    (line,) = output.splitlines()
    assert "--data" in line
    assert str(disk / "mongodb") in line


def test_a_full_disk_is_503_and_loses_no_acknowledged_write(tmp_path: Path, note: Note) -> None:
    """MongoDB ends if it cannot write. After space is freed and it is restarted, it has all acknowledged writes."""
    with (
        small_disk(tmp_path / "disk", megabytes=DISK_MEGABYTES) as disk,
        running_mongo(disk / "mongodb") as mongo,
        serving(mongo.uri) as server,
        Load(server) as load,
    ):
        time.sleep(CALM_SECONDS)
        ballast = fill(disk)
        until(lambda: mongo.ended or load.seconds_since(503) < 1, "503 responses or the end of mongod")
        time.sleep(OUTAGE_SECONDS)
        note(f"mongod {'ended' if mongo.ended else 'continued to run'}")
        ballast.unlink()
        mongo.restart()
        note(recovered(load))
        load.stop()
        note(load.report())
        load.assert_in_time()
        load.assert_expected_statuses()
        load.assert_acknowledged_writes()


def test_a_restarted_replica_set_has_a_primary_and_its_data(tmp_path: Path) -> None:
    """Although its members get other ports. The connection string contains all members and allows majority writes."""
    write = (
        "import os; from pymongo import MongoClient; client = MongoClient(os.environ['APP_MONGO_URI'], w='majority');"
        "notes = client.get_default_database().notes; notes.insert_one({});"
        "print(len(client.nodes), notes.count_documents({}), client.topology_description.replica_set_name)"
    )
    arguments = ["--data", str(tmp_path), "--replicas", "3", "--", sys.executable, "-c", write]
    assert run_with_mongo(*arguments) == (0, "3 1 rs0\n")
    assert run_with_mongo(*arguments) == (0, "3 2 rs0\n")


def recovered(load: Load) -> str:
    """Fail if a 503 response arrives later than RECOVERY_SECONDS from now; return when the last one arrived."""
    recovery = time.monotonic()
    time.sleep(RECOVERY_SECONDS + 1)
    last = max((one.sent_at + one.seconds - recovery for one in load.responses if one.status == 503), default=0)
    assert last < RECOVERY_SECONDS
    return f"the last 503 response {last:.2f} s after the recovery"


@contextmanager
def failing(mongo: LocalMongo, fault: Document) -> Iterator[None]:
    """Let MongoDB return an error for some commands."""
    with MongoClient[Document](mongo.uri) as client:
        client.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=fault)
        yield
        client.admin.command("configureFailPoint", "failCommand", mode="off")


def code_of(response: httpx.Response) -> str | None:
    """Return the stable code of an error response."""
    code: str | None = response.json().get("code")
    return code
