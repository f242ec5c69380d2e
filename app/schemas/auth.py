"""Shapes of logins, tokens and sessions."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from app.http.bodies import Body, NotNull, with_example
from app.schemas.factors import FactorCode
from app.schemas.passwords import EXAMPLE_PASSWORD, Password
from app.schemas.times import Time

SESSION_ID = "[A-Za-z0-9_-]{22}"
SessionId = Annotated[str, StringConstraints(pattern=f"^{SESSION_ID}$"), Field(examples=["q3Zk1h0bTn2mXw8uYr5LdA"])]
EXAMPLE_REFRESH_TOKEN = "q3Zk1h0bTn2mXw8uYr5LdA.0.hVn7vD0p6k3Ew1bQ2cX9sLrT4yUzGmJfKaHdNiOeP8Y"


class Credentials(Body):
    """A login.

    Any name is accepted; an invalid one is an unknown user.
    """

    username: Annotated[str, Field(max_length=256, examples=["alice"])]
    password: Password


class Refresh(Body):
    """A refresh token to exchange."""

    refresh_token: Annotated[str, Field(max_length=512, examples=[EXAMPLE_REFRESH_TOKEN])]


class StepUp(Body):
    """What makes the session fresh: the current password, or a code of the second factor."""

    model_config = with_example(current_password=EXAMPLE_PASSWORD)

    current_password: Annotated[Password | None, NotNull] = None
    code: Annotated[FactorCode | None, NotNull] = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.current_password is None) == (self.code is None):
            raise PydanticCustomError("one_of", "Either current_password or code is required")
        return self


class Tokens(BaseModel):
    """An access token and a refresh token (RFC 6749 section 5.1)."""

    access_token: str = Field(examples=["eyJhbGciOiJIUzI1NiIsImtpZCI6IjdkYjYiLCJ0eXAiOiJhdCtqd3QifQ.eyJzdWIi..."])
    refresh_token: str = Field(examples=[EXAMPLE_REFRESH_TOKEN])
    token_type: Literal["Bearer"] = "Bearer"
    expires_in: int = Field(description="Seconds until the access token expires.", examples=[900])


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
