"""Create the indexes of a collection, or accept those that mean the same."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pymongo
from pymongo import IndexModel
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError, OperationFailure

from app.database.failures import UNAUTHORIZED, CannotPrepare, summary

BUILD_SECONDS = 6 * 3600  # MongoDB aborts a build whose client gives up, so a large collection needs this time
CONFLICTS = {85, 86}  # IndexOptionsConflict and IndexKeySpecsConflict: an index of this meaning or this name exists
LIFETIME = "expireAfterSeconds"
NO_MEANING = {"v", "ns", "name", "background", "hidden", LIFETIME}  # of two indexes with the same keys and conditions

Index = Mapping[str, Any]
Warn = Callable[[str], None]


def create(collection: Collection[Any], models: Sequence[IndexModel], warn: Warn) -> None:
    """Create the indexes that are missing, and wait for those that are being built. Blocks.

    `warn` gets lines for the log. Raises CannotPrepare with the reason, and pymongo's errors.
    """
    try:
        _create(collection, models)
    except OperationFailure as error:
        if error.code in CONFLICTS:
            existing = _existing(collection)
            for model in models:
                _adopt(collection, model.document, existing, warn)
        elif error.code == UNAUTHORIZED:
            _require(collection, models, error)
        else:
            raise CannotPrepare(_reason(collection.name, models, error)) from error
    _warn_of_hidden(collection, models, warn)


def _create(collection: Collection[Any], models: Sequence[IndexModel]) -> None:
    with pymongo.timeout(BUILD_SECONDS):
        # By default the build waits for every member, also for one that is down.
        collection.create_indexes(list(models), commitQuorum="majority")


def _adopt(collection: Collection[Any], wanted: Index, existing: Sequence[Index], warn: Warn) -> None:
    """Accept an index of the same meaning under any name, else create the index under a name that is free.

    The server decides what means the same: it creates nothing if it has that index under the requested name.
    """
    same_keys = [index for index in existing if _keys(index) == _keys(wanted)]
    _correct_lifetime(collection, wanted, same_keys, warn)
    for name in (wanted["name"], *(index["name"] for index in same_keys), _free_name(wanted["name"], existing)):
        options = {option: value for option, value in wanted.items() if option not in ("key", "name")}
        try:
            _create(collection, [IndexModel(_keys(wanted), name=name, **options)])
        except OperationFailure as error:
            if error.code not in CONFLICTS:
                raise CannotPrepare(_reason(collection.name, [wanted], error)) from error
        else:
            return
    found = ", ".join(f"{index['name']} with {_described(index)}" for index in same_keys)
    raise CannotPrepare(
        f"{collection.name}: the index {wanted['name']} must have {_described(wanted)}, but there is {found}: "
        f"drop it with db.{collection.name}.dropIndex"
    )


def _require(collection: Collection[Any], models: Iterable[IndexModel], error: OperationFailure) -> None:
    """Accept the indexes that another user has created, if the user may not create any."""
    existing = [(_meaning(index), index.get(LIFETIME)) for index in _existing(collection)]
    for model in models:
        if (_meaning(model.document), model.document.get(LIFETIME)) not in existing:
            raise CannotPrepare(
                f"{collection.name}: {summary(error)}, and there is no index with {_described(model.document)}"
            ) from error


def _correct_lifetime(collection: Collection[Any], wanted: Index, same_keys: Iterable[Index], warn: Warn) -> None:
    """Change the lifetime of an index that is this one in all other respects, as after an upgrade."""
    if LIFETIME not in wanted:
        return
    for index in same_keys:
        if _meaning(index) == _meaning(wanted) and index.get(LIFETIME) != wanted[LIFETIME]:
            change = {"name": index["name"], LIFETIME: wanted[LIFETIME]}
            try:
                collection.database.command("collMod", collection.name, index=change)
            except OperationFailure as error:
                raise CannotPrepare(
                    f"{collection.name}: the index {index['name']} has {_described(index)}, must have "
                    f"{_described(wanted)}, and cannot be changed: {summary(error)}"
                ) from error
            warn(
                f"{collection.name}: the index {index['name']} had {_described(index)} and now has {_described(wanted)}"
            )


def _warn_of_hidden(collection: Collection[Any], models: Iterable[IndexModel], warn: Warn) -> None:
    """Warn of indexes that the server maintains, but does not use for queries."""
    wanted = [_keys(model.document) for model in models]
    for index in _existing(collection):
        if index.get("hidden") and _keys(index) in wanted:
            warn(
                f"{collection.name}: the index {index['name']} is hidden, so queries do not use it: "
                f"db.{collection.name}.unhideIndex({index['name']!r})"
            )


def _existing(collection: Collection[Any]) -> list[Index]:
    try:
        return list(collection.list_indexes())
    except OperationFailure:
        return []  # without the right to list them


def _keys(index: Index) -> list[tuple[str, Any]]:
    return list(index["key"].items())


def _meaning(index: Index) -> dict[str, Any]:
    options = {name: value for name, value in index.items() if name not in NO_MEANING and value is not False}
    return {**options, "key": _keys(index)}  # the order of keys matters


def _described(index: Index) -> str:
    """Return keys and options, which are no data of users."""
    options = {**_meaning(index), "key": dict(index["key"])} | {LIFETIME: index.get(LIFETIME, "none")}
    return ", ".join(f"{name} {json.dumps(value, default=str)}" for name, value in options.items())


def _free_name(name: str, existing: Iterable[Index]) -> str:
    taken = {index["name"] for index in existing}
    return next(free for number in range(2, len(taken) + 3) if (free := f"{name}_{number}") not in taken)


def _reason(collection: str, models: Iterable[IndexModel | Index], error: OperationFailure) -> str:
    documents = [model.document if isinstance(model, IndexModel) else model for model in models]
    if isinstance(error, DuplicateKeyError):
        unique = [" and ".join(document["key"]) for document in documents if document.get("unique")]
        return (
            f"{collection}: the indexes cannot be created (DuplicateKeyError {error.code}): several documents have "
            f"the same {' or '.join(unique)}"
        )
    return f"{collection}: the indexes cannot be created ({summary(error)})"
