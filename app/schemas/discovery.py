"""Shapes of what other services read: public keys, metadata, and the query of the feed."""

from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints

LONGEST_WAIT = 25  # seconds, less than the idle limits of common proxies


class JwkSet(BaseModel):
    """Public keys (RFC 7517)."""

    keys: list[dict[str, str]] = Field(
        examples=[
            [
                {
                    "kty": "OKP",
                    "crv": "Ed25519",
                    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
                    "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
                    "use": "sig",
                    "alg": "EdDSA",
                }
            ]
        ]
    )


class Metadata(BaseModel):
    """The metadata of an authorization server (RFC 8414 section 2)."""

    issuer: str
    jwks_uri: str
    token_endpoint: str
    revocation_endpoint: str
    grant_types_supported: list[str]
    response_types_supported: list[str] = []
    token_endpoint_auth_methods_supported: list[str] = ["none"]
    revocation_endpoint_auth_methods_supported: list[str] = ["none"]
    scopes_supported: list[str]


class FeedQuery(BaseModel):
    """What a follower of the ended sessions knows, and how long it would wait for more."""

    after: Annotated[
        str | None,
        StringConstraints(pattern=r"^[0-9]{1,10}\.[0-9]{1,10}\.[0-9]{1,7}\.[0-9a-f]{16}$"),
        Field(description="The cursor of the last page. Without it, everything is returned."),
    ] = None
    wait: Annotated[int, Field(ge=0, le=LONGEST_WAIT, description="Seconds to wait for something new.")] = 0
    nonce: Annotated[
        str | None,
        StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,128}$"),
        Field(description="Is part of the page, which then is certainly not an old one. Nothing is waited for."),
    ] = None
