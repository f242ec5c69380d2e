"""Shapes of second factors."""

import base64
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, Field, RootModel, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from app.factors.totp import CODE
from app.http.bodies import Body, NotNull, with_example
from app.models.factors import Passkey
from app.schemas.modes import Mode
from app.schemas.times import Time
from app.tokens.one_time import TOKEN

EXAMPLE_CODE = "204816"
EXAMPLE_CHALLENGE = "Hd7Jf0Gs6Pa-Qe_Ui3Oy5WZb3wq9Yk2Lr5Tn8Vx1Cm4"
Challenge = Annotated[
    str,
    StringConstraints(pattern=f"^{TOKEN}$"),
    Field(
        description="From the response that required a second factor.",
        examples=[EXAMPLE_CHALLENGE],
    ),
]
FactorCode = Annotated[
    str,
    Field(
        min_length=6,
        max_length=64,
        description="The six digits of an authenticator, or a recovery code.",
        examples=[EXAMPLE_CODE],
    ),
]


EXAMPLE_PASSKEY = {"id": "...", "rawId": "...", "type": "public-key", "response": {"clientDataJSON": "..."}}
PasskeyAnswer = Annotated[
    dict[str, Any],
    Field(
        description="What `PublicKeyCredential.toJSON()` returns for the answer of a passkey.",
        examples=[EXAMPLE_PASSKEY],
    ),
]


class FactorIn(Body):
    """What proves a second factor: a code, or a passkey."""

    code: Annotated[FactorCode | None, NotNull] = None
    passkey: Annotated[PasskeyAnswer | None, NotNull] = None

    @model_validator(mode="after")
    def _not_both(self) -> Self:
        if self.code is not None and self.passkey is not None:
            raise PydanticCustomError("one_of", "Only one of code and passkey is allowed")
        return self

    @property
    def evidence(self) -> str | dict[str, Any] | None:
        """The code or the passkey, if one is given."""
        return self.code if self.code is not None else self.passkey

    def _require_one(self, *others: object) -> None:
        """Require exactly one of the code, the passkey and other values."""
        if sum(one is not None for one in (self.code, self.passkey, *others)) != 1:
            raise PydanticCustomError("one_of", "Exactly one of them is required")


class SecondFactorIn(FactorIn):
    """The answer to a challenge."""

    model_config = with_example(challenge=EXAMPLE_CHALLENGE, code=EXAMPLE_CODE)

    challenge: Challenge
    mode: Mode = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        self._require_one()
        return self


class PasskeyLogin(Body):
    """The answer of a passkey to the options of a login."""

    model_config = with_example(challenge=EXAMPLE_CHALLENGE, passkey=EXAMPLE_PASSKEY)

    challenge: Annotated[str, StringConstraints(pattern=f"^{TOKEN}$"), Field(examples=[EXAMPLE_CHALLENGE])]
    passkey: PasskeyAnswer
    mode: Mode = None


def _visible(name: str) -> str:
    """Return a name that can be seen as it is, without control characters and spaces around it."""
    if name != name.strip() or not name.isprintable():
        raise PydanticCustomError("not_visible", "must consist of visible characters, without spaces around them")
    return name


class NewPasskeyIn(Body):
    """The answer of an authenticator to the options of a registration."""

    passkey: PasskeyAnswer
    name: Annotated[str, Field(min_length=1, max_length=64, examples=["My phone"]), AfterValidator(_visible)]


PASSKEY_ID = "[A-Za-z0-9_-]{2,1364}"  # at most 1023 bytes in Base64url
PasskeyId = Annotated[str, StringConstraints(pattern=f"^{PASSKEY_ID}$"), Field(examples=["aGVsbG8gd29ybGQ"])]


def read_id(text: str) -> bytes:
    """Return the id of a passkey; a text that is none is the id of no passkey."""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return b""


class PasskeyOut(BaseModel):
    """A passkey of the user."""

    id: str = Field(examples=["aGVsbG8gd29ybGQ"])
    name: str = Field(examples=["My phone"])
    added_at: Time
    used_at: Time | None
    backed_up: bool = Field(description="Whether it is synchronised, and survives the loss of a device.")

    @classmethod
    def of(cls, passkey: Passkey) -> Self:
        """Select what the user may see."""
        return cls(
            id=base64.urlsafe_b64encode(passkey.id).rstrip(b"=").decode(),
            name=passkey.name,
            added_at=passkey.added_at,
            used_at=passkey.used_at,
            backed_up=passkey.backed_up,
        )


class PasskeyAdded(PasskeyOut):
    """A new passkey, with the recovery codes that come with the first factor, shown once."""

    recovery_codes: list[str] | None = Field(default=None, examples=[["mzxw-6ytb-oi7q-k3tv"]])


class PasskeysOut(BaseModel):
    """The passkeys of the user."""

    passkeys: list[PasskeyOut]


class PasskeyOptions(RootModel[dict[str, Any]]):
    """Options for navigator.credentials (Web Authentication section 5.1.8)."""


class TotpCode(Body):
    """The six digits that an authenticator shows."""

    code: Annotated[str, StringConstraints(pattern=f"^{CODE}$"), Field(examples=["204816"])]


class TotpSecret(BaseModel):
    """A secret to be read by an authenticator app, shown once."""

    secret: str = Field(description="In Base32.", examples=["JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"])
    uri: str = Field(examples=["otpauth://totp/Demo:alice?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=Demo"])
    qr: str = Field(
        description="The URI as a QR code: an SVG image in a data URI.", examples=["data:image/svg+xml,..."]
    )


class RecoveryCodesOut(BaseModel):
    """Recovery codes, shown once; absent if the user has some already."""

    recovery_codes: list[str] | None = Field(default=None, examples=[["mzxw-6ytb-oi7q-k3tv", "gezd-gnbv-gy3t-qojq"]])


class FactorsOut(BaseModel):
    """The second factors of a user."""

    totp: bool = Field(description="Whether the user has an authenticator.")
    passkeys: int = Field(examples=[0])
    recovery_codes_left: int = Field(examples=[10])
