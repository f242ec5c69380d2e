"""What a handler declares about itself for the OpenAPI description."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import CodeType, FunctionType
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel

from app.http.bodies import BODY_CODES, QUERY_CODES
from app.http.codes import FRESH, Code, declared_codes
from app.http.forms import FORM

OPERATION = "__operation__"  # the attribute that holds a handler's description

Handler = TypeVar("Handler", bound=Callable[..., Any])


@dataclass(frozen=True)
class Operation:
    """One method of one route.

    `path` has the types of path parameters, `responses` the shapes of successful responses by status. `fresh` says that
    a recent authentication is required, and `with_factor` that it needs the second factor.
    """

    summary: str
    description: str
    body: type[BaseModel] | None
    media_type: str
    query: type[BaseModel] | None
    path: Mapping[str, Any]
    responses: Mapping[int, type[BaseModel] | None]
    declared: tuple[Code, ...]
    fresh: bool
    with_factor: bool
    function: Callable[..., Any]

    @cached_property
    def codes(self) -> tuple[Code, ...]:
        """The codes that the operation can answer with, beside those of every operation."""
        uses_database = _reaches_stores(self.function, set())
        return tuple(dict.fromkeys((*self.declared, *((Code.STORE_UNAVAILABLE,) if uses_database else ()))))

    @property
    def protected(self) -> bool:
        """Whether the operation requires an access token."""
        return Code.TOKEN_MISSING in self.codes


def describe(
    *,
    body: type[BaseModel] | None = None,
    form: type[BaseModel] | None = None,
    query: type[BaseModel] | None = None,
    responses: Mapping[int, type[BaseModel] | None],
    refuses: tuple[Code, ...] = (),
) -> Callable[[Handler], Handler]:
    """Describe a handler; the first line of its docstring is the summary.

    `refuses` has the codes of the handler's own refusals. Those of its guards, of its body and query, and of the
    database are added here, and those of every operation in the document.
    """

    def decorate(handler: Handler) -> Handler:
        function = inspect.unwrap(handler)
        summary, _, details = inspect.cleandoc(function.__doc__ or "").partition("\n")
        codes = (
            *refuses,
            *declared_codes(handler),
            *(BODY_CODES if body else ()),
            *(QUERY_CODES if query else ()),
        )
        operation = Operation(
            summary=summary,
            description=details.strip(),
            body=body or form,
            media_type=FORM if form else "application/json",
            query=query,
            path=_path_parameters(function),
            responses=responses,
            declared=codes,
            fresh=hasattr(handler, FRESH),
            with_factor=getattr(handler, FRESH, False),
            function=function,
        )
        setattr(handler, OPERATION, operation)
        return handler

    return decorate


def operation_of(handler: Any) -> Operation | None:
    """Return the description of a handler that has one."""
    return getattr(handler, OPERATION, None)


def _path_parameters(function: Callable[..., Any]) -> dict[str, Any]:
    hints = get_type_hints(function, include_extras=True)
    return {name: hints[name] for name in hints if name not in ("request", "return")}


def _reaches_stores(function: Callable[..., Any], seen: set[Any]) -> bool:
    """Return whether a function, or one of its module that it calls, uses `app.ctx`.

    Views reach the database through it alone. A test compares the result with what handlers really do.
    """
    seen.add(function)
    names = set(_names(function.__code__))
    called = (function.__globals__.get(name) for name in names)
    return "ctx" in names or any(
        _reaches_stores(one, seen)
        for one in called
        if isinstance(one, FunctionType) and one.__module__ == function.__module__ and one not in seen
    )


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
