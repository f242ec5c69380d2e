"""Who you are, and whether we still believe it."""
