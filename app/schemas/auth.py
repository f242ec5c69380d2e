"""Shapes of logins, tokens and sessions."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, RootModel, StringConstraints, model_validator

from app.http.bodies import Body, NotNull, with_example
from app.schemas.factors import FactorIn
from app.schemas.modes import Mode
from app.schemas.passwords import EXAMPLE_PASSWORD, Password
from app.schemas.times import Time

SESSION_ID = "[A-Za-z0-9_-]{22}"
SessionId = Annotated[str, StringConstraints(pattern=f"^{SESSION_ID}$"), Field(examples=["q3Zk1h0bTn2mXw8uYr5LdA"])]
EXAMPLE_REFRESH_TOKEN = "q3Zk1h0bTn2mXw8uYr5LdA.0.hVn7vD0p6k3Ew1bQ2cX9sLrT4yUzGmJfKaHdNiOeP8Y"


class Credentials(Body):
    """A login.

    Any name is accepted; an invalid one is an unknown user.
    """

    model_config = with_example(username="alice", password=EXAMPLE_PASSWORD)

    username: Annotated[str, Field(max_length=256, examples=["alice"])]
    password: Password
    mode: Mode = None


class Refresh(Body):
    """A refresh token to exchange."""

    refresh_token: Annotated[str, Field(max_length=512, examples=[EXAMPLE_REFRESH_TOKEN])]


class StepUp(FactorIn):
    """What makes the session fresh: the password, a code, or a passkey."""

    model_config = with_example(current_password=EXAMPLE_PASSWORD)

    current_password: Annotated[Password | None, NotNull] = None
    mode: Mode = None

    @model_validator(mode="after")
    def _one_of_three(self) -> Self:
        self._require_one(self.current_password)
        return self


class Tokens(BaseModel):
    """An access token and a refresh token (RFC 6749 section 5.1)."""

    access_token: str = Field(examples=["eyJhbGciOiJIUzI1NiIsImtpZCI6IjdkYjYiLCJ0eXAiOiJhdCtqd3QifQ.eyJzdWIi..."])
    refresh_token: str = Field(examples=[EXAMPLE_REFRESH_TOKEN])
    token_type: Literal["Bearer"] = "Bearer"
    expires_in: int = Field(description="Seconds until the access token expires.", examples=[900])


class InCookies(BaseModel):
    """The lifetime of tokens that were set as cookies."""

    expires_in: int = Field(description="Seconds until the access token expires.", examples=[900])


class Issued(RootModel[Tokens | InCookies]):
    """Tokens, or their lifetime if they were set as cookies."""


class VerifiedOut(BaseModel):
    """The claims of a valid access token."""

    valid: Literal[True] = True
    sub: str
    sid: str
    jti: str
    iat: int
    exp: int
    iss: str
    aud: str
    scopes: list[str]
    auth_time: int | None = Field(default=None, description="When the user authenticated, in seconds since 1970.")
    amr: list[str] | None = Field(default=None, description="How (RFC 8176).", examples=[["pwd"]])


class SessionOut(BaseModel):
    """An active session."""

    id: str = Field(examples=["q3Zk1h0bTn2mXw8uYr5LdA"])
    created_at: Time
    refreshed_at: Time
    address: str = Field(examples=["203.0.113.7"])
    user_agent: str = Field(examples=["Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"])
    current: bool = Field(description="Whether it is the session of this access token.")


class SessionsOut(BaseModel):
    """The active sessions, newest first."""

    sessions: list[SessionOut]
