"""HTTP/1.1 responses: heads of backends read strictly, and written for a client."""

import re
from http import HTTPStatus

from marchproxy.dataplane.http.bodies import Body, Counted, Dechunked, UntilClose
from marchproxy.dataplane.http.fields import from_backend
from marchproxy.dataplane.http.messages import Response
from marchproxy.dataplane.proxy.protocol.http_head import TOKEN, malformed, read_fields

MAX_HEAD = 65_536
"""Bytes of a response's head."""
_WHOLE = re.compile(
    rf"HTTP/1\.([01]) ([1-9][0-9]{{2}})(?: ([\t -~\x80-\xff]*))?\r\n"
    rf"((?:{TOKEN}:[\t -~\x80-\xff]*\r\n)*)\r\n"
)
_BARE = re.compile(rb"\n\r?\n")
"""Where there is no CR LF CR LF, an empty line after one that ends without CR."""
_LENGTH = re.compile(r"[0-9]{1,18}")
NO_CONTENT = int(HTTPStatus.NO_CONTENT)
SWITCHING = int(HTTPStatus.SWITCHING_PROTOCOLS)


def answer_length(data: bytes) -> int | None:
    """Bytes of a head with its empty line; None while that is missing. Raises `Unfit`."""
    end = data.find(b"\r\n\r\n") + 4
    if 4 <= end <= MAX_HEAD:
        return end
    if len(data) > MAX_HEAD:
        raise malformed(f"the head of the backend's answer has over {MAX_HEAD} bytes")
    if _BARE.search(data):
        raise malformed("a line of the backend's answer ends without CR")
    return None


def read_response(head: bytes, method: str) -> tuple[Response, Body]:
    """Read a head that ends with its empty line, and what reads the body behind it. Raises `Unfit`."""
    found = _WHOLE.fullmatch(head.decode("latin-1"))
    if found is None:
        raise malformed("the backend's answer is not HTTP/1.1")
    minor, digits, phrase, block = found.groups()
    fields = [(name.lower(), value) for name, value in read_fields(block)]
    status = int(digits)
    named = _words(fields, "connection")
    persistent = "close" not in named if minor == "1" else "keep-alive" in named
    length, body = _body(fields, status, method)
    bodiless = isinstance(body, Counted) and body.done and length != 0
    response = Response(
        status=status,
        phrase=phrase or "",
        fields=from_backend(fields, named),
        length=length,
        bodiless=bodiless,
        keeps=persistent and not isinstance(body, UntilClose),
    )
    return response, body


def write_response(response: Response, version: str, *, keeps: bool) -> bytes:
    """The head for a client of this version of HTTP/1. `keeps`: its connection goes on afterwards."""
    encoded = response.encoded.get((version, keeps))
    if encoded is None:
        encoded = response.encoded[version, keeps] = _write(response, version, keeps=keeps)
    return encoded


def body_again(response: Response) -> Body:
    """What reads the body of a response whose head was read before, and had no framing of its own."""
    return Counted(0 if response.bodiless else response.length or 0)


def _write(response: Response, version: str, *, keeps: bool) -> bytes:
    phrase = response.phrase or phrase_of(response.status)
    lines = [f"HTTP/1.1 {response.status} {phrase}\r\n"]
    lines += [f"{name}: {value}\r\n" for name, value in response.fields]
    if response.status == SWITCHING:
        lines.append("connection: Upgrade\r\nupgrade: websocket\r\n\r\n")
        return "".join(lines).encode("latin-1")
    if response.length is not None and response.status != NO_CONTENT and not response.interim:
        lines.append(f"content-length: {response.length}\r\n")
    elif response.length is None and not response.bodiless and version == "1.1":
        lines.append("transfer-encoding: chunked\r\n")
    if not response.interim:
        if not keeps:
            lines.append("connection: close\r\n")
        elif version == "1.0":
            lines.append("connection: keep-alive\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("latin-1")


def phrase_of(status: int) -> str:
    """The usual words for a status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _body(fields: list[tuple[str, str]], status: int, method: str) -> tuple[int | None, Body]:
    """RFC 9112 section 6.3. What has two readings is refused."""
    codings = [value.lower() for name, value in fields if name == "transfer-encoding"]
    lengths = {value for name, value in fields if name == "content-length"}
    if codings and lengths:
        raise malformed("the backend's answer has both Transfer-Encoding and Content-Length")
    if len(lengths) > 1 or not all(map(_LENGTH.fullmatch, lengths)):
        raise malformed("the backend's answer has a Content-Length that is not one number")
    if method == "HEAD" or status < HTTPStatus.OK or status in (NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        return int(lengths.pop()) if lengths else None, Counted(0)
    if codings:
        if codings != ["chunked"]:
            raise malformed("of the backend's transfer codings, chunked is taken")
        return None, Dechunked()
    if lengths:
        length = int(lengths.pop())
        return length, Counted(length)
    return None, UntilClose()


def _words(fields: list[tuple[str, str]], name: str) -> frozenset[str]:
    values = [value for other, value in fields if other == name]
    if not values:
        return frozenset()
    return frozenset(word.strip(" \t").lower() for word in ",".join(values).split(",")) - {""}
