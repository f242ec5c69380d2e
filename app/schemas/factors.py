"""Shapes of second factors."""

from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints

from app.factors.totp import CODE
from app.http.bodies import Body
from app.tokens.one_time import TOKEN

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
        examples=["204816"],
    ),
]


class SecondFactorIn(Body):
    """The answer to a challenge."""

    challenge: Challenge
    code: FactorCode


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
