"""The instance file: settings of one machine in Python syntax, and what is wrong with it, by line."""

import ast
import re
import traceback
import warnings
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

QUOTES = "texts need quotes, such as LOG_FORMAT = 'json', and yes and no are True and False"
UNQUOTED = re.compile(r"\s*([A-Z_]+)\s*=\s*[\w/]")  # a name, and a value that begins like a text without quotes


class Given(NamedTuple):
    """A value, and where it comes from, for messages."""

    value: Any
    source: str


class InstanceFileError(ValueError):
    """The file cannot be read.

    The message contains no value of a setting.
    """


def read(path: Path) -> dict[str, Given]:
    """Run the file as Python, as Flask's from_pyfile does, and return its upper-case names.

    Raises InstanceFileError.
    """
    if not path.exists():
        return {}
    text = _text(path)
    names = _run(_compile(text, path), text, path)
    lines = _lines(text)
    return {
        name: Given(value, f"{name} ({path}, line {lines[name]})" if name in lines else f"{name} ({path})")
        for name, value in names.items()
        if name.isupper()
    }


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InstanceFileError(f"{path}: cannot be read ({error.strerror})") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content:
        raise InstanceFileError(f"{path}: is not UTF-8, but seems to be UTF-16: store it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InstanceFileError(f"{path}: line {line}: is not UTF-8: store the file as UTF-8") from None


def _compile(text: str, path: Path) -> CodeType:
    try:
        with warnings.catch_warnings(action="error"):  # a warning of an escape sequence would show the line
            return compile(text, path, "exec")
    except SyntaxError as error:
        reason = _unquoted(text, error.lineno) or error.msg
        raise InstanceFileError(f"{path}: line {error.lineno}: SyntaxError: {reason}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise InstanceFileError(f"{path}: {type(error).__name__}: cannot be read as Python") from None


def _run(code: CodeType, text: str, path: Path) -> dict[str, Any]:
    names: dict[str, Any] = {}
    try:
        exec(code, names)  # noqa: S102 - the machine's administrator wrote it
    except (Exception, SystemExit) as error:
        frames = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = frames[-1] if frames else None
        reason = _unquoted(text, line) if isinstance(error, NameError) else None
        kind = type(error).__name__
        raise InstanceFileError(f"{path}: line {line}: {kind}{f': {reason}' if reason else ''}") from None
    return names


def _unquoted(text: str, number: int | None) -> str | None:
    """Return the advice for a line that assigns what looks like a text without quotes, or None."""
    lines = text.splitlines()
    assignment = UNQUOTED.match(lines[number - 1]) if number is not None and number <= len(lines) else None
    return f"{assignment[1]}: {QUOTES}" if assignment else None


def _lines(text: str) -> dict[str, int]:
    """Return the line of the last assignment to each name at the top level."""
    return {
        target.id: statement.lineno
        for statement in ast.parse(text).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
