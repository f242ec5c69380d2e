"""Which rights of the database's user are missing."""

from collections.abc import Iterable, Mapping
from typing import Any

NEEDED = ("find", "insert", "update", "remove")  # MongoDB's privilege actions


def missing(status: Mapping[str, Any], database: str, collections: Iterable[str]) -> str | None:
    """Return what the user may not do, by the response to `connectionStatus` with privileges, or None.

    Without authentication, everything is allowed.
    """
    authentication = status["authInfo"]
    if not authentication["authenticatedUsers"]:
        return None
    privileges = authentication["authenticatedUserPrivileges"]
    lacking = [
        f"{' and '.join(actions)} in {collection}"
        for collection in collections
        if (actions := [action for action in NEEDED if not _allowed(privileges, database, collection, action)])
    ]
    return f"the user may not {', '.join(lacking)} of the database {database}" if lacking else None


def _allowed(privileges: Iterable[Mapping[str, Any]], database: str, collection: str, action: str) -> bool:
    """Return whether a privilege has the action; an empty name in a resource stands for any."""
    for privilege in privileges:
        resource = privilege["resource"]
        covers = resource.get("anyResource") or (
            resource.get("db") in ("", database) and resource.get("collection") in ("", collection)
        )
        if covers and {action, "anyAction"} & set(privilege["actions"]):
            return True
    return False
