"""Routing without recursion that clients control."""

from typing import Any

from sanic.router import Router as SanicRouter
from sanic_routing.exceptions import NotFound


class Router(SanicRouter):
    """Sanic's router, with an end to trailing slashes."""

    def resolve(self, path: str, **options: Any) -> Any:
        """Find the route of a path, of which one trailing slash is ignored.

        Sanic ignores any number, with a recursion for each: a thousand of them would be a RecursionError, and its
        traceback would occupy the worker for seconds (denial of service). Called for paths that are not cached.
        """
        if path.endswith(2 * self.delimiter):
            raise NotFound("Path not found", path=path)
        return super().resolve(path, **options)
