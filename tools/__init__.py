"""Commands for development and tests; none of them is part of the service."""
