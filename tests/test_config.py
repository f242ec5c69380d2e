"""Settings: the order of the layers, and one message for all invalid settings."""

import base64
import hashlib
import os
import secrets
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest

from app import create_app
from config import INSTANCE_FILE, Config, ConfigurationError, load
from config.addresses import check_public_url
from config.environments import ENVIRONMENTS, ProductionConfig
from config.keys import EXAMPLE_JWT_SECRET_KEY

# As random as the service can tell, but the same in both processes of the suite, which compare the names of the tests.
SECRET = base64.urlsafe_b64encode(hashlib.sha384(b"first").digest()).decode()
OTHER_SECRET, PROXY_SECRET = hashlib.sha256(b"second").hexdigest(), hashlib.sha256(b"third").hexdigest()[:32]
GOOD = {"APP_JWT_SECRET_KEY": SECRET, "APP_MONGO_URI": "mongodb://db/x"}
PRODUCTION = {**GOOD, "APP_ENV": "production"}


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
        "APP_JWT_PREVIOUS_SECRET_KEYS": f"{SECRET[::-1]}, {OTHER_SECRET}",
    }
    config = load(environ, instance)
    assert (config.PROXIES_COUNT, config.MONGO_TIMEOUT_SECONDS) == (2, 1.5)
    assert [SECRET[::-1], OTHER_SECRET] == config.JWT_PREVIOUS_SECRET_KEYS


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
        ("APP_REAL_IP_HEADER", "X Real IP"),
        ("APP_REAL_IP_HEADER", "X-Real-IP:"),
        ("APP_ISSUER", "two words"),
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


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"A = (", ("line 1", "SyntaxError", "was never closed")),
        (b"1 / 0", ("line 1", "ZeroDivisionError")),
        (b"\n\nLOG_FORMAT=json\n", ("line 3", "NameError", "LOG_FORMAT: texts need quotes")),
        (b"LOGIN_FAILURES_PER_PAIR = 10/15minutes\n", ("line 1", "LOGIN_FAILURES_PER_PAIR: texts need quotes")),
        (b"DEBUG = true\n", ("line 1", "True and False")),
        (b"\nMONGO_URI=mongodb://db/x\n", ("line 2", "SyntaxError", "texts need quotes")),
        (b"ISSUER = my service\n", ("line 1", "texts need quotes")),
        (b"ISSUER = 'open\n", ("line 1", "unterminated string")),
        ("ISSUER = \u201cquoted\u201d\n".encode(), ("line 1", "SyntaxError")),
        ("ISSUER = 'x'\n".encode("utf-16"), ("UTF-16", "store it as UTF-8")),
        ("ISSUER = 'x'\n".encode("utf-16-le"), ("UTF-16",)),
        ("\n\n# Schl\u00fcssel\n".encode("latin-1"), ("line 3", "not UTF-8")),
        (b"ISSUER = 'a\\d'\n", ("line 1", "escape sequence")),
        (b"raise SystemExit(0)\n", ("line 1", "SystemExit")),
        (b"import no_such_module\n", ("line 1", "ModuleNotFoundError")),
    ],
)
def test_an_error_in_the_instance_file_is_reported_with_its_line(
    instance: Path, content: bytes, expected: tuple[str, ...]
) -> None:
    instance.write_bytes(content)
    message = problems(GOOD, instance)
    for part in (str(instance), *expected):
        assert part in message


@pytest.mark.parametrize(
    "content", ["JWT_SECRET_KEY={}", "JWT_SECRET_KEY = '{}", "MONGO_URI = {}://x", "'{}' = 1", "A = '\\d{}'", "{}"]
)
def test_an_error_in_the_instance_file_never_shows_the_line(
    instance: Path, content: str, capfd: pytest.CaptureFixture[str]
) -> None:
    instance.write_text(content.format("hunter2hunter2"))
    assert "hunter2" not in problems(GOOD, instance)
    assert capfd.readouterr() == ("", "")


def test_an_instance_file_that_cannot_be_read_is_reported(instance: Path) -> None:
    instance.mkdir()
    assert f"{instance}: cannot be read (Is a directory)" in problems(GOOD, instance)


