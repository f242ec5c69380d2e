"""Shapes for operators."""

from typing import Literal

from pydantic import BaseModel


class Health(BaseModel):
    """That it is so; if not, the answer is a problem."""

    status: Literal["live", "ready"]
