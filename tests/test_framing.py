"""The framing of requests is strict: what parsers read differently is rejected (request smuggling, RFC 9112)."""

import asyncio
import re
import time

import pytest

from app.server import framing
from app.server.framing import CHUNK_LINE_BYTES, CHUNKS, HEAD
from tests.conftest import Service
from tests.processes import TIMEOUT_SECONDS
from tests.test_errors import raw

TARGETS_WITHOUT_PATH = [
    "http://x",
    "http://x?a",
    "http://x#a",
    "HTTP://x",
    "https://x:8000",
    "http://x:8000?a=/",
    "http://[::1]",
    "http://[::1",
    "http://",
    "http:///tests/hello",
    "http:/tests/hello",
    "http:tests/hello",
    "ftp://x",
    "ftp://x/tests/hello",
    "file:///tests/hello",
    "urn:x",
    "http://user@x/tests/hello",
    "http://user:password@x/tests/hello",
    "http://x y/tests/hello",
    "http://x:port/tests/hello",
    "http://x:99999/tests/hello",
    "*",
    "x:80",
    "x",
    "tests/hello",
    "",
    "?",
    "?a",
    "#",
    "#/tests/hello",
    "\\tests\\hello",
    "/tests/hello#",
    "/tests/hello?a#b",
    "/tests/hello\x7f",
    "/tests/\x00hello",
    "/tests/h\u00e9llo",
]