def test_an_instance_file_may_have_a_byte_order_mark_and_windows_line_ends(instance: Path) -> None:
    instance.write_bytes(b"\xef\xbb\xbfACCESS_TOKEN_SECONDS = 600\r\nLOG_FORMAT = 'json'\r\n")
    config = load(GOOD, instance)
    assert (config.ACCESS_TOKEN_SECONDS, config.LOG_FORMAT) == (600, "json")


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        (None, "is missing"),
        (SECRET[:31], "shorter than 32 bytes"),
        ("abcabcab" * 8, "not random"),
        ("change-me-change-me-change-me-please", "not random"),
        ("12345678901234567890123456789012", "not random"),
        (f"{EXAMPLE_JWT_SECRET_KEY}!", "example"),
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


@pytest.mark.parametrize(
    "weak", [SECRET[:31], "abcabcab" * 8, EXAMPLE_JWT_SECRET_KEY, "change-me-change-me-change-me-please"]
)
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
    config = load(
        {**GOOD, "APP_MONGO_URI": "mongodb://user:hunter2@db/x", "APP_FORWARDED_SECRET": PROXY_SECRET}, instance
    )
    assert "hunter2" not in repr(config)
    assert SECRET not in repr(config)
    assert PROXY_SECRET not in repr(config)
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


# Invisible characters

ENCRYPTION_SECRET = hashlib.sha256(b"fourth").hexdigest()
INVISIBLE = [
    "\r",
    "\n",
    "\r\n",
    "\t",
    " ",
    "\u00a0",
    "\ufeff",
    "\u200b",
    "\u2028",
    "\u3000",
    "\u00ad",
    "\u2800",
    "\x00",
    "\x1b",
]
TEXTS = {
    "JWT_SECRET_KEY": SECRET,
    "JWT_ALGORITHM": "ES256",
    "ENCRYPTION_KEY": ENCRYPTION_SECRET,
    "ISSUER": "my-service",
    "MONGO_URI": "mongodb://user:word@db,db2/x?replicaSet=rs0",
    "LOGIN_FAILURES_PER_PAIR": "5/15minutes",
    "LOGIN_FAILURES_PER_ACCOUNT": "50/hour",
    "LOGIN_FAILURES_PER_ADDRESS": "50/hour",
    "LOGINS_PER_ACCOUNT": "20/minute",
    "REGISTRATIONS_PER_ADDRESS": "5/minute",
    "RESETS_PER_ADDRESS": "5/minute",
    "THROTTLE_STORAGE": "memory",
    "REQUIRE_SECOND_FACTOR": "admin",
    "SMTP_URL": "smtp://user:word@mail.example.com:587",
    "MAIL_FROM": "Acme <no-reply@acme.example>",
    "PUBLIC_URL": "https://api.example.com/v1",
    "ACCOUNT_URL": "https://www.example.com/account",
    "LOG_FORMAT": "json",
    "AUDIT_FILE": os.devnull,
    "METRICS_TOKEN": OTHER_SECRET,
    "REAL_IP_HEADER": "X-Real-IP",
    "FORWARDED_SECRET": PROXY_SECRET,
}
# What SMTP_URL and JWT_ALGORITHM need.
MAIL = {f"APP_{name}": str(TEXTS[name]) for name in ("MAIL_FROM", "PUBLIC_URL", "ENCRYPTION_KEY")}
LISTS = {
    "JWT_PREVIOUS_SECRET_KEYS": [SECRET[::-1], OTHER_SECRET],
    "ENCRYPTION_PREVIOUS_KEYS": [ENCRYPTION_SECRET[::-1]],
    "PREVIOUS_ISSUERS": ["first", "second"],
    "CORS_ORIGINS": ["https://a.example", "https://b.example"],
    "CORS_HEADERS": ["authorization", "content-type"],
}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("https://api.example.com:443/v1/", "https://api.example.com/v1"),
        ("http://localhost:80", "http://localhost"),
        ("https://api.example.com:80", "https://api.example.com:80"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
    ],
)
def test_a_public_url_is_an_origin_as_browsers_write_it(given: str, expected: str) -> None:
    assert check_public_url(given) == expected


def test_passkeys_need_a_domain_name(instance: Path) -> None:
    config = load({**GOOD, "APP_ENCRYPTION_KEY": OTHER_SECRET, "APP_PUBLIC_URL": "https://api.example.com"}, instance)
    assert config.passkeys_enabled
    for url in ("https://192.0.2.1", "https://[2001:db8::1]:8443", None):
        assert not config.model_copy(update={"PUBLIC_URL": url}).passkeys_enabled


