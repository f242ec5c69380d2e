"""The shape of a password, wherever one is sent."""

from typing import Annotated

from pydantic import Field

# Length and strength are checked after normalisation, where the rules are; this only bounds the work.
Password = Annotated[
    str,
    Field(
        max_length=1024,
        description="Any Unicode text of at most 256 characters.",
        examples=["correct horse battery staple"],
    ),
]
