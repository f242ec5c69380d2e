"""What can be wrong with the database, and how the log says so."""

from typing import TypeGuard

from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
)

# The server answers, but cannot serve: 13 and 18 credentials, 91 and 116xx shutting down or stepping down,
# 189 stepped down, 14031 disk full. Any other failure of a command is a mistake of ours.
CANNOT_SERVE = {13, 18, 91, 189, 11600, 11601, 11602, 14031}


class Unprepared(PyMongoError):
    """The indexes cannot be made without which nothing is written; the message says why."""


def is_away(error: BaseException) -> TypeGuard[PyMongoError]:
    """Tell whether the database, and not the request or this program, is to blame."""
    if isinstance(error, OperationFailure) and error.code in CANNOT_SERVE:
        return True
    # The settings were checked at the start; what is left of configuration errors is that the name service is away.
    return isinstance(error, ConnectionFailure | ConfigurationError | ExecutionTimeout | Unprepared | WriteConcernError)


def trouble(error: PyMongoError) -> str:
    """Say for the log what is wrong, in none of the database's own words: they may tell who its users are."""
    if isinstance(error, Unprepared):
        return str(error)
    return " ".join(str(part) for part in (type(error).__name__, getattr(error, "code", None)) if part)
