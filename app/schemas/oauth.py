"""Shapes of the OAuth 2.0 endpoints (RFC 6749, RFC 7009)."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.auth import EXAMPLE_REFRESH_TOKEN, Tokens
from app.schemas.factors import EXAMPLE_CHALLENGE


class Form(BaseModel):
    """A form.

    Unknown parameters are ignored (RFC 6749 section 3.2).
    """

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class TokenRequest(Form):
    """A request for tokens: by password, by a second factor, or by a refresh token."""

    grant_type: Annotated[str, Field(max_length=256, examples=["password"])]
    username: Annotated[str, Field(max_length=256, examples=["alice"])] | None = None
    password: Annotated[str, Field(max_length=1024, examples=["correct horse battery staple"])] | None = None
    refresh_token: Annotated[str, Field(max_length=512, examples=[EXAMPLE_REFRESH_TOKEN])] | None = None
    challenge: (
        Annotated[str, Field(max_length=128, description="Of mfa_required.", examples=[EXAMPLE_CHALLENGE])] | None
    ) = None
    code: Annotated[str, Field(max_length=1024, description="Of a second factor.", examples=["204816"])] | None = None


class RevocationRequest(Form):
    """A token whose session is to end."""

    token: Annotated[
        str,
        Field(
            max_length=4096,
            description="An access token, also an expired one, or a refresh token.",
            examples=[EXAMPLE_REFRESH_TOKEN],
        ),
    ]
    token_type_hint: Annotated[str, Field(max_length=256, examples=["refresh_token"])] | None = None


class OAuthTokens(Tokens):
    """Tokens, with the scopes of the access token."""

    scope: str = Field(examples=["user guest"])


class OAuthError(BaseModel):
    """An error (RFC 6749 section 5.2)."""

    error: Literal["invalid_request", "invalid_grant", "unsupported_grant_type", "mfa_required"]
    error_description: str
    challenge: str | None = Field(default=None, description="Of mfa_required.")
    factors: list[str] | None = Field(default=None, description="Of mfa_required: what the user has.")