def statuses(response: bytes) -> list[int]:
    """Return the statuses of pipelined responses."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", response)]


def request(line: str, *fields: str, body: bytes = b"") -> bytes:
    """Return a request with one Host field, these fields and this body."""
    return "\r\n".join([line, "Host: x", *fields, "", ""]).encode("latin-1") + body


HELLO = request("GET /tests/hello HTTP/1.1")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "CONNECT"])
@pytest.mark.parametrize("target", TARGETS_WITHOUT_PATH, ids=repr)
def test_a_target_without_a_path_is_rejected(
    service: Service, caplog: pytest.LogCaptureFixture, method: str, target: str
) -> None:
    """It is 400, without a traceback, and the connection is closed."""
    response = raw(service, request(f"{method} {target} HTTP/1.1") + HELLO)
    assert statuses(response) == [400]
    assert b"connection: close" in response
    assert (method == "HEAD") != (b'"code":"bad_request"' in response)
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("target", ["http://x/tests/hello", "HTTPS://x:8000/tests/hello?a", "http://[::1]/tests/hello"])
def test_the_absolute_form_with_a_path_is_served(service: Service, target: str) -> None:
    """RFC 9112 section 3.2.2."""
    assert statuses(raw(service, request(f"GET {target} HTTP/1.1") + HELLO)) == [200, 200]


def test_the_asterisk_form_is_served_for_options_only(service: Service) -> None:
    """RFC 9112 section 3.2.4."""
    assert statuses(raw(service, request("OPTIONS * HTTP/1.1") + HELLO)) == [204, 200]


@pytest.mark.parametrize(
    "line",
    [
        "GET /tests/hello",
        "GET /tests/hello HTTP/1.1 ",
        "GET  /tests/hello HTTP/1.1",
        "GET /tests/hello  HTTP/1.1",
        " GET /tests/hello HTTP/1.1",
        "GET\t/tests/hello HTTP/1.1",
        "GE\tT /tests/hello HTTP/1.1",
        "G(T /tests/hello HTTP/1.1",
        "GET\x1b[31m /tests/hello HTTP/1.1",
        "G\u00c9T /tests/hello HTTP/1.1",
        " /tests/hello HTTP/1.1",
        "GET /tests/hello HTTP/0.9",
        "GET /tests/hello HTTP/1.2",
        "GET /tests/hello HTTP/2.0",
        "GET /tests/hello http/1.1",
        "GET /tests/hello HTTP/1.10",
        "GET /tests/hello HTTPS/1.1",
        "GET /tests/hello HTTP/1.\u00b9",
        "",
    ],
    ids=repr,
)
def test_a_malformed_request_line_is_rejected(service: Service, line: str) -> None:
    assert statuses(raw(service, request(line) + HELLO)) == [400]


@pytest.mark.parametrize(
    "fields",
    [
        "",
        "Host:\r\n",
        "Host: \t\r\n",
        "Host: x\r\nHost: x\r\n",
        "Host: x\r\nHOST: y\r\n",
        "Host: x\r\nX: y\r\nhost: y\r\n",
        "Host: x y\r\n",
        "Host: x,y\r\n",
        "Host: x/y\r\n",
        "Host: x?y\r\n",
        "Host: x#y\r\n",
        "Host: x@y\r\n",
        "Host: x:y\r\n",
        "Host: x:1:2\r\n",
        "Host: http://x\r\n",
        "Host: [::1\r\n",
        "Host: ::1\r\n",
        "Host: [x]\r\n",
        'Host: "x"\r\n',
        "Host: <x>\r\n",
        "Host: x\\y\r\n",
        "Host: h\u00e9\r\n",
        "Host : x\r\n",
        " Host: x\r\n",
        "Host_: x\r\n",
    ],
    ids=repr,
)
def test_there_is_exactly_one_valid_host(service: Service, fields: str) -> None:
    """RFC 9112 section 3.2."""
    assert statuses(raw(service, f"GET /tests/hello HTTP/1.1\r\n{fields}\r\n".encode("latin-1") + HELLO)) == [400]


@pytest.mark.parametrize(
    "host", ["x", "EXAMPLE.com.", "my_service:8000", "127.0.0.1:80", "[::1]:8000", "x:", "xn--bcher-kva.example"]
)
def test_every_form_of_a_host_is_accepted(service: Service, host: str) -> None:
    assert statuses(raw(service, f"GET /tests/hello HTTP/1.1\r\nhost:\t{host} \r\n\r\n".encode() + HELLO)) == [200, 200]


def test_http_1_0_needs_no_host_but_not_two(service: Service) -> None:
    """A check of a load balancer may be HTTP/1.0."""
    line = b"GET /health/live HTTP/1.0\r\n"
    assert statuses(raw(service, line + b"\r\n")) == [200]
    assert statuses(raw(service, line + b"Host: x\r\n\r\n")) == [200]
    assert statuses(raw(service, line + b"Host: x\r\nHost: x\r\n\r\n")) == [400]


@pytest.mark.parametrize(
    "length",
    [
        *("\u0663", "\uff13", "\u00b3", "\U0001d7d1"),  # digits of other scripts, which int() reads
        *("+3", "-3", "3_0", "0x3", "3.0", "3e0", "3,", "3, 3", "3;", '"3"', "3 3", "three", "", " "),
        *("\x0b3", "\x0c3", "3\x00", "\u00a03", "\u20033", "3\u2003"),  # what strip() removes
        *("0" * 10 + "3", "9" * 11, "9" * 5000),
    ],
    ids=repr,
)
def test_a_content_length_is_one_to_ten_ascii_digits(service: Service, length: str) -> None:
    """RFC 9112 section 6.2."""
    head = f"POST /auth HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()
    assert statuses(raw(service, head + b"{} " + HELLO)) == [400]


@pytest.mark.parametrize("length", ["3", " 3", "\t3 \t", "03", "0000000003"])
def test_spaces_around_a_content_length_and_leading_zeros_are_accepted(service: Service, length: str) -> None:
    head = f"POST /auth HTTP/1.1\r\nHost: x\r\nContent-Length:{length}\r\n\r\n".encode()
    assert statuses(raw(service, head + b"{} " + HELLO)) == [415, 200]


@pytest.mark.parametrize(
    "coding",
    [
        *("xchunked", "chunked, chunked", "gzip, chunked", "chunked, identity", "identity", "", "chunked;q=1"),
        *('"chunked"', "chun ked", "chunked ,", ",chunked", "\x0bchunked", "\u00a0chunked", "\u2003chunked"),
    ],
    ids=repr,
)
def test_the_only_transfer_coding_is_chunked(service: Service, coding: str) -> None:
    """RFC 9112 section 6.1."""
    head = f"POST /auth HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {coding}\r\n\r\n".encode()
    assert statuses(raw(service, head + b"0\r\n\r\n" + HELLO)) == [400]


@pytest.mark.parametrize(
    "fields",
    [
        ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 5"],
        ["Content-Length: 5", "transfer-encoding: chunked"],
        ["Content-Length: 5", "Content-Length: 5"],
        ["Content-Length: 5", "content-length: 6"],
    ],
    ids=repr,
)
def test_a_request_has_one_length(service: Service, fields: list[str]) -> None:
    """RFC 9112 section 6.3."""
    assert statuses(raw(service, request("POST /auth HTTP/1.1", *fields, body=b"0\r\n\r\n") + HELLO)) == [400]


def test_http_1_0_has_no_chunks(service: Service) -> None:
    """RFC 9112 section 6.1: a proxy of that version would forward them as another request."""
    chunked = request("POST /auth HTTP/1.0", "Transfer-Encoding: chunked", "Connection: keep-alive", body=b"0\r\n\r\n")
    assert statuses(raw(service, chunked + HELLO)) == [400]


@pytest.mark.parametrize(
    "field",
    [
        "X\u00c9: y",
        "X y: z",
        "X\t: y",
        "X : y",
        ": y",
        "X",
        "X(: y",
        'X": y',
        "X: y\r\n\tz",
        "X: y\rz",
        "X: y\nz",
        "X: y\x00",
        "X: y\x1b[31m",
        "X: y\x7f",
        "X: y\x0b",
        "\tX: y",
    ],
    ids=repr,
)
def test_a_malformed_field_is_rejected(service: Service, field: str) -> None:
    """RFC 9112 section 5."""
    assert statuses(raw(service, request("GET /tests/hello HTTP/1.1", field) + HELLO)) == [400]


@pytest.mark.parametrize(
    "field", ["X:", "X: ", "X:y", "X: \u00e9\u00ff", "X:\ty\tz\t", "!#$%&'*+.^_`|~-: (y)"], ids=repr
)
def test_every_form_of_a_field_is_accepted(service: Service, field: str) -> None:
    assert statuses(raw(service, request("GET /tests/hello HTTP/1.1", field) + HELLO)) == [200, 200]


def chunked(size_line: str, data: str = "{}") -> bytes:
    """Return a request with one chunk, with this line before it."""
    body = f"{size_line}\r\n{data}\r\n0\r\n\r\n".encode()
    return request("POST /auth HTTP/1.1", "Content-Type: application/json", "Transfer-Encoding: chunked", body=body)


@pytest.mark.parametrize(
    "size_line",
    [
        *("0x2", "0X2", " 2", "2 ", "\t2", "2\t", "+2", "-2", "0_2", "\u0662", "\uff12", "", " ", "2,", "2h", "\r\n2"),
        *("2;\n{}", "2;\r{}", "2;a=\x00", "2;a\x0b", "2;\x7f", "2;\x1b[31m", "2;\u00e9", "2\n", "2\r", "\n2", "2 ;a"),
        *("000000002", "fffffffff", "2;" + CHUNK_LINE_BYTES * "a"),
    ],
    ids=repr,
)
def test_a_malformed_chunk_size_is_rejected(service: Service, size_line: str) -> None:
    """RFC 9112 section 7.1; a line feed in an extension is known as TERM.EXT."""
    assert statuses(raw(service, chunked(size_line) + HELLO)) == [400]


@pytest.mark.parametrize("size_line", ["2", "02", "00000002", "2;a", "2;a=b", '2;a="b c";\td', "2;"])
def test_every_form_of_a_chunk_size_is_accepted(service: Service, size_line: str) -> None:
    assert statuses(raw(service, chunked(size_line) + HELLO)) == [422, 200]


def test_hexadecimal_chunk_sizes_have_letters_of_both_cases(service: Service) -> None:
    for size in ("1a", "1A"):
        assert statuses(raw(service, chunked(size, "{" + 24 * " " + "}") + HELLO)) == [422, 200]


def test_a_body_has_a_limited_number_of_chunks(service: Service) -> None:
    """Chunks of a byte would occupy a worker for longer than their bytes (denial of service)."""
    fields = "Content-Type: application/json", "Transfer-Encoding: chunked"

    def blank(chunks: int) -> bytes:
        return request("POST /auth HTTP/1.1", *fields, body=b"1\r\n \r\n" * chunks + b"0\r\n\r\n")

    last = request("GET /tests/hello HTTP/1.1", "Connection: close")
    within = raw(service, blank(CHUNKS - 1) + blank(CHUNKS - 1) + last, half_close=False)
    assert (statuses(within), within.count(b"malformed_json")) == ([400, 400, 200], 2)
    beyond = raw(service, blank(CHUNKS) + HELLO, half_close=False)
    assert (statuses(beyond), beyond.count(b"bad_request")) == ([400], 1)


@pytest.mark.parametrize("trailer", ["X: y\r\n", "Content-Length: 3\r\n", "\n", " \r\n"], ids=repr)
def test_trailers_are_rejected(service: Service, trailer: str) -> None:
    """RFC 9112 section 7.1.2 lets a server discard them; a parser that does not would see another request."""
    fields = "Content-Type: application/json", "Transfer-Encoding: chunked"
    body = f"2\r\n{{}}\r\n0\r\n{trailer}\r\n".encode()
    assert statuses(raw(service, request("POST /auth HTTP/1.1", *fields, body=body) + HELLO)) == [400]


@pytest.mark.parametrize("coding", ["Transfer-Encoding: chunked", "Content-Length: 12"])
def test_a_client_that_expects_100_continue_receives_it_before_it_sends_the_body(service: Service, coding: str) -> None:
    head = request("POST /auth HTTP/1.1", "Expect: 100-continue", "Content-Type: application/json", coding)
    assert service.run(continued(service, head)) == [100, 422]


async def continued(service: Service, head: bytes) -> list[int]:
    """Send a head, wait for 100, send the body, and return the statuses."""
    reader, writer = await asyncio.open_connection(*service.address)
    writer.write(head)
    first = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), TIMEOUT_SECONDS)
    writer.write(b"2\r\n{}\r\n0\r\n\r\n" if b"chunked" in head else b"{}          ")
    second = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), TIMEOUT_SECONDS)
    writer.close()
    await writer.wait_closed()
    return statuses(first + second)


@pytest.mark.parametrize("method", ["head", "Head", "HEAd"])
def test_head_is_case_sensitive(service: Service, method: str) -> None:
    """A proxy waits for a body that a response to HEAD does not have (RFC 9110 section 9.1)."""
    response = raw(service, request(f"{method} /tests/hello HTTP/1.1") + HELLO)
    assert statuses(response) == [400]
    assert b'"code":"bad_request"' in response


@pytest.mark.parametrize("method", ["get", "heads", "HEADER", "BREW"])
def test_unknown_methods_are_405(service: Service, method: str) -> None:
    response = raw(service, request(f"{method} /tests/hello HTTP/1.1") + HELLO)
    assert statuses(response) == [405, 200]
    assert b'"code":"method_not_allowed"' in response


def test_a_request_for_a_websocket_is_answered_as_any_other(service: Service) -> None:
    fields = "Upgrade: websocket", "Connection: Upgrade"
    assert statuses(raw(service, request("GET /tests/hello HTTP/1.1", *fields))) == [200]


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize("path", ["", "/users", "/tests/hello", "/auth/sessions", "/users/" + 24 * "0", "/nowhere"])
def test_many_trailing_slashes_occupy_no_worker(
    service: Service, caplog: pytest.LogCaptureFixture, method: str, path: str
) -> None:
    """Sanic's router would recurse for each of them, and log the recursion (denial of service)."""
    for slashes in (2, 5000):
        began = time.process_time()
        assert statuses(raw(service, request(f"{method} {path}{slashes * '/'} HTTP/1.1"))) == [404]
        assert time.process_time() - began < 1, "with the recursion it takes ten seconds"
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        (b"GET http://x HTTP/1.1\r\nExpect: y\r\n", b"Content-Length: 1\r\n\r\n"),
        (b"POST /auth HTTP/1.1\r\nHost: x\r\nExpect: y\r\n", b"Content-Length: 1\r\n\r\n"),
        (b"GET /tests/hello HTTP/1.1\r\nHost: x\r\nX: y\0\r\n", b"\r\n"),
        (b"GET /tests/hello HTTP/1.1\r\n", b"X: " + b"y" * 20_000 + b"\r\n\r\n"),
    ],
    ids=["target", "expectation", "field", "length"],
)
def test_a_rejected_head_is_answered_with_its_request_id(service: Service, first: bytes, rest: bytes) -> None:
    response = raw(service, first + b"X-Request-ID: trace-me\r\n" + rest)
    assert statuses(response) in ([400], [413], [417])
    assert b"x-request-id: trace-me\r\n" in response


def test_the_grammar_takes_linear_time() -> None:
    """No head makes the pattern backtrack (ReDoS)."""
    for hostile in (b"x" * 8000, b"GET /" + b"a" * 8000, b"GET / HTTP/1.1" + b"\r\nx:" * 2600 + b"\n"):
        began = time.process_time()
        for _ in range(100):
            assert not HEAD.fullmatch(hostile)
        assert time.process_time() - began < 1


def test_no_group_is_repeated_possessively() -> None:
    """Python 3.11.2, of Debian 12, never matches such a group, so the service would reject every request."""
    for pattern in (framing.HEAD, framing.CHUNK_LINE, framing.KNOWN_FIELDS):
        assert not re.search(rb"\)[*+?]\+", pattern.pattern)
