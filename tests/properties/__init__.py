"""Properties: what holds for every input, and in whichever order things happen.

PROPERTY_EXAMPLES is how many inputs a property gets; without it few enough to wait for, and the same in every run.
"""

import os

from hypothesis import settings


def repeatable(examples: int) -> settings:
    """Give so many examples unless PROPERTY_EXAMPLES asks for another number; each run has the same ones."""
    number = int(os.environ.get("PROPERTY_EXAMPLES", examples))
    return settings(max_examples=number, derandomize=True, database=None, deadline=None)
