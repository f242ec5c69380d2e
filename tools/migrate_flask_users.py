"""Give the Flask predecessor's users what this service needs of them: python -m tools.migrate_flask_users [--apply].

Without --apply it only says what it would do. It finds the database as the service does, by MONGO_URI in all its
layers, so no password has to stand on a command line. Exit codes: 0 done, 1 some users need a hand, 2 the settings are
wrong or the database failed, perhaps half-way: run it again, it goes on with those who have not moved in.
"""

import argparse
import re
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson import ObjectId
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.errors import PyMongoError

from app.database import DEFAULT_NAME
from app.models.users import Access, canonical
from app.schemas import USERNAME
from app.security.passwords import CONTEXT
from config import ConfigurationError, load

AWAY_MILLISECONDS = 10_000  # after which a database that does not answer a command is taken to be away
FIELDS = ("username", "canonical_name", "password", "access", "disabled", "created_at")

Document = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is to be set for whom, who stays as he is and why, and how many need nothing."""

    changes: dict[ObjectId, Document]
    problems: list[str]
    done: int


def plan(users: Collection[Document]) -> Plan:
    """Look at every user and change nothing. Raises pymongo's errors."""
    documents = list(users.find({}, dict.fromkeys(FIELDS, 1)))
    names = Counter(key(document) for document in documents)
    waiting = [document for document in documents if document.get("canonical_name") is None]
    changes: dict[ObjectId, Document] = {}
    problems = []
    for document in waiting:
        if reason := problem(document, names):
            problems.append(f"{document['_id']} {document.get('username')!r}: {reason}")
        else:
            changes[document["_id"]] = fields(document)
    return Plan(changes, problems, len(documents) - len(waiting))


def key(document: Document) -> Any:
    """Return what makes all spellings of a name one."""
    username = document.get("username")
    return document.get("canonical_name") or (canonical(username) if isinstance(username, str) else None)


def problem(document: Document, names: Counter[Any]) -> str | None:
    """Say why a user has to stay as he is, or None."""
    username, password = document.get("username"), document.get("password")
    if not isinstance(document["_id"], ObjectId):
        return "the id is no ObjectId"
    if not isinstance(username, str) or not re.fullmatch(USERNAME, username):
        return "the name has not 3 to 64 ASCII letters, digits, dots, underscores and hyphens"
    if names[key(document)] > 1:
        return "another user has this name, in this or another spelling"
    if not isinstance(password, str) or not CONTEXT.identify(password):
        return "the password is not stored in a form that this service verifies"
    if document.get("access", Access.USER) not in list(Access):
        return "the access is not guest 0, user 1 or admin 2"
    return None


def fields(document: Document) -> Document:
    """Return what a user of this service has beside name and password; what the predecessor knew of it holds."""
    created_at = document.get("created_at")
    return {
        "canonical_name": key(document),
        "access": int(document.get("access", Access.USER)),
        "disabled": bool(document.get("disabled", False)),
        "generation": 0,
        "created_at": created_at if isinstance(created_at, datetime) else document["_id"].generation_time,
    }


def apply(users: Collection[Document], changes: dict[ObjectId, Document]) -> None:
    """Set what was planned, for those that nobody has migrated meanwhile. Raises pymongo's errors."""
    for user_id, given in changes.items():
        users.update_one({"_id": user_id, "canonical_name": None}, {"$set": given})


def main() -> int:
    """Plan, tell, and carry out if asked to."""
    parser = argparse.ArgumentParser(prog="python -m tools.migrate_flask_users", description=__doc__)
    parser.add_argument("--apply", action="store_true", help="write to the database")
    options = parser.parse_args()
    try:
        uri = load().MONGO_URI
        with MongoClient[Document](uri, timeoutMS=AWAY_MILLISECONDS, w="majority", tz_aware=True) as client:
            users = client.get_default_database(DEFAULT_NAME)["users"]
            planned = plan(users)
            if options.apply:
                apply(users, planned.changes)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 2
    except PyMongoError as error:
        print(f"the database failed ({type(error).__name__}): is MONGO_URI right? Run it again", file=sys.stderr)
        return 2
    for line in planned.problems:
        print(line, file=sys.stderr)
    verb = "migrated" if options.apply else "to migrate"
    print(f"{len(planned.changes)} {verb}, {planned.done} need nothing, {len(planned.problems)} left as they are")
    if not options.apply:
        print("Nothing was written: --apply does that")
    if planned.problems:
        print("Rename or remove those first: the service needs every user's name to be one of a kind", file=sys.stderr)
    return 1 if planned.problems else 0


if __name__ == "__main__":
    sys.exit(main())
