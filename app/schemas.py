"""The shapes on the wire, in and out; no I/O."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator
from pydantic_core import PydanticCustomError

from app.models.users import User

USERNAME = "^[A-Za-z0-9._-]{3,64}$"
Username = Annotated[str, StringConstraints(pattern=USERNAME), Field(examples=["alice"])]
USER_ID = "[0-9a-f]{24}"
UserId = Annotated[str, StringConstraints(pattern=f"^{USER_ID}$")]
SESSION_ID = "[A-Za-z0-9_-]{22}"
SessionId = Annotated[str, StringConstraints(pattern=f"^{SESSION_ID}$")]
# Length and strength are checked after normalisation, where the rules are; this only bounds the work.
Password = Annotated[
    str,
    Field(
        max_length=1024,
        description="Any Unicode text of at most 256 characters.",
        examples=["correct horse battery staple"],
    ),
]
EXAMPLE_REFRESH_TOKEN = "q3Zk1h0bTn2mXw8uYr5LdA.0.hVn7vD0p6k3Ew1bQ2cX9sLrT4yUzGmJfKaHdNiOeP8Y"
AccessName = Literal["guest", "user", "admin"]


class Body(BaseModel):
    """What a client sends. Types are exact and unknown fields refused, so nothing slips in beside them."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Registration(Body):
    """A new user."""

    username: Username
    password: Password


class Credentials(Body):
    """A login. A name that breaks the rules is only an unknown one."""

    username: Annotated[str, Field(max_length=256, examples=["alice"])]
    password: Password


class Refresh(Body):
    """A refresh token to be exchanged."""

    refresh_token: Annotated[str, Field(max_length=512, examples=[EXAMPLE_REFRESH_TOKEN])]


class PasswordChange(Body):
    """A new password, and the one it replaces."""

    current_password: Password
    new_password: Annotated[Password, Field(examples=["a quite different sentence"])]


class Deletion(Body):
    """The password once more, so that nobody else deletes the account."""

    current_password: Password


class UserChange(Body):
    """What an administrator changes: one of the two at least."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    # None says that it was not given; null is refused.
    access: Annotated[AccessName | None, Field(examples=["user"])] = None
    disabled: Annotated[bool | None, Field(examples=[False])] = None

    @field_validator("access", "disabled")
    @classmethod
    def _not_null(cls, given: Any) -> Any:
        if given is None:
            raise PydanticCustomError("null", "Input should not be null")
        return given

    @model_validator(mode="after")
    def _something_is_given(self) -> Self:
        if not self.model_fields_set:
            raise PydanticCustomError("missing", "access or disabled must be given")
        return self


class PageQuery(BaseModel):
    """Which page of a list."""

    after: UserId | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 50


class UserOut(BaseModel):
    """A user as clients see it."""

    id: str = Field(examples=["6744a1b2c3d4e5f60718293a"])
    username: str = Field(examples=["alice"])
    access: AccessName = Field(examples=["user"])
    disabled: bool = Field(examples=[False])
    created_at: datetime

    @classmethod
    def of(cls, user: User) -> Self:
        """Show what may be shown of a user; never the hash."""
        return cls(
            id=user.id,
            username=user.username,
            access=user.access.name.lower(),
            disabled=user.disabled,
            created_at=user.created_at,
        )


class UsersOut(BaseModel):
    """A page of users."""

    users: list[UserOut]
    next: str | None = Field(
        description="Where the next page begins: give it as `after`. Null on the last page.",
        examples=["6744a1b2c3d4e5f60718293a"],
    )


class SessionOut(BaseModel):
    """A session as its user sees it."""

    id: str = Field(examples=["q3Zk1h0bTn2mXw8uYr5LdA"])
    created_at: datetime
    refreshed_at: datetime
    address: str = Field(examples=["203.0.113.7"])
    user_agent: str = Field(examples=["Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"])
    current: bool = Field(description="Whether it is the session of the access token that asks.")


class SessionsOut(BaseModel):
    """The sessions that go on."""

    sessions: list[SessionOut]


class Tokens(BaseModel):
    """An access token and the refresh token that follows it."""

    access_token: str = Field(examples=["eyJhbGciOiJIUzI1NiIsImtpZCI6IjdkYjYiLCJ0eXAiOiJhdCtqd3QifQ.eyJzdWIi..."])
    refresh_token: str = Field(examples=[EXAMPLE_REFRESH_TOKEN])
    token_type: Literal["Bearer"] = "Bearer"
    expires_in: int = Field(description="Seconds until the access token expires.", examples=[900])


class Registered(Tokens):
    """The tokens of a first login, and the user."""

    user: UserOut


class VerifiedOut(BaseModel):
    """The claims of a token that holds."""

    valid: Literal[True] = True
    sub: str
    sid: str
    jti: str
    iat: int
    exp: int
    iss: str
    aud: str
    scopes: list[str]


class Greeting(BaseModel):
    """The tutorial's answer."""

    Hello: str = Field(examples=["World!"])


class Health(BaseModel):
    """That it is so; if not, the answer is a problem."""

    status: Literal["live", "ready"]


class FieldError(BaseModel):
    """What is wrong with one field."""

    field: str
    message: str


class ProblemOut(BaseModel):
    """Every error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="Stable, for programs.")
    request_id: str
    errors: list[FieldError] | None = None  # left out if there are none
