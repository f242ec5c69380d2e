"""The encryption of stored secrets."""

from app.tokens.keys import Encryption
from config import Config
from config.product import SLUG


def encryption(config: Config) -> Encryption:
    """Return what encrypts with ENCRYPTION_KEY, and decrypts with the previous keys, too."""
    keys = (config.ENCRYPTION_KEY or "", *config.ENCRYPTION_PREVIOUS_KEYS)
    return Encryption([key.encode() for key in keys], product=SLUG)
