"""Server toolkit: Sanic's processes and connections."""
