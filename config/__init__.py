"""Load the settings: base class, environment's class, instance file, environment variables."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from config import texts, variables
from config.base import Config
from config.environments import ENVIRONMENTS, ProductionConfig
from config.instance_file import Given, InstanceFileError
from config.instance_file import read as read_instance_file
from config.rules import conflicts

__all__ = ["Config", "ConfigurationError", "load"]

INSTANCE_FILE = Path(__file__).parent.parent / "instance" / "application.cfg"
REASONS = {"missing": "is missing", "extra_forbidden": "is not a setting of this service"}


class ConfigurationError(ValueError):
    """The settings do not allow a start.

    The message lists every problem, and no value.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__(
            "The service cannot start with these settings:\n" + "\n".join(f"  {line}" for line in problems)
        )


def load(
    environ: Mapping[str, str] = os.environ,
    instance_file: Path = INSTANCE_FILE,
    *,
    debug: bool = False,
    warn: Callable[[str], object] = lambda _: None,
) -> Config:
    """Read all layers; later ones win.

    `debug` comes from the command line, and `warn` is called with what is passed over. Raises ConfigurationError.
    """
    config_class = _environment(environ)
    problems: list[str] = []
    layers: dict[str, Given] = {}
    try:
        layers = _without_empty(read_instance_file(instance_file))
    except InstanceFileError as error:
        problems.append(f"{error}; none of its settings was read")
    given, refused = variables.read(environ, config_class, warn)
    layers |= given
    problems += refused.values()
    try:
        config = config_class.model_validate({name: given.value for name, given in layers.items()}, strict=True)
    except ValidationError as error:
        problems += _in_words(error, config_class, layers, refused)
    if debug and config_class is ProductionConfig:
        problems.append("DEBUG: cannot be switched on in production, neither by --debug nor by --dev")
    if problems:
        raise ConfigurationError(problems)
    return config


def _environment(environ: Mapping[str, str]) -> type[Config]:
    """Return the class of the environment. Raises ConfigurationError."""
    chosen = texts.strip(environ.get(variables.ENVIRONMENT, "development"))
    if chosen not in ENVIRONMENTS:
        valid = ", ".join(ENVIRONMENTS)
        raise ConfigurationError([f"{variables.ENVIRONMENT} is {chosen!a}, but must be one of: {valid}"])
    return ENVIRONMENTS[chosen]


def _without_empty(layer: dict[str, Given]) -> dict[str, Given]:
    """Return the settings that have a value: an empty text counts as not set, in every layer."""
    return {
        name: given for name, given in layer.items() if not isinstance(given.value, str) or texts.strip(given.value)
    }


def _in_words(
    error: ValidationError, config_class: type[Config], layers: Mapping[str, Given], refused: Mapping[str, str]
) -> list[str]:
    """Return what pydantic has found, with the source of each value, and the conflicts between valid settings."""
    details = [detail for detail in error.errors(include_input=False, include_url=False) if detail["loc"]]
    problems = [_problem(detail, layers) for detail in details if detail["loc"][0] not in refused]
    values = {name: field.default for name, field in config_class.model_fields.items() if not field.is_required()}
    values |= {name: given.value for name, given in layers.items()}
    invalid = {detail["loc"][0] for detail in details} | set(refused)
    return problems + conflicts({name: value for name, value in values.items() if name not in invalid})


def _problem(detail: Any, layers: Mapping[str, Given]) -> str:
    name, *inside = map(str, detail["loc"])
    source = layers[name].source if name in layers else name
    reason = REASONS.get(detail["type"], detail["msg"].removeprefix("Value error, "))
    return ": ".join([source, *(f"item {int(place) + 1}" for place in inside if place.isdigit()), reason])
