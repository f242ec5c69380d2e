"""What MongoDB stores: users, sessions, counted attempts. Nothing here knows Sanic."""
