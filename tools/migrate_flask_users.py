"""Migrate the users of the Flask predecessor to this service: python -m tools.migrate_flask_users [--apply].

Without --apply, the command only reports what it would change. It reads MONGO_URI from all configuration layers, as
the service does, so no password has to be on the command line. Exit codes: 0 done; 1 some users need manual changes;
2 the settings are invalid or the database failed, possibly after a part of the updates. Then run the command again: it
continues with the users that are not migrated yet.
"""

import argparse
import re
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from bson import ObjectId
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.errors import PyMongoError

from app.database.failures import summary
from app.http.problems import Problem
from app.models.users import Access, canonical
from app.schemas.emails import address
from app.schemas.users import USERNAME
from app.security.passwords import CONTEXT
from config import ConfigurationError, load
from config.product import NAME

DATABASE_TIMEOUT_MILLISECONDS = 10_000  # for each command; after it, the database counts as unavailable
FIELDS = ("username", "canonical_name", "password", "access", "disabled", "created_at", "email")

Document = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """The fields to set by user id, the skipped users with reasons, and the number of users already migrated."""

    changes: dict[ObjectId, Document]
    problems: list[str]
    done: int


def plan(users: Collection[Document]) -> Plan:
    """Read every user and plan the changes. Writes nothing. Raises pymongo's errors."""
    documents = list(users.find({}, dict.fromkeys(FIELDS, 1)))
    names = Counter(key(document) for document in documents)
    unmigrated = [document for document in documents if document.get("canonical_name") is None]
    changes: dict[ObjectId, Document] = {}
    problems = []
    for document in unmigrated:
        if reason := problem(document, names):
            problems.append(f"{document['_id']} {document.get('username')!r}: {reason}")
        else:
            changes[document["_id"]] = fields(document)
    return Plan(changes, problems, len(documents) - len(unmigrated))


def key(document: Document) -> Any:
    """Return the canonical name, which is equal for all spellings of a username."""
    username = document.get("username")
    return document.get("canonical_name") or (canonical(username) if isinstance(username, str) else None)


def problem(document: Document, names: Counter[Any]) -> str | None:
    """Return why the user cannot be migrated, or None."""
    username, password = document.get("username"), document.get("password")
    if not isinstance(document["_id"], ObjectId):
        return "the id is not an ObjectId"
    if not isinstance(username, str) or not re.fullmatch(USERNAME, username):
        return "the name is not 3 to 64 ASCII letters, digits, dots, underscores and hyphens"
    if names[key(document)] > 1:
        return "another user has this name, in the same or another spelling"
    if not isinstance(password, str) or not CONTEXT.identify(password):
        return "the password is not stored in a format that this service can verify"
    if document.get("access", Access.USER) not in list(Access):
        return "the access is not 0 (guest), 1 (user) or 2 (admin)"
    if "email" in document and claimed(document) is None:
        return "the email is not an address"
    return None


def claimed(document: Document) -> Document | None:
    """Return what is stored of the address that a clone of the predecessor has added; its user has yet to verify it."""
    try:
        return asdict(address("email", document["email"]))
    except (Problem, TypeError, AttributeError):
        return None


def fields(document: Document) -> Document:
    """Return the fields to add to a user. Values that the predecessor stored are kept."""
    created_at = document.get("created_at")
    return {
        "canonical_name": key(document),
        "access": int(document.get("access", Access.USER)),
        "disabled": bool(document.get("disabled", False)),
        "generation": 0,
        "created_at": created_at if isinstance(created_at, datetime) else document["_id"].generation_time,
        "usual_networks": [],
        **({"email": claimed(document)} if "email" in document else {}),
    }


def apply(users: Collection[Document], changes: dict[ObjectId, Document]) -> None:
    """Write the planned changes, except for users migrated meanwhile. Raises pymongo's errors."""
    for user_id, new_fields in changes.items():
        users.update_one({"_id": user_id, "canonical_name": None}, {"$set": new_fields})


def main() -> int:
    """Plan the migration, apply it if requested, and print the result. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.migrate_flask_users", description=__doc__)
    parser.add_argument("--apply", action="store_true", help="write to the database")
    options = parser.parse_args()
    try:
        uri = load().MONGO_URI
        with MongoClient[Document](uri, timeoutMS=DATABASE_TIMEOUT_MILLISECONDS, w="majority", tz_aware=True) as client:
            users = client.get_default_database(NAME)["users"]
            planned = plan(users)
            if options.apply:
                apply(users, planned.changes)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 2
    except PyMongoError as error:
        print(f"the database failed ({summary(error)}): is MONGO_URI right? Run it again", file=sys.stderr)
        return 2
    for line in planned.problems:
        print(line, file=sys.stderr)
    verb = "migrated" if options.apply else "to migrate"
    print(f"{len(planned.changes)} {verb}, {planned.done} already migrated, {len(planned.problems)} skipped")
    if not options.apply:
        print("Nothing was written. Use --apply to write the changes")
    if planned.problems:
        print("Rename or remove these users first: the service requires unique usernames", file=sys.stderr)
    return 1 if planned.problems else 0


if __name__ == "__main__":
    sys.exit(main())
