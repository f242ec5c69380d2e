"""The suite: the tutorial's cases first, then everything that clients can rely on."""
