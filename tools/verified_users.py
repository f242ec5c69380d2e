"""Documents of users with verified addresses, for databases that are filled without requests."""

from app.database.collection import Document
from app.models.users import User


def verified_user(username: str, password_hash: str, address: str) -> Document:
    """Return the document of a user; the address is in its normal form."""
    return User.new(username, password_hash).to_document() | verified_email(address)


def verified_email(address: str) -> Document:
    """Return the fields of a user who has verified this address."""
    return {"email": {"address": address, "key": address}, "held_emails": [{"key": address}]}
