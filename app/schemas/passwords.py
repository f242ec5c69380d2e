"""The shape of passwords."""

from typing import Annotated

from pydantic import Field

# Length and strength are checked after normalisation, by the policy; this limit only bounds the work.
Password = Annotated[
    str,
    Field(
        max_length=1024,
        description="Any Unicode text of at most 256 characters.",
        examples=["correct horse battery staple"],
    ),
]