def holds(annotation: Any, kinds: tuple[type, ...]) -> bool:
    """Return whether a type is one of these, or optionally one."""
    if get_origin(annotation) is Annotated:
        return holds(get_args(annotation)[0], kinds)
    if get_origin(annotation) in (Union, UnionType):
        return any(holds(one, kinds) for one in get_args(annotation))
    return annotation in kinds


def test_every_text_setting_is_in_the_table() -> None:
    numbers = {name for name, field in Config.model_fields.items() if holds(field.annotation, (int, float, bool))}
    assert numbers | set(TEXTS) | set(LISTS) == set(Config.model_fields)


@pytest.mark.parametrize("name", [*TEXTS, *LISTS])
def test_invisible_characters_at_the_ends_are_taken_off(instance: Path, name: str) -> None:
    """From variables, from files that variables name, and from the instance file."""
    value: Any = TEXTS.get(name) or LISTS[name]
    for character in INVISIBLE:

        def around(text: str, *, character: str = character) -> str:
            return f"{character}{text}{character}{character}"

        text = ",".join(map(around, value)) if isinstance(value, list) else around(value)
        variables = {**GOOD, **MAIL, f"APP_{name}": text}
        assert getattr(load(variables, instance), name) == value, f"U+{ord(character[0]):04X}"
        file = instance.with_name("secret")
        file.write_bytes(text.encode())
        variables = {**GOOD, **MAIL, f"APP_{name}": "", f"APP_{name}_FILE": f"{character}{file}{character}"}
        assert getattr(load(variables, instance), name) == value
        in_python = [*map(around, value)] if isinstance(value, list) else text
        instance.write_text(f"{name} = {in_python!r}\n")
        others = {variable: given for variable, given in {**GOOD, **MAIL}.items() if variable != f"APP_{name}"}
        assert getattr(load(others, instance), name) == value
        instance.unlink()


@pytest.mark.parametrize("name", [*TEXTS, *LISTS])
def test_invisible_characters_inside_are_rejected_by_name(instance: Path, name: str) -> None:
    value: Any = TEXTS.get(name) or LISTS[name]
    separators = ["\r", "\n", "\r\n"] if isinstance(value, list) else []  # of the items
    for character in set(INVISIBLE) - {" ", *separators}:
        text = value if isinstance(value, str) else value[0]
        broken = f"{text[:2]}{character}{text[2:]}"
        message = problems({**GOOD, f"APP_{name}": broken}, instance)
        assert f"APP_{name} (environment)" in message
        instance.write_text(f"{name} = {broken if isinstance(value, str) else [broken]!r}\n")
        others = {variable: given for variable, given in GOOD.items() if variable != f"APP_{name}"}
        assert f"{name} ({instance}, line 1)" in problems(others, instance)
        instance.unlink()


@pytest.mark.parametrize("number", ["\r", " 2", "2\r\n", "\t2\u00a0", "\ufeff2"])
def test_numbers_are_read_without_invisible_characters(instance: Path, number: str) -> None:
    assert load({**GOOD, "APP_PROXIES_COUNT": number}, instance).PROXIES_COUNT in (2, None)


def test_the_name_of_the_environment_is_read_without_invisible_characters(instance: Path) -> None:
    assert load({**GOOD, "APP_ENV": "production\r"}, instance).PASSWORD_MIN_LENGTH == 15


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://db/demo\r?replicaSet=rs0",
        "mongodb://db\r\n/demo",
        "mongodb://db/demo%0D",
        "mongodb://db/demo%C2%A0",
        "mongodb://db/%EF%BB%BFdemo",
        "mongodb://user:secret%0A@db/demo",
        "mongodb://user%20:secret@db/demo",
        "mongodb://db/demo?replicaSet=rs0%0D",
        "mongodb://db/demo?authSource=admin%20",
        "mongodb+srv://db.example.com/demo%0D",
        "mongodb+srv://user:secret%0D@db.example.com/demo?srvMaxHosts=2",
    ],
)
def test_invisible_characters_in_the_connection_string_are_rejected(instance: Path, uri: str) -> None:
    """Percent-encoded ones, too: they would name another database, user or password."""
    message = problems({**GOOD, "APP_MONGO_URI": uri}, instance)
    assert "APP_MONGO_URI (environment): contains an invisible character" in message
    assert "secret" not in message


