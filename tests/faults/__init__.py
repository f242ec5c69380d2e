"""What the service does while the things that it stands on fail."""
