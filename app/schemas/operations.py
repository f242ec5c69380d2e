"""Shapes for operators."""

from typing import Literal

from pydantic import BaseModel


class Health(BaseModel):
    """A healthy state; otherwise the response is a problem."""

    status: Literal["live", "ready"]