@pytest.mark.parametrize("quote", ["'", '"'])
def test_quotation_marks_around_a_variable_are_rejected(instance: Path, quote: str) -> None:
    """Some readers of environment files keep them as a part of the value, others do not."""
    message = problems({**GOOD, "APP_JWT_SECRET_KEY": f"{quote}{SECRET}{quote}"}, instance)
    assert "APP_JWT_SECRET_KEY (environment): has quotation marks around its value" in message
    assert "is missing" not in message


def test_a_variable_that_is_not_utf_8_is_rejected(instance: Path) -> None:
    value = os.fsdecode(b"mongodb://db/x\xff")
    assert "APP_MONGO_URI (environment): is not valid UTF-8" in problems({**GOOD, "APP_MONGO_URI": value}, instance)


# Empty values

REQUIRED = {name for name, field in ProductionConfig.model_fields.items() if field.is_required()}


@pytest.mark.parametrize("empty", ["", " ", "\r\n", ",", "\ufeff"])
def test_an_empty_value_counts_as_not_set(instance: Path, empty: str) -> None:
    """For every optional setting, from a variable or the instance file; required ones are missing."""
    optional = {name: empty for name in ProductionConfig.model_fields if name not in REQUIRED}
    if empty == ",":
        optional = dict.fromkeys(LISTS, empty)
    variables = {f"APP_{name}": value for name, value in optional.items()}
    assert load({**PRODUCTION, **variables}, instance) == load(PRODUCTION, instance)
    optional.pop("CORS_HEADERS")  # an empty list of them is one without what every script sends
    instance.write_text("".join(f"{name} = {[''] if name in LISTS else empty!r}\n" for name in optional))
    if empty != ",":
        assert load(PRODUCTION, instance) == load(PRODUCTION, instance.with_name("none"))
    for name in REQUIRED:
        assert f"{name}: is missing" in problems({**PRODUCTION, f"APP_{name}": " "}, instance.with_name("none"))


def test_an_empty_variable_leaves_the_value_of_the_instance_file(instance: Path) -> None:
    instance.write_text("ACCESS_TOKEN_SECONDS = 600\n")
    assert load({**GOOD, "APP_ACCESS_TOKEN_SECONDS": ""}, instance).ACCESS_TOKEN_SECONDS == 600


# Bounds

