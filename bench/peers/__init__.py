"""The peers: the same routes, each the way its own documentation would write it, with the key in BENCH_KEY.

All run in the peers' own environment, and hand out a token of their own form to whoever asks at POST /auth,
since it is not logins that are compared.
"""
