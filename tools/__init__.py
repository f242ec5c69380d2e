"""Commands for development and tests; they are not part of the service."""