NUMBERS = sorted(name for name, field in Config.model_fields.items() if holds(field.annotation, (int, float)))
RATES = sorted(name for name in Config.model_fields if "_PER_" in name)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["1e15", "1e300", "1000000000000000", "inf", "-inf", "nan", "-1", "1e-9"])
def test_every_number_has_bounds(instance: Path, name: str, value: str) -> None:
    zero_is_valid = {"REFRESH_GRACE_SECONDS", "DRAIN_SECONDS", "GRACEFUL_SHUTDOWN_TIMEOUT"}
    if value == "1e-9" and name in zero_is_valid:
        value = "-1e-9"
    for environment in ENVIRONMENTS:
        message = problems({**GOOD, "APP_ENV": environment, f"APP_{name}": value}, instance)
        assert f"APP_{name} (environment): " in message


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_out_of_bounds_is_reported_with_the_bounds_and_the_reason(instance: Path, name: str) -> None:
    instance.write_text(f"{name} = 10**15\n")
    message = problems(GOOD, instance)
    assert f"{name} ({instance}, line 1): must be from " in message
    _, bounds, reason = message.rsplit(": ", 2)
    assert " to " in bounds
    assert len(reason.split()) > 3


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("rate", ["1/100years", "10/2days", "1000000000/minute", f"{10**400}/hour"])
def test_every_rate_has_bounds(instance: Path, name: str, rate: str) -> None:
    assert f"APP_{name} (environment): " in problems({**GOOD, f"APP_{name}": rate}, instance)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("LOGIN_FAILURES_PER_ACCOUNT", "1000000/second", "NIST SP 800-63B-4"),
        ("LOGIN_FAILURES_PER_ACCOUNT", "101/hour", "NIST SP 800-63B-4"),
        ("LOGIN_FAILURES_PER_ACCOUNT", "100/minute", "NIST SP 800-63B-4"),
        ("LOGIN_FAILURES_PER_PAIR", "1000000/second", "NIST SP 800-63B-4"),
        ("LOGIN_FAILURES_PER_PAIR", "10/second", "NIST SP 800-63B-4"),
        ("LOGIN_FAILURES_PER_ADDRESS", "1000000/second", "no limit"),
        ("REGISTRATIONS_PER_ADDRESS", "1000000/second", "no limit"),
        ("PASSWORD_MIN_LENGTH", "14", "NIST SP 800-63B-4"),
        ("TESTING", "true", "False"),
        ("DEBUG", "true", "False"),
        ("CORS_ORIGINS", "*", "every page on the web"),
        ("CORS_ORIGINS", "https://app.example.com,*", "item 2"),
        ("CORS_ORIGINS", "http://app.example.com", "https://"),
        ("CORS_ORIGINS", "http://localhost.example.com", "https://"),
        ("MONGO_URI", "mongodb://db/x?tls=true&tlsInsecure=true", "tlsInsecure"),
        ("MONGO_URI", "mongodb://db/x?tls=true&TLSINSECURE=true", "tlsInsecure"),
        ("MONGO_URI", "mongodb://db/x?tls=true&tlsAllowInvalidCertificates=true", "tlsAllowInvalidCertificates"),
        ("MONGO_URI", "mongodb+srv://db.example.com/x?tlsAllowInvalidHostnames=true", "tlsAllowInvalidHostnames"),
        ("PROXIES_COUNT", "11", "choose their address"),
        ("REVOCATION_POLL_SECONDS", "6", "other workers"),
        ("REVOCATION_STALE_SECONDS", "61", "ended session"),
    ],
)
def test_production_rejects_settings_that_weaken_a_promise(instance: Path, name: str, value: str, reason: str) -> None:
    message = problems({**PRODUCTION, f"APP_{name}": value}, instance)
    assert f"APP_{name} (environment): " in message
    assert reason in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOGIN_FAILURES_PER_ACCOUNT", "50/30minutes"),
        ("LOGIN_FAILURES_PER_ACCOUNT", "100/day"),
        ("LOGIN_FAILURES_PER_PAIR", "5/minute"),
        ("LOGIN_FAILURES_PER_ADDRESS", "100000/minute"),
        ("REGISTRATIONS_PER_ADDRESS", "1000000/15minutes"),
        ("PASSWORD_MIN_LENGTH", "20"),
        ("TESTING", "false"),
        ("CORS_ORIGINS", "https://app.example.com,http://localhost:3000,http://127.0.0.1:8080"),
        ("MONGO_URI", "mongodb://api:word@db1,db2/x?replicaSet=rs0&tls=true&tlsInsecure=false"),
        ("MONGO_URI", "mongodb+srv://api:word@cluster.example.net/x?retryWrites=true&w=majority&appName=x"),
        ("PROXIES_COUNT", "3"),
        ("REVOCATION_POLL_SECONDS", "3"),
        ("DRAIN_SECONDS", "0"),
        ("REQUEST_MAX_SIZE", "1048576"),
        ("LOG_FORMAT", "text"),
        ("SESSION_SECONDS", "31536000"),
    ],
)
def test_production_accepts_usual_settings(instance: Path, name: str, value: str) -> None:
    load({**PRODUCTION, f"APP_{name}": value}, instance)


@pytest.mark.parametrize("environ", [GOOD, {"APP_MONGO_URI": "x", "APP_FOO": "1"}], ids=["alone", "with others"])
def test_conflicts_of_settings_are_reported_together_with_all_other_problems(
    instance: Path, environ: dict[str, str]
) -> None:
    conflicts = {
        "APP_REFRESH_TOKEN_SECONDS": "60",
        "APP_MONGO_TIMEOUT_SECONDS": "30",
        "APP_REVOCATION_STALE_SECONDS": "1.5",
        "APP_FORWARDED_SECRET": OTHER_SECRET,
        "APP_METRICS_TOKEN": OTHER_SECRET,
        "APP_JWT_SECRET_KEY": OTHER_SECRET,
    }
    message = problems(environ | conflicts, instance)
    for name in ("REFRESH_TOKEN_SECONDS", "MONGO_TIMEOUT_SECONDS", "REVOCATION_STALE_SECONDS"):
        assert f"  {name}: is " in message
    assert "FORWARDED_SECRET: is also a signing key" in message
    assert "METRICS_TOKEN: is also another secret" in message
    assert ("FOO" in message) == ("APP_FOO" in environ)


