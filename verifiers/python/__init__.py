"""The verifier in Python."""
