"""The shape of the tutorial's greetings."""

from pydantic import BaseModel, Field


class Greeting(BaseModel):
    """A greeting."""

    Hello: str = Field(examples=["World!"])
