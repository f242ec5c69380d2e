"""How tokens are to be returned."""

from typing import Annotated, Literal

from pydantic import Field

from app.http.bodies import NotNull

Mode = Annotated[
    Literal["cookie"] | None,
    NotNull,
    Field(description="`cookie`: the tokens are set as cookies that no script can read, instead of in the body."),
]
