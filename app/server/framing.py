"""The grammar of request heads and chunk sizes: positive, so that no parser reads an accepted request differently.

It is RFC 9112 without what parsers disagree on (request smuggling): spaces before a colon (section 5.1), obs-fold
(5.2), bare CR, LF, NUL and other control characters (2.2, and RFC 9110 section 5.5), fragments and user information in
the target (3.2, and RFC 9110 section 4.2.4), other transfer codings than `chunked` (6.1), and control characters in
chunk extensions (7.1.1). Sanic checks that Content-Length and Transfer-Encoding occur once, and not both (6.3).
"""

import re

LINE_BREAK = b"\r\n"
HEAD_END = b"\r\n\r\n"
CHUNK_LINE_BYTES = 64  # of a chunk's size with its extension (RFC 9112 section 7.1.1 asks for a limit)
CHUNKS = 1000  # of a body; many chunks of a byte would occupy a worker for longer than their bytes

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"  # RFC 9110 section 5.6.2
OWS = rb"[ \t]*+"  # RFC 9110 section 5.6.3
VALUE = rb"[\t -~\x80-\xff]*+"  # RFC 9110 section 5.5
# RFC 9110 section 7.2: a name or an address, not empty, without the signs that no host has but RFC 3986 allows.
AUTHORITY = rb"(?:[0-9A-Za-z._-]++|\[[0-9A-Fa-f:.]++\])(?::[0-9]{0,5})?"
# RFC 9112 section 3.2: origin form, absolute form with a path, or asterisk form. No `#`, which clients do not send.
TARGET = rb"(?:(?i:https?)://" + AUTHORITY + rb")?/[!\"$-~]*+"
# Methods are case-sensitive (RFC 9110 section 9.1), but Sanic sends no body to a "head".
METHOD = rb"(?:HEAD|(?!(?i:head) )" + TOKEN + rb")"
REQUEST = rb"(?:" + METHOD + rb" " + TARGET + rb"|OPTIONS \*) HTTP/1\."

LENGTH = rb"(?i:content-length):" + OWS + rb"[0-9]{1,10}" + OWS
CODING = rb"(?i:transfer-encoding):" + OWS + rb"chunked"
OTHER = rb"(?!(?i:host|content-length|transfer-encoding):)" + TOKEN + rb":" + VALUE
HOST = rb"\r\n(?i:host):" + OWS + AUTHORITY + OWS
# Not possessive: Python 3.11.2, of Debian 12, never matches a repeated possessive group. A line matches in one way
# only, so a head that does not match takes linear time all the same (ReDoS).
FIELDS_1_0 = rb"(?:\r\n(?:" + OTHER + rb"|" + LENGTH + rb"))*"
FIELDS_1_1 = rb"(?:\r\n(?:" + OTHER + rb"|" + LENGTH + rb"|" + CODING + rb"))*"

# A request's head that all parsers read alike: with exactly one Host, which HTTP/1.0 did not require (RFC 9112 section
# 3.2), and without chunks in HTTP/1.0 (section 6.1).
HEAD = re.compile(
    REQUEST
    + rb"(?:1" + FIELDS_1_1 + HOST + FIELDS_1_1
    + rb"|0" + FIELDS_1_0 + rb"(?:" + HOST + FIELDS_1_0 + rb")?)"
)  # fmt: skip
# The end of the chunk before, then the size of this one (RFC 9112 section 7.1).
CHUNK_LINE = re.compile(rb"\r\n[0-9A-Fa-f]{1,8}(?:;[\t -~]*+)?")
# What the response to a rejected head depends on: the origin (CORS) and the request's id.
KNOWN_FIELDS = re.compile(rb"\r\n(?i:(origin|x-request-id)):" + OWS + rb"([!-~]++)" + OWS + rb"(?=\r\n)")


def known_fields(buffer: bytearray) -> list[tuple[str, str]]:
    """Return those fields of a rejected head, as far as it has arrived, that the response depends on."""
    end = buffer.find(HEAD_END)
    head = bytes(buffer if end < 0 else buffer[: end + len(LINE_BREAK)])
    return [(name.decode().lower(), value.decode()) for name, value in KNOWN_FIELDS.findall(head)]
