"""A service whose tokens other services can verify."""

import base64
import json
from typing import Any

import jwt

from app.capabilities.keys import Keys
from app.tokens.keys import SigningKey
from config import Config
from tests.conftest import Service

URL = "https://demo.example"
ENCRYPTION_KEY = "Zm9yIHRlc3RzIG9ubHk6IGVuY3J5cHRpb24ga2V5IDE"[::-1]


def with_keys(config: Config, database: str, **settings: Any) -> Config:
    """Return settings with asymmetric keys, in a database of its own."""
    uri = f"{config.MONGO_URI}_{database}"
    keys = {"JWT_ALGORITHM": "EdDSA", "ENCRYPTION_KEY": ENCRYPTION_KEY, "PUBLIC_URL": URL}
    return config.model_copy(update={**keys, "MONGO_URI": uri, **settings})


def keys_of(service: Service) -> Keys:
    """Return the keys of the service's worker."""
    assert service.app.ctx.keys
    return service.app.ctx.keys


def signing_key(service: Service) -> SigningKey:
    """Return the key that signs."""
    key: SigningKey | None = keys_of(service).set.signing
    assert key
    return key


def jwks(service: Service) -> dict[str, dict[str, str]]:
    """Return the public keys by their names."""
    return {key["kid"]: key for key in service("GET", "/.well-known/jwks.json").json()["keys"]}


def header(token: str) -> dict[str, Any]:
    """Return the header of a token."""
    return jwt.get_unverified_header(token)


def decoded(text: str) -> Any:
    """Return the JSON of a part of a JWT."""
    return json.loads(base64.urlsafe_b64decode(text + "=="))


def feed_page(service: Service, **query: Any) -> dict[str, Any]:
    """Return the claims of a page of the feed, whose signature is verified."""
    response = service("GET", "/.well-known/revocations", params=query)
    assert response.status_code == 200, response.text
    return verified_page(service, response.text)


def verified_page(service: Service, page: str) -> dict[str, Any]:
    """Return the claims of a page."""
    assert header(page)["typ"] == "revocations+jwt"
    key = jwt.PyJWK(jwks(service)[header(page)["kid"]])
    claims: dict[str, Any] = jwt.decode(page, key, [key.algorithm_name], issuer=service.config.issuers[0])
    return claims
