"""Database toolkit: MongoDB with a time limit on every call. Knows no model."""