# Names

LINKS = {
    "APP_PORT": "tcp://10.96.0.12:8000",
    "APP_SERVICE_HOST": "10.96.0.12",
    "APP_SERVICE_PORT": "8000",
    "APP_SERVICE_PORT_HTTP": "8000",
    "APP_PORT_8000_TCP": "tcp://10.96.0.12:8000",
    "APP_PORT_8000_TCP_ADDR": "10.96.0.12",
    "APP_PORT_8000_TCP_PORT": "8000",
    "APP_PORT_8000_TCP_PROTO": "tcp",
    "APP_PORT_53_UDP": "udp://10.96.0.12:53",
    "APP_METRICS_PORT": "tcp://10.96.0.13:9090",
    "APP_METRICS_SERVICE_HOST": "10.96.0.13",
    "APP_METRICS_PORT_9090_TCP_ADDR": "10.96.0.13",
}


def test_service_links_of_the_platform_are_passed_over_with_one_warning(instance: Path) -> None:
    warnings: list[str] = []
    assert load({**GOOD, **LINKS}, instance, warn=warnings.append) == load(GOOD, instance)
    (warning,) = warnings
    assert "enableServiceLinks: false" in warning
    for variable in LINKS:
        assert variable in warning


@pytest.mark.parametrize("variable", ["APP_PORT", "APP_HOST", "APP_NAME", "APP_SERVICE", "APP_METRICS_PORT"])
def test_other_unknown_variables_are_rejected_by_their_names(instance: Path, variable: str) -> None:
    warnings: list[str] = []
    with pytest.raises(ConfigurationError) as error:
        load({**GOOD, **LINKS, variable: "8000"}, instance, warn=warnings.append)
    assert f"{variable} (environment): is not a setting of this service" in str(error.value)


def test_a_misspelled_setting_is_reported_with_the_one_that_is_probably_meant(instance: Path) -> None:
    assert "is APP_MONGO_URI meant?" in problems({**GOOD, "APP_MONGO_URL": "mongodb://db/x"}, instance)
    assert "is APP_LOG_FORMAT meant?" in problems({**GOOD, "APP_log_format": "json"}, instance)


def test_problems_name_the_source_of_the_value(instance: Path) -> None:
    instance.write_text("# comment\nWHAT = 1\n\nDEBUG = 'x'\nPREVIOUS_ISSUERS = ['a', 1]\n")
    message = problems({**GOOD, "APP_SESSION_SECONDS": "soon"}, instance)
    assert f"WHAT ({instance}, line 2): is not a setting of this service" in message
    assert f"DEBUG ({instance}, line 4): " in message
    assert f"PREVIOUS_ISSUERS ({instance}, line 5): item 2: " in message
    assert "APP_SESSION_SECONDS (environment): " in message


# Secrets in files


@pytest.mark.parametrize("name", sorted(ProductionConfig.model_fields))
def test_every_setting_can_be_given_as_a_file(instance: Path, tmp_path: Path, name: str) -> None:
    value = TEXTS.get(name) or LISTS.get(name) or getattr(load(PRODUCTION, instance), name)
    file = tmp_path / "value"
    file.write_text("\n".join(value) if isinstance(value, list) else f"{'' if value is None else value}\r\n")
    if not file.read_text().strip():
        file.write_text("2\n")
        value = 2
    variables = {variable: given for variable, given in {**PRODUCTION, **MAIL}.items() if variable != f"APP_{name}"}
    config = load({**variables, f"APP_{name}_FILE": str(file)}, instance)
    assert getattr(config, name) == value


