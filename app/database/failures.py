"""Which errors mean that the database is unavailable, and how the log summarizes them."""

from collections.abc import Mapping
from typing import Any, TypeGuard

from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
)

# The server answers but cannot serve: 13 and 18 credentials, 91 and 116xx shutting down or stepping down,
# 189 stepped down, 14031 disk full. Any other failure of a command is a defect of this program.
CANNOT_SERVE = {13, 18, 91, 189, 11600, 11601, 11602, 14031}


class OwnError(PyMongoError):
    """An error of this program's own, with a message for the log."""


class IndexesMissing(OwnError):
    """The indexes cannot be created, without which nothing is written. The message says why."""


class NotReplicaSet(OwnError):
    """The server is not a member of a replica set. The message says why and what to do."""


def not_replica_set(hello: Mapping[str, Any]) -> str | None:
    """Return why a server cannot serve, by its response to `hello`, or None.

    Transactions need a replica set, and the order of ended sessions needs a single one, not a sharded cluster.
    """
    if hello.get("msg") == "isdbgrid":
        return "the server is a mongos of a sharded cluster, but must be a replica set"
    if "setName" not in hello:
        return (
            "the server is a standalone server, but must be a replica set (one member suffices): "
            "start mongod with --replSet rs0, then run mongosh --eval 'rs.initiate()'"
        )
    return None


def is_unavailable(error: BaseException) -> TypeGuard[PyMongoError]:
    """Return whether the database, and not the request or this program, caused the error."""
    if isinstance(error, OperationFailure) and error.code in CANNOT_SERVE:
        return True
    # Settings were checked at the start; a configuration error that remains means that the name service is unavailable.
    return isinstance(
        error,
        ConnectionFailure | ConfigurationError | ExecutionTimeout | IndexesMissing | NotReplicaSet | WriteConcernError,
    )


def summary(error: PyMongoError) -> str:
    """Return the error's kind and code for the log.

    The server's own messages may contain user names.
    """
    if isinstance(error, OwnError):
        return str(error)
    return " ".join(str(part) for part in (type(error).__name__, getattr(error, "code", None)) if part)
