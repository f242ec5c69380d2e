"""Proofs of who a user is, beside the password: their forms, without I/O."""
