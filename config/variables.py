"""Settings from environment variables, and from files that variables name."""

import re
import stat
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, NoReturn, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from config import texts
from config.instance_file import Given

PREFIX, SUFFIX = "APP_", "_FILE"
ENVIRONMENT = "APP_ENV"
MAX_FILE_BYTES = 64 * 1024
SEPARATORS = re.compile(r"[,\r\n]")  # between the items of a list; in a file, one a line
# What Kubernetes and Docker add for each service, by its name: for a service named app they look like settings.
LINK_NAME = re.compile(r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)", re.ASCII)
LINK_PORT = re.compile(r"(\w+_)?PORT", re.ASCII)
LINK_VALUE = re.compile(r"(tcp|udp|sctp)://")


def read(
    environ: Mapping[str, str], config_class: type[BaseModel], warn: Callable[[str], object]
) -> tuple[dict[str, Given], dict[str, str]]:
    """Read APP_<SETTING> variables, and the files that APP_<SETTING>_FILE name, as the types of the settings.

    Returns the settings, and the problems by setting. An empty variable counts as not set. Variables that the platform
    has set are passed over with one warning.
    """
    fields = config_class.model_fields
    variables = {name: text for name, text in environ.items() if name.startswith(PREFIX) and name != ENVIRONMENT}
    links = {name for name, text in variables.items() if _is_link(name.removeprefix(PREFIX), text, fields)}
    if links:
        warn(_links_passed_over(links))
    given: dict[str, Given] = {}
    refused: dict[str, str] = {}
    for variable in sorted(variables.keys() - links):
        name, from_file = _setting(variable, fields)
        try:
            text = _from_file(variable, variables) if from_file else variables[variable]
            value = _convert(fields[name], text) if name in fields else _unknown(name, fields)
        except ValueError as error:
            refused[name] = f"{_source(variable)}: {error}"
        else:
            if value != "":
                given[name] = Given(value, _source(variable))
    return given, refused


def _setting(variable: str, fields: Mapping[str, FieldInfo]) -> tuple[str, bool]:
    """Return the setting of a variable, and whether the variable names a file with its value."""
    name = variable.removeprefix(PREFIX)
    from_file = name not in fields and name.endswith(SUFFIX) and name.removesuffix(SUFFIX) in fields
    return (name.removesuffix(SUFFIX), True) if from_file else (name, False)


def _from_file(variable: str, variables: Mapping[str, str]) -> str:
    """Return the content of the file that a variable names, or an empty text if it names none. Raises ValueError."""
    path, other = texts.clean(variables[variable]), variable.removesuffix(SUFFIX)
    if path and texts.strip(variables.get(other, "")):
        raise ValueError(f"is set together with {other}: set one of them")
    return _content(path) if path else ""


def _content(path: str) -> str:
    """Return the content of a file with a secret.

    Raises ValueError without the path, which may be a secret by mistake.
    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # nothing that blocks, or that only the first worker can read
            raise ValueError("names something that is not a file")
        with Path(path).open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"names a file that cannot be read ({error.strerror})") from None
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"names a file of more than {MAX_FILE_BYTES} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("names a file that is not UTF-8") from None
    if not texts.strip(text):
        raise ValueError("names a file that is empty")
    return text


def _convert(field: FieldInfo, text: str) -> Any:
    """Return the text as the type of a setting; an empty one stays a text. Raises ValueError."""
    if get_origin(field.annotation) is list:
        return [item for item in map(texts.strip, SEPARATORS.split(text)) if item] or ""
    text = texts.clean(text)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        raise ValueError("has quotation marks around its value, which would be part of it")
    if not text or _is_text(field.annotation):
        return text
    try:
        return TypeAdapter[Any](field.rebuild_annotation()).validate_strings(text)
    except ValidationError as error:
        raise ValueError(error.errors(include_input=False)[0]["msg"].removeprefix("Value error, ")) from None


def _is_text(annotation: Any) -> bool:
    """Return whether a type is a text, or optionally a text."""
    if get_origin(annotation) is Annotated:
        return _is_text(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return any(_is_text(one) for one in get_args(annotation))
    return annotation is str


def _source(variable: str) -> str:
    return f"{variable.encode('unicode_escape').decode()} (environment)"


def _unknown(name: str, fields: Mapping[str, FieldInfo]) -> NoReturn:
    """Raise ValueError with the setting that is probably meant."""
    close = get_close_matches(name.upper(), fields, n=1, cutoff=0.8)
    raise ValueError("is not a setting of this service" + (f": is {PREFIX}{close[0]} meant?" if close else ""))


def _is_link(name: str, text: str, fields: Mapping[str, FieldInfo]) -> bool:
    """Return whether a variable is a service link of the platform."""
    if LINK_PORT.fullmatch(name) and LINK_VALUE.match(text):
        return True
    return name not in fields and LINK_NAME.fullmatch(name) is not None


def _links_passed_over(links: set[str]) -> str:
    return (
        f"{', '.join(sorted(links))} (environment): passed over, because they are no settings, but the service links "
        "of Kubernetes for a Service whose name begins with app: set enableServiceLinks: false in the pod spec"
    )
