"""Documents of users with verified addresses, for databases that are filled without requests."""

from app.database.collection import Document
from app.models.users import User


def verified_user(username: str, password_hash: str, address: str) -> Document:
    """Return the document of a user; the address is in its normal form."""
    email = {"email": {"address": address, "key": address}, "held_emails": [{"key": address}]}
    return User.new(username, password_hash).to_document() | email
