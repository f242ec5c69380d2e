"""What MongoDB keeps: users and their sessions. Nothing here knows Sanic."""
