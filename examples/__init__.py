"""Example clients of the service."""
