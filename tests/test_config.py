"""Settings: the order of the layers, and one message for all invalid settings."""

import secrets
from pathlib import Path

import pytest

from app import create_app
from config import INSTANCE_FILE, ConfigurationError, load
from config.base import EXAMPLE_JWT_SECRET_KEY

SECRET = "".join(chr(ord("a") + number % 26) for number in range(40))
GOOD = {"APP_JWT_SECRET_KEY": SECRET, "APP_MONGO_URI": "mongodb://db/x"}


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    """Give the path of an instance file that does not exist yet."""
    return tmp_path / "application.cfg"


def problems(environ: dict[str, str], instance: Path) -> str:
    """Return the message of a configuration error."""
    with pytest.raises(ConfigurationError) as error:
        load(environ, instance)
    return str(error.value)


def test_later_configuration_layers_take_precedence(instance: Path) -> None:
    environ = {"APP_JWT_SECRET_KEY": SECRET}
    assert load(environ, instance).ACCESS_TOKEN_SECONDS == 900
    instance.write_text("ACCESS_TOKEN_SECONDS = 15 * 40\nMONGO_URI = 'mongodb://file/x'\n_private = 1\nlower = 2\n")
    assert load(environ, instance).ACCESS_TOKEN_SECONDS == 600
    both = {**environ, "APP_ACCESS_TOKEN_SECONDS": "300"}
    assert load(both, instance).ACCESS_TOKEN_SECONDS == 300
    assert load(both, instance).MONGO_URI == "mongodb://file/x"


@pytest.mark.parametrize(
    ("name", "debug", "testing", "min_length"),
    [("development", True, False, 8), ("testing", False, True, 8), ("production", False, False, 15)],
)
def test_each_environment_has_its_own_values(
    instance: Path, name: str, debug: bool, testing: bool, min_length: int
) -> None:
    config = load({**GOOD, "APP_ENV": name}, instance)
    assert (debug, testing, min_length) == (config.DEBUG, config.TESTING, config.PASSWORD_MIN_LENGTH)


def test_development_is_the_default_and_unknown_environments_are_rejected(instance: Path) -> None:
    assert load(GOOD, instance).DEBUG
    for name in ("prod", "Production", ""):
        message = problems({**GOOD, "APP_ENV": name}, instance)
        assert "APP_ENV" in message
        assert "development, testing, production" in message


def test_testing_does_not_use_the_development_database(instance: Path) -> None:
    assert load({"APP_JWT_SECRET_KEY": SECRET, "APP_ENV": "testing"}, instance).MONGO_URI.endswith("_test")


def test_environment_variables_are_converted_to_the_type_of_the_setting(instance: Path) -> None:
    environ = {
        **GOOD,
        "APP_PROXIES_COUNT": "2",
        "APP_MONGO_TIMEOUT_SECONDS": "1.5",
        "APP_JWT_PREVIOUS_SECRET_KEYS": f"{SECRET[::-1]}, {SECRET.upper()}",
    }
    config = load(environ, instance)
    assert (config.PROXIES_COUNT, config.MONGO_TIMEOUT_SECONDS) == (2, 1.5)
    assert [SECRET[::-1], SECRET.upper()] == config.JWT_PREVIOUS_SECRET_KEYS


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("APP_ACCESS_TOKEN_SECONDS", "soon"),
        ("APP_ACCESS_TOKEN_SECONDS", "0"),
        ("APP_ACCESS_TOKEN_SECONDS", "3601"),
        ("APP_REFRESH_TOKEN_SECONDS", "60"),
        ("APP_SESSION_SECONDS", "3600"),
        ("APP_REVOCATION_STALE_SECONDS", "1"),
        ("APP_REFRESH_GRACE_SECONDS", "-1"),
        ("APP_DEBUG", "perhaps"),
        ("APP_PROXIES_COUNT", "0"),
        ("APP_NO_SUCH_SETTING", "1"),
        ("APP_PASSWORD_MIN_LENGTH", "7"),
        ("APP_REVOCATION_STALE_SECONDS", "inf"),
        ("APP_MONGO_TIMEOUT_SECONDS", "nan"),
        ("APP_LOGIN_FAILURES_PER_PAIR", "many"),
        ("APP_LOGIN_FAILURES_PER_PAIR", "0/minute"),
        ("APP_LOGIN_FAILURES_PER_PAIR", "10/minute; 5/second"),
        ("APP_CORS_ORIGINS", "null"),
        ("APP_CORS_ORIGINS", "https://app.example.com/path"),
        ("APP_CORS_HEADERS", "authorization,content-type,*"),
        ("APP_CORS_HEADERS", "authorization,content-type,x trace"),
        ("APP_CORS_HEADERS", "authorization,content-type,x-trace:"),
        ("APP_CORS_HEADERS", "authorization"),
        ("APP_CORS_HEADERS", "x-trace"),
        ("APP_MONGO_URI", "http://db/x"),
        ("APP_MONGO_URI", "mongodb://%%%"),
        ("APP_MONGO_URI", "mongodb://user:p@ss@word@db/x"),
    ],
)
def test_an_invalid_value_is_reported(instance: Path, variable: str, value: str) -> None:
    assert variable.removeprefix("APP_") in problems({**GOOD, variable: value}, instance)


