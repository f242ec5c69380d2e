"""What other services copy to verify access tokens."""
