"""The shape of passwords."""

from typing import Annotated

from pydantic import Field

EXAMPLE_PASSWORD = "correct horse battery staple"  # noqa: S105 - for the documentation
# Length and strength are checked after normalisation, by the policy; this limit only bounds the work.
Password = Annotated[
    str,
    Field(
        max_length=1024,
        description="Any Unicode text of at most 256 characters.",
        examples=[EXAMPLE_PASSWORD],
    ),
]
