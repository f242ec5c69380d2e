"""A service whose tokens other services can verify: its settings, theirs, and a signer of its tokens."""

import secrets

from pymongo import MongoClient

from app.database.collection import Document
from app.security.keys import PURPOSE
from app.tokens.key_set import KeySet
from app.tokens.keys import Encryption, SigningKey
from bench import ROOT
from bench.alone import uri_of
from bench.servers import Server
from bench.tokens import TokenSigner
from config.product import SLUG

URL = "https://demo.example"
VERIFIERS = ROOT / "verifiers"


def settings() -> dict[str, str]:
    """Return settings with an encryption key that was just made."""
    encryption_key = secrets.token_urlsafe(48)
    return {"APP_JWT_ALGORITHM": "EdDSA", "APP_ENCRYPTION_KEY": encryption_key, "APP_PUBLIC_URL": URL}


def variables_of_verifiers(server: Server) -> dict[str, str]:
    """Return the variables of example resource servers that follow a service."""
    return {"SERVICE_URL": server.url, "ISSUER": URL, "AUDIENCE": SLUG}


def signer(server: Server) -> TokenSigner:
    """Return a signer with the service's key that signs, read from its database."""
    with MongoClient[Document](uri_of(server)) as client:
        ring = client.get_default_database()["keys"].find_one() or {}
    stored = next(key for key in ring["keys"] if key["kid"] == ring["current"])
    encryption = Encryption([server.contender.environment["APP_ENCRYPTION_KEY"].encode()], product=SLUG)
    der = encryption.decrypt(stored["secret"], purpose=PURPOSE, record=stored["kid"])
    keys = KeySet(hmac_signs=False)
    keys.signing = SigningKey.from_der(der)
    return TokenSigner(secrets.token_urlsafe(48), issuer=URL, key_set=keys)
