"""Property-based tests: properties that are true for all inputs and all orders of events.

The environment variable PROPERTY_EXAMPLES is the number of inputs per property. The default is small and every run uses
the same inputs.
"""

import os

from hypothesis import settings


def repeatable(examples: int) -> settings:
    """Return settings for so many examples, or PROPERTY_EXAMPLES; every run uses the same examples."""
    number = int(os.environ.get("PROPERTY_EXAMPLES", examples))
    return settings(max_examples=number, derandomize=True, database=None, deadline=None)
