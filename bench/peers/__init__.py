"""The peers: the same routes, each written as in its framework's documentation, with the key in BENCH_KEY.

All peers run in a separate environment. POST /auth issues a token in the peer's own format without a password check,
because the bench does not compare logins.
"""