def test_a_setting_given_twice_is_rejected_by_name(instance: Path, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(SECRET)
    message = problems({**GOOD, "APP_JWT_SECRET_KEY_FILE": str(file)}, instance)
    assert "APP_JWT_SECRET_KEY_FILE (environment): is set together with APP_JWT_SECRET_KEY" in message
    assert load({**GOOD, "APP_JWT_SECRET_KEY": " ", "APP_JWT_SECRET_KEY_FILE": str(file)}, instance)
    assert load({**GOOD, "APP_JWT_SECRET_KEY_FILE": ""}, instance)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("loop", "cannot be read (Too many levels of symbolic links)"),
        ("folder", "is not a file"),
        ("pipe", "is not a file"),
        (b"", "is empty"),
        (b"\xef\xbb\xbf\r\n", "is empty"),
        (b"hunter2" * 20_000, "more than 65536 bytes"),
        ("hunter2".encode("utf-16"), "is not UTF-8"),
        (b"hunter2\xff", "is not UTF-8"),
        (b"hunter2\0hunter2", "invisible character"),
        (b"hunter2\nhunter2", "invisible character"),
        (b"hunter2", "not random"),
    ],
    ids=["missing", "loop", "folder", "pipe", "empty", "mark", "huge", "utf-16", "latin-1", "nul", "two lines", "weak"],
)
def test_a_file_that_cannot_be_used_is_one_line_without_its_content(
    instance: Path, tmp_path: Path, content: bytes | str | None, reason: str
) -> None:
    file = tmp_path / "hunter2"
    if content == "loop":
        file.symlink_to(file)
    elif content == "folder":
        file.mkdir()
    elif content == "pipe":
        os.mkfifo(file)
    elif isinstance(content, bytes):
        file.write_bytes(content)
    message = problems({"APP_JWT_SECRET_KEY_FILE": str(file)}, instance)
    (_, line) = message.splitlines()
    assert line.startswith("  APP_JWT_SECRET_KEY_FILE (environment): ")
    assert reason in line
    assert "hunter2" not in message, "neither the content nor the path, which may be the secret by mistake"


@pytest.mark.parametrize("option", ["tlsCAFile", "tlsCertificateKeyFile", "tlsCRLFile"])
def test_a_file_of_the_connection_string_that_cannot_be_used_is_named(
    instance: Path, tmp_path: Path, option: str
) -> None:
    uri = "mongodb+srv://db.example.com/x?{}={}"
    message = problems({**GOOD, "APP_MONGO_URI": uri.format(option, "/no/such.pem")}, instance)
    assert f"APP_MONGO_URI (environment): {option} names a file that cannot be read (No such file" in message
    (tmp_path / "wrong.pem").write_text("not a certificate\n")
    message = problems({**GOOD, "APP_MONGO_URI": uri.format(option, tmp_path / "wrong.pem")}, instance)
    assert f"APP_MONGO_URI (environment): {option} names a file that does not contain" in message


# Mail


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"APP_MAIL_FROM": ""}, "MAIL_FROM: is missing: with SMTP_URL"),
        ({"APP_PUBLIC_URL": ""}, "PUBLIC_URL: is missing: with SMTP_URL"),
        ({"APP_PAGES": "false"}, "ACCOUNT_URL: is missing: with SMTP_URL and without PAGES"),
        ({"APP_SMTP_URL": "mail.example.com"}, "is not a URL such as smtp://"),
        ({"APP_SMTP_URL": "http://mail.example.com"}, "is not a URL such as smtp://"),
        ({"APP_SMTP_URL": "smtp://user@mail.example.com"}, "must have a user name and a password, or neither"),
        ({"APP_SMTP_URL": "smtp://mail.example.com:99999"}, "is not a URL such as smtp://"),
        ({"APP_SMTP_URL": "smtp://127.0.0.1:1025"}, "must be a server with TLS in production"),
        ({"APP_MAIL_FROM": "nobody"}, "is not a sender such as"),
        ({"APP_MAIL_FROM": "a@b.example\r\nBcc: c@d.example"}, "contains an invisible character"),
        ({"APP_PUBLIC_URL": "http://api.example.com"}, "must begin with https:// in production"),
        ({"APP_PUBLIC_URL": "https://user@api.example.com"}, "is not a URL such as https://"),
        ({"APP_PUBLIC_URL": "https://api.example.com/?x=1"}, "is not a URL such as https://"),
        ({"APP_PUBLIC_URL": "javascript:alert(1)"}, "is not a URL such as https://"),
    ],
)
def test_mail_needs_settings_that_fit_together(instance: Path, changes: dict[str, str], reason: str) -> None:
    variables = {**PRODUCTION, **MAIL, "APP_SMTP_URL": "smtps://user:word@mail.example.com"}
    assert load(variables, instance).SMTP_URL
    assert reason in problems({**variables, **changes}, instance)