@pytest.mark.parametrize(
    "line",
    ["ACCESS_TOKEN_SECONDS = '900'", "DEBUG = 1", "JWT_PREVIOUS_SECRET_KEYS = 'text'", "MONGO_URI = None", "WHAT = 1"],
)
def test_a_wrong_type_in_the_instance_file_is_reported(instance: Path, line: str) -> None:
    instance.write_text(line)
    environ = {"APP_JWT_SECRET_KEY": SECRET}
    assert line.split()[0] in problems(environ, instance)


@pytest.mark.parametrize(("text", "error"), [("A = (", "SyntaxError"), ("1 / 0", "ZeroDivisionError")])
def test_an_instance_file_that_raises_an_error_is_reported(instance: Path, text: str, error: str) -> None:
    instance.write_text(text)
    message = problems(GOOD, instance)
    assert error in message
    assert str(instance) in message


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        (None, "is missing"),
        (SECRET[:31], "shorter than 32 bytes"),
        ("abcabcab" * 8, "not random"),
        (EXAMPLE_JWT_SECRET_KEY, "is the example"),
    ],
)
@pytest.mark.parametrize("name", ["development", "production"])
def test_a_weak_signing_key_is_rejected(instance: Path, name: str, secret: str | None, reason: str) -> None:
    environ = {"APP_ENV": name, "APP_MONGO_URI": "mongodb://db/x"}
    if secret:
        environ["APP_JWT_SECRET_KEY"] = secret
    message = problems(environ, instance)
    assert "JWT_SECRET_KEY" in message
    assert reason in message


@pytest.mark.parametrize("weak", [SECRET[:31], "abcabcab" * 8, EXAMPLE_JWT_SECRET_KEY])
def test_a_weak_previous_key_is_rejected(instance: Path, weak: str) -> None:
    """A previous key no longer signs, but the service accepts tokens that an attacker forges with it."""
    environ = {**GOOD, "APP_JWT_PREVIOUS_SECRET_KEYS": f"{SECRET[::-1]},{weak}"}
    assert "JWT_PREVIOUS_SECRET_KEYS" in problems(environ, instance)


def test_production_reports_all_invalid_settings_at_once(instance: Path) -> None:
    message = problems(
        {"APP_ENV": "production", "APP_DEBUG": "1", "APP_SESSION_SECONDS": "x", "APP_FOO": "1"}, instance
    )
    for name in ("JWT_SECRET_KEY", "MONGO_URI", "DEBUG", "SESSION_SECONDS", "FOO"):
        assert name in message


def test_messages_and_repr_contain_no_secret(instance: Path) -> None:
    config = load({**GOOD, "APP_MONGO_URI": "mongodb://user:hunter2@db/x", "APP_FORWARDED_SECRET": "hunter2"}, instance)
    assert "hunter2" not in repr(config)
    assert SECRET not in repr(config)
    weak = secrets.token_hex(8)
    assert weak not in problems({**GOOD, "APP_JWT_SECRET_KEY": weak}, instance)


def test_the_key_of_the_example_file_is_rejected() -> None:
    example = INSTANCE_FILE.with_name("application.cfg.example")
    assert f"JWT_SECRET_KEY = '{EXAMPLE_JWT_SECRET_KEY}'" in example.read_text()
    assert "is the example" in problems({}, example)


def test_startup_with_invalid_settings_exits_with_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_ENV", "staging")
    with pytest.raises(SystemExit) as exited:
        create_app()
    assert "development, testing, production" in str(exited.value.code)


def test_production_rejects_the_debug_option_of_the_command_line(instance: Path) -> None:
    with pytest.raises(ConfigurationError, match="DEBUG"):
        load({**GOOD, "APP_ENV": "production"}, instance, debug=True)
    assert load({**GOOD, "APP_ENV": "development"}, instance, debug=True).DEBUG


def test_settings_are_immutable(instance: Path) -> None:
    config = load(GOOD, instance)
    with pytest.raises(ValueError, match="frozen"):
        config.DEBUG = False  # type: ignore[misc]
