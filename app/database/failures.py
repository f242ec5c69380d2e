"""Which errors mean that the database is unavailable, and how the log summarizes them."""

import re
from collections.abc import Mapping
from typing import Any, TypeGuard

from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    ExecutionTimeout,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    ProtocolError,
    PyMongoError,
    WriteConcernError,
)

UNAUTHORIZED, AUTHENTICATION_FAILED = 13, 18

# Errors of commands whose reason is the server, its load or its operator, by MongoDB's list (error_codes.yml). Any
# other failure of a command is a defect of this program.
CANNOT_SERVE = {
    # Rights, credentials, and what an operator or a host configures: validators, views, blocked writes, quotas.
    *(UNAUTHORIZED, AUTHENTICATION_FAILED, 121, 166, 371, 391, 8000),
    # The category NetworkError, and servers that shut down, step down, or have no snapshot to read yet.
    *(6, 7, 89, 91, 133, 134, 187, 189, 202, 211, 216, 9001, 10058, 10107, 11600, 11602, 13435, 13436),
    # The categories Interruption and CursorInvalidatedError: LockTimeout 24, CursorNotFound 43, MaxTimeMSExpired 50,
    # QueryPlanKilled 175, CursorKilled 237, ExceededTimeLimit 262, Interrupted 11601; and locks that others hold.
    *(24, 43, 46, 50, 107, 117, 143, 175, 215, 237, 262, 279, 281, 282, 290, 314, 355, 11601, 12586, 12587),
    # Transactions that the server has given up: WriteConflict 112, TransactionTooOld 225, SnapshotUnavailable 246,
    # NoSuchTransaction 251, TransactionCommitted 256, OperationNotSupportedInTransaction 263.
    *(112, 225, 239, 244, 246, 251, 256, 263, 267, 363, 388),
    # Write concerns that cannot be met, and resources: memory, sessions, files, OutOfDiskSpace 14031.
    *(64, 75, 79, 100, 146, 208, 261, 264, 301, 365, 402, 433, 449, 14031),
}
# With these labels, the driver or the server states that the same command may succeed later.
TEMPORARY = (
    "TransientTransactionError",
    "UnknownTransactionCommitResult",
    "RetryableWriteError",
    "SystemOverloadedError",
)
# The part of the server's message that names the command and the collection; the rest may quote documents.
NOT_AUTHORIZED = re.compile(
    r'not authorized on (?P<database>[\w-]+) to execute command \{ (?P<command>\w+):(?: "(?P<on>[\w.-]+)")?'
)
CONFIGURED_TIMEOUTS = re.compile(r" \(configured timeouts: [^)]*\)")
ERRNO = re.compile(r"\[Errno -?\d+\] | \(_ssl\.c:\d+\)")


class OwnError(PyMongoError):
    """An error of this program's own, with a message for the log."""


class CannotPrepare(OwnError):
    """A collection cannot be used yet, so nothing is written to it.

    The message says why.
    """


class NotReplicaSet(OwnError):
    """The server is not a member of a replica set.

    The message says why and what to do.
    """


class RightsMissing(OwnError):
    """The user of the database may not do what requests need.

    The message says what.
    """


class NoAnswer(OwnError, NetworkTimeout):
    """There was no answer in time.

    The message says which servers cannot be reached, and why.
    """


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
    if isinstance(error, OperationFailure) and (
        error.code in CANNOT_SERVE or any(error.has_error_label(label) for label in TEMPORARY)
    ):
        return True
    # Settings were checked at the start; a configuration error that remains means that the name service is unavailable.
    return isinstance(
        error,
        ConnectionFailure | ConfigurationError | ExecutionTimeout | OwnError | ProtocolError | WriteConcernError,
    )


def summary(error: PyMongoError) -> str:
    """Return why the database failed, for the log.

    Messages of the driver name hosts. Those of the server may quote documents, so only its codes are used.
    """
    if isinstance(error, OwnError):
        return str(error)
    if isinstance(error, OperationFailure):
        return _command_failure(error)
    if isinstance(error, NotPrimaryError):
        return "the server is not the primary"
    if isinstance(error, ConnectionFailure) or (isinstance(error, ConfigurationError) and "DNS" in str(error)):
        return ": ".join(filter(None, (type(error).__name__, cleaned(str(error)))))
    return type(error).__name__


def _command_failure(error: OperationFailure) -> str:
    if error.code == UNAUTHORIZED:
        refused = NOT_AUTHORIZED.search(str(error))
        if refused is None:
            return "the database requires a user name and a password (Unauthorized 13)"
        on = f" in {refused['on']}" if refused["on"] else ""
        return f"the user may not {refused['command']}{on} of the database {refused['database']} (Unauthorized 13)"
    if error.code == AUTHENTICATION_FAILED:
        return "the database rejects this user name and password (AuthenticationFailed 18)"
    name = (error.details or {}).get("codeName") or type(error).__name__
    return f"{name} {error.code}"


def cleaned(message: str) -> str:
    """Return the driver's message without timeouts, error numbers and the description of the topology."""
    return ERRNO.sub("", CONFIGURED_TIMEOUTS.sub("", message.partition(", Timeout: ")[0]))
