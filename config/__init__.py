"""Load the settings: base class, environment's class, instance file, environment variables."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_origin

from pydantic import TypeAdapter, ValidationError

from config.base import Config
from config.environments import ENVIRONMENTS, ProductionConfig

__all__ = ["Config", "ConfigurationError", "load"]

INSTANCE_FILE = Path(__file__).parent.parent / "instance" / "application.cfg"
PREFIX = "APP_"


class ConfigurationError(ValueError):
    """The settings do not allow a start.

    The message lists every problem, and no value.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__(
            "The service cannot start with these settings:\n" + "\n".join(f"  {line}" for line in problems)
        )


def load(
    environ: Mapping[str, str] = os.environ, instance_file: Path = INSTANCE_FILE, *, debug: bool = False
) -> Config:
    """Read all layers; later ones win.

    `debug` comes from the command line. Raises ConfigurationError.
    """
    chosen = environ.get("APP_ENV", "development")
    if chosen not in ENVIRONMENTS:
        raise ConfigurationError([f"APP_ENV is {chosen!r}, but must be one of: {', '.join(ENVIRONMENTS)}"])
    config_class = ENVIRONMENTS[chosen]
    problems: list[str] = []
    layers = _from_file(instance_file, problems) | _from_environment(environ, config_class, problems)
    try:
        config = config_class.model_validate(layers, strict=True)
    except ValidationError as error:
        problems += [_in_words(detail) for detail in error.errors(include_input=False, include_url=False)]
    if debug and config_class is ProductionConfig:
        problems.append("DEBUG: cannot be switched on in production, neither by --debug nor by --dev")
    if problems:
        raise ConfigurationError(problems)
    return config


def _from_file(path: Path, problems: list[str]) -> dict[str, Any]:
    """Run the file as Python, as Flask's from_pyfile does, and return its upper-case names."""
    if not path.exists():
        return {}
    names: dict[str, Any] = {}
    try:
        exec(compile(path.read_bytes(), path, "exec"), names)  # noqa: S102 - the machine's administrator wrote it
    except Exception as error:
        where = f"line {error.lineno}: " if isinstance(error, SyntaxError) else ""
        problems.append(f"{path}: {where}{type(error).__name__}, so not all of its settings were read")
    return {name: value for name, value in names.items() if name.isupper()}


def _from_environment(environ: Mapping[str, str], config_class: type[Config], problems: list[str]) -> dict[str, Any]:
    """Read APP_<SETTING> variables as the type of the setting; lists are separated by commas."""
    values: dict[str, Any] = {}
    for variable, text in environ.items():
        name = variable.removeprefix(PREFIX)
        if name == variable or variable == "APP_ENV":
            continue
        field = config_class.model_fields.get(name)
        if field is None:
            values[name] = text  # reported as unknown together with those of the file
        elif get_origin(field.annotation) is list:
            values[name] = [item.strip() for item in text.split(",") if item.strip()]
        else:
            try:
                values[name] = TypeAdapter[Any](field.rebuild_annotation()).validate_strings(text)
            except ValidationError as error:
                problems.append(f"{variable}: {error.errors(include_input=False)[0]['msg']}")
    return values


def _in_words(detail: Any) -> str:
    name = ".".join(map(str, detail["loc"]))
    reasons = {"missing": "is missing", "extra_forbidden": "is not a setting of this service"}
    reason = reasons.get(detail["type"], detail["msg"].removeprefix("Value error, "))
    return f"{name}: {reason}"
