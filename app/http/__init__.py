"""HTTP toolkit: read requests, write responses and problems."""
