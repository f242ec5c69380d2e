"""Clients of the service, to copy."""
