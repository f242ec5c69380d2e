"""A member of the replica set: a mongod on a host of its own, with a clock of its own if needed."""

import os
import shutil
import signal
import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from pymongo import MongoClient, WriteConcern
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from tests.conftest import Document
from tests.partition.network import Host
from tests.processes import Command, until
from tools.mongod import DATABASE, OPLOG_MEGABYTES, QUIET, REPLICA_SET, mongod_path

PORT = 27017
TIMEOUT_MILLISECONDS = 3000
STEP_UP_SECONDS = 0.3  # for an election
CLOCKS_SECONDS = 5  # how long a process may use the previous setting of its clocks


def faketime_library() -> Path | None:
    """Return the library that gives a process clocks of its own, or None if it is not installed."""
    folders = ("lib/*/faketime", "lib*/faketime", "local/lib/faketime")
    found = (path for folder in folders for path in Path("/usr").glob(f"{folder}/libfaketimeMT.so.1"))
    return next(found, None)


def wall_clock(seconds_ahead: float) -> dict[str, str]:
    """Return variables with which the wall clock of a process is ahead, or behind."""
    ahead = {"FAKETIME": f"{seconds_ahead:+f}", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    return ahead | {"LD_PRELOAD": str(faketime_library())}


class Member:
    """A mongod that can be paused, with its machine's clocks if it has `own_clocks`."""

    def __init__(self, host: Host, folder: Path, *, own_clocks: bool) -> None:
        self.host = host
        self.name = host.name
        self._data = folder / host.name
        self._log = folder / f"{host.name}.log"
        self._clocks = folder / f"{host.name}.clocks" if own_clocks else None
        self._command: Command | None = None
        self._paused_at: float | None = None
        self._behind_seconds = 0.0

    @property
    def address(self) -> str:
        """The host and port."""
        return f"{self.host.address}:{PORT}"

    def open(self) -> None:
        """Start mongod and wait until it answers."""
        self._data.mkdir(parents=True)
        options: dict[str, str] = {
            "--replSet": REPLICA_SET,
            "--dbpath": str(self._data),
            "--logpath": str(self._log),
            "--port": str(PORT),
            "--oplogSize": OPLOG_MEGABYTES,
            "--networkMessageCompressors": "disabled",
            "--wiredTigerCacheSizeGB": "0.25",
        }
        arguments = [word for option in options.items() for word in option]
        mongod = [str(mongod_path()), "--bind_ip_all", "--nounixsocket", *arguments, *QUIET]
        self._command = Command(self.host.command(*mongod), cwd=self._data, env=os.environ | self._faketime())
        until(self._answers, f"an answer of {self.name}")

    def close(self) -> None:
        """Kill mongod and delete its data; the log and the output stay."""
        if self._command:
            self._log.with_suffix(".out").write_text(self._command.output)
            self._command.close()
            self._command = None
        if "client" in self.__dict__:
            self.host.run(self.client.close)
        shutil.rmtree(self._data, ignore_errors=True)

    @cached_property
    def client(self) -> MongoClient[Document]:
        """A direct connection, to be used in threads of this host."""
        return MongoClient("127.0.0.1", PORT, directConnection=True, timeoutMS=TIMEOUT_MILLISECONDS, connect=False)

    def run(self, command: str, value: Any = 1, **options: Any) -> Document:
        """Run an administrative command. Raises PyMongoError."""
        return self.host.run(lambda: self.client.admin.command(command, value, **options))

    def update(
        self, collection: str, query: Document, update: Document, *, acknowledged_by: int | str, upsert: bool = False
    ) -> bool:
        """Update a document on this member and return whether there was one. Raises PyMongoError."""
        concern = WriteConcern(acknowledged_by)

        def write() -> bool:
            documents = self.client[DATABASE].get_collection(collection, write_concern=concern)
            return bool(documents.update_one(query, update, upsert).matched_count)

        return self.host.run(write)

    def find(self, collection: str, query: Document) -> Document | None:
        """Return a document as the majority has it. Raises PyMongoError."""
        concern = ReadConcern("majority")

        def read() -> Document | None:
            return self.client[DATABASE].get_collection(collection, read_concern=concern).find_one(query)

        return self.host.run(read)

    def is_primary(self) -> bool:
        """Return whether the member regards itself as the primary."""
        with suppress(PyMongoError):
            return bool(self.run("hello")["isWritablePrimary"])
        return False

    def step_up(self) -> bool:
        """Ask the others to elect this member, and return whether it is the primary a moment later."""
        with suppress(PyMongoError):
            self.run("replSetStepUp", skipDryRun=True)
        time.sleep(STEP_UP_SECONDS)
        return self.is_primary()

    def follow(self, other: "Member") -> None:
        """Let this secondary copy from another member; by default it chooses one."""

        def follows() -> bool:
            with suppress(PyMongoError):
                self.run("replSetSyncFrom", other.address)
            with suppress(PyMongoError):
                return bool(self.run("replSetGetStatus")["syncSourceHost"] == other.address)
            return False

        until(follows, f"{self.name} copies from {other.name}")

    def pause(self) -> None:
        """Pause the machine: mongod makes no progress, and connections stay open without an answer."""
        self._send(signal.SIGSTOP)
        self._paused_at = time.monotonic()

    def resume(self) -> None:
        """Resume the machine. Its own clocks have stood still, and remain behind those of the others."""
        if self._paused_at is not None:
            self._behind_seconds += time.monotonic() - self._paused_at
            self._set_clocks()
            self._send(signal.SIGCONT)
            self._paused_at = None

    def _answers(self) -> bool:
        assert self._command
        assert self._command.exit_code is None, f"{self.name} has ended: {self._command.output}; its log is {self._log}"
        with suppress(PyMongoError):
            return bool(self.run("ping"))
        return False

    def _send(self, number: signal.Signals) -> None:
        assert self._command, "the member runs"
        self._command.send(number)

    def _set_clocks(self) -> None:
        if self._clocks:
            new = self._clocks.with_suffix(".new")
            new.write_text(f"-{self._behind_seconds:f}")
            new.replace(self._clocks)

    def _faketime(self) -> dict[str, str]:
        if not self._clocks:
            return {}
        self._set_clocks()
        return {
            "LD_PRELOAD": str(faketime_library()),
            "FAKETIME_DONT_FAKE_MONOTONIC": "0",  # all clocks
            "FAKETIME_TIMESTAMP_FILE": str(self._clocks),
            # Reading the file at every call can deadlock: the library reads it with a lock, and allocates memory for
            # that. The pause of a machine must be longer, so that the first call afterwards reads the file.
            "FAKETIME_CACHE_DURATION": str(CLOCKS_SECONDS),
        }
