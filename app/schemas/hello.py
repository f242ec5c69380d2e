"""The shape of the tutorial's greetings."""

from pydantic import BaseModel, Field


class Greeting(BaseModel):
    """The tutorial's answer."""

    Hello: str = Field(examples=["World!"])
