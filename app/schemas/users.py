"""Shapes of users and their administration."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, RootModel, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from app.http.bodies import Body, NotNull, with_example
from app.models.users import Email, User
from app.schemas.auth import InCookies, Tokens
from app.schemas.emails import EmailText, address
from app.schemas.modes import Mode
from app.schemas.passwords import EXAMPLE_PASSWORD, Password
from app.schemas.times import Time

USERNAME = "^[A-Za-z0-9._-]{3,64}$"
Username = Annotated[str, StringConstraints(pattern=USERNAME), Field(examples=["alice"])]
USER_ID = "[0-9a-f]{24}"
UserId = Annotated[str, StringConstraints(pattern=f"^{USER_ID}$"), Field(examples=["6744a1b2c3d4e5f60718293a"])]
AccessName = Literal["guest", "user", "admin"]


class Registration(Body):
    """A new user."""

    model_config = with_example(username="alice", password=EXAMPLE_PASSWORD)

    username: Username
    password: Password
    mode: Mode = None


class RegistrationWithEmail(Registration):
    """A new user, who may claim an e-mail address."""

    model_config = with_example(username="alice", password=EXAMPLE_PASSWORD, email="alice@example.com")

    email: Annotated[EmailText | None, NotNull] = None

    def address(self) -> Email | None:
        """Return the address, if one is given."""
        return None if self.email is None else address("email", self.email)


class PasswordChange(Body):
    """A new password and the current one."""

    current_password: Password
    new_password: Annotated[Password, Field(examples=["a quite different sentence"])]


class Deletion(Body):
    """The current password, which confirms the deletion."""

    current_password: Password


class UserChange(Body):
    """Changes of a user, at least one."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    access: Annotated[AccessName | None, NotNull, Field(examples=["user"])] = None
    disabled: Annotated[bool | None, NotNull, Field(examples=[False])] = None

    @model_validator(mode="after")
    def _something_is_given(self) -> Self:
        if not self.model_fields_set:
            raise PydanticCustomError("missing", "access or disabled must be given")
        return self


class PageQuery(BaseModel):
    """The start and the length of a page."""

    after: UserId | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 50


class UserOut(BaseModel):
    """A user."""

    id: str = Field(examples=["6744a1b2c3d4e5f60718293a"])
    username: str = Field(examples=["alice"])
    access: AccessName = Field(examples=["user"])
    disabled: bool = Field(examples=[False])
    created_at: Time
    email: str | None = Field(description="null without one.", examples=["alice@example.com"])
    email_verified: bool = Field(description="Only a verified address counts.", examples=[True])

    @classmethod
    def of(cls, user: User) -> Self:
        """Select the public fields of a user; never the hash."""
        return cls(
            id=user.id,
            username=user.username,
            access=user.access.name.lower(),
            disabled=user.disabled,
            created_at=user.created_at,
            email=user.email.address if user.email else None,
            email_verified=user.email_verified,
        )


class UsersOut(BaseModel):
    """A page of users."""

    users: list[UserOut]
    next: str | None = Field(
        description="The value of `after` for the next page; null on the last page.",
        examples=["6744a1b2c3d4e5f60718293a"],
    )


class Registered(Tokens):
    """A new user with the tokens of its first session."""

    user: UserOut


class RegisteredInCookies(InCookies):
    """A new user, whose tokens were set as cookies."""

    user: UserOut


class RegisteredOut(RootModel[Registered | RegisteredInCookies]):
    """A new user with the tokens of its first session, or their lifetime in cookie mode."""
