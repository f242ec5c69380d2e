"""Tests of the service on several machines whose network is cut, slow or lossy, or one of which is paused."""
