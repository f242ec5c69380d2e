"""Shapes of e-mail addresses, of their verification, and of forgotten passwords."""

from typing import Annotated

from pydantic import Field, StringConstraints

from app.http.bodies import Body, with_example
from app.http.problems import FieldError, invalid_fields
from app.models.users import Email, email_key
from app.schemas.factors import FactorIn
from app.schemas.passwords import Password
from app.tokens.one_time import CODE, TOKEN

MAX_LENGTH = 254  # RFC 5321 section 4.5.3.1.3, without the angle brackets
EXAMPLE_TOKEN = "Zb3wq9Yk2Lr5Tn8Vx1Cm4Hd7Jf0Gs6Pa-Qe_Ui3Oy5W"  # noqa: S105 - for the documentation
EXAMPLE_NEW_PASSWORD = "a quite different sentence"  # noqa: S105 - for the documentation
EmailText = Annotated[
    str,
    Field(
        max_length=MAX_LENGTH,
        description="An address of ASCII characters; the domain may be an internationalised one.",
        examples=["alice@example.com"],
    ),
]
OneTimeToken = Annotated[
    str,
    StringConstraints(pattern=f"^{TOKEN}$"),
    Field(description="From the link of the mail.", examples=[EXAMPLE_TOKEN]),
]


class EmailChange(Body):
    """An address that is to be verified."""

    email: EmailText

    def address(self) -> Email:
        """Return the address."""
        return address("email", self.email)


class Code(Body):
    """The code of a mail."""

    code: Annotated[str, StringConstraints(pattern=f"^{CODE}$"), Field(examples=["20481632"])]


class Undo(FactorIn):
    """The token of a notice, which undoes a change.

    And a code or passkey if there was a second factor before.
    """

    model_config = with_example(token=EXAMPLE_TOKEN)

    token: OneTimeToken


class ResetRequest(Body):
    """The address of a user who has forgotten the password."""

    email: EmailText

    def address(self) -> Email:
        """Return the address."""
        return address("email", self.email)


class Reset(FactorIn):
    """The token of a mail, and a new password.

    And a code or passkey if the user has a second factor.
    """

    model_config = with_example(token=EXAMPLE_TOKEN, new_password=EXAMPLE_NEW_PASSWORD)

    token: OneTimeToken
    new_password: Annotated[Password, Field(examples=[EXAMPLE_NEW_PASSWORD])]


def address(field: str, text: str) -> Email:
    """Return an address in the form that mails are sent to, and its key.

    The key has the domain in lower-case IDNA and the local part in lower case; dots and tags stay. Only ASCII local
    parts, because there are look-alikes of others (homograph attack). Raises Problem 422.
    """
    from email_validator import EmailNotValidError, validate_email

    try:
        # Underscores and the like are rejected, and so are line breaks (header injection) and addresses in brackets.
        valid = validate_email(text, allow_smtputf8=False, check_deliverability=False, strict=True)
    except EmailNotValidError:
        raise invalid_fields(FieldError(field=field, message="is not an e-mail address")) from None
    text = f"{valid.ascii_local_part}@{valid.ascii_domain}"
    return Email(text, email_key(text))
