"""Clients, as the hashing threads see them."""

from datetime import UTC, datetime, timedelta

from app.http.client import Client
from app.models.users import User
from app.security.turns import Caller

# A network has a place of its own for a user if it was usual for so long, so an attacker cannot make many soon.
USUAL_AFTER = timedelta(days=1)


def caller(client: Client, user: User | None = None) -> Caller:
    """Return who wants a password hashed, for a user who may be at a usual network."""
    if client.alike:
        return Caller()
    since = user.usual_networks.get(client.network) if user else None
    return Caller(client.networks, usual=since is not None and datetime.now(UTC) - since >= USUAL_AFTER)
