"""HTTP/1.1 requests and responses as values (RFC 9112), without I/O: what a local API needs and nothing
beyond.

Bodies come with Content-Length; request trailers, chunked requests and upgrades are refused by name. That
leaves nothing in which two readers of the same bytes could see different requests.
"""

import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from types import MappingProxyType
from urllib.parse import parse_qsl, unquote, urlsplit

MAX_HEADERS = 64

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_METHOD = re.compile(r"[A-Z]{1,16}")
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class HttpError(Exception):
    """A request that is answered with a status of 400 or more; `name` is stable, `message` is for people."""

    def __init__(self, status: HTTPStatus, name: str, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.name = name
        self.message = message
        self.hint = hint
        self.headers: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Header names are in lower case; a query parameter given twice was refused."""

    method: str
    path: str
    query: Mapping[str, str] = _NO_HEADERS
    headers: Mapping[str, str] = _NO_HEADERS
    body: bytes = b""
    keep_alive: bool = True
    """Whether the client wants to use the connection again."""
    chunked: bool = True
    """Whether it understands a chunked response (HTTP/1.1); otherwise the connection's end ends the body."""
    head_only: bool = False
    """It was a HEAD: whoever answers may leave the body out, where making it costs something."""


@dataclass(frozen=True, slots=True)
class Response:
    """One response. A body that is a generator is sent in chunks as it comes."""

    body: bytes | AsyncGenerator[bytes]
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def parse_head(head: bytes) -> Request:
    """Read the request line and headers, `head` ending with the empty line. Raises `HttpError`."""
    try:
        text = head.decode("ascii")
    except UnicodeDecodeError:
        raise _bad("the request's head is not ASCII") from None
    lines = text.split("\r\n")
    method, target, version = _request_line(lines[0])
    headers = _headers(lines[1:-2])
    path, query = _target(target)
    tokens = {token.strip() for token in headers.get("connection", "").lower().split(",")}
    return Request(
        method=method,
        path=path,
        query=query,
        headers=headers,
        keep_alive=version == "HTTP/1.1" and "close" not in tokens,
        chunked=version == "HTTP/1.1",
    )


def body_length(request: Request, limit: int) -> int:
    """Bytes of body that follow the head, at most `limit`. Raises `HttpError`."""
    if "transfer-encoding" in request.headers:
        raise HttpError(HTTPStatus.NOT_IMPLEMENTED, "NotImplemented", "send the body with Content-Length")
    text = request.headers.get("content-length", "0")
    if not text.isdigit() or len(text) > 18:
        raise _bad("Content-Length is not a number")
    if int(text) > limit:
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        raise HttpError(status, "BodyTooLarge", f"a body may have {limit} bytes, not {int(text)}")
    return int(text)


def render_head(response: Response, *, keep_alive: bool, chunked: bool) -> bytes:
    """Status line and headers. A body without known length is `chunked`, or ends with the connection."""
    headers = {"Content-Type": response.content_type, **response.headers}
    if isinstance(response.body, bytes):
        headers["Content-Length"] = str(len(response.body))
    elif chunked:
        headers["Transfer-Encoding"] = "chunked"
    if not keep_alive:
        headers["Connection"] = "close"
    lines = [f"HTTP/1.1 {response.status.value} {response.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def render_chunk(data: bytes) -> bytes:
    """One chunk; the empty one ends the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _request_line(line: str) -> tuple[str, str, str]:
    parts = line.split(" ")
    if len(parts) != 3 or not _METHOD.fullmatch(parts[0]):
        raise _bad("the first line is not METHOD TARGET VERSION")
    if parts[2] not in ("HTTP/1.1", "HTTP/1.0"):
        status = HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
        raise HttpError(status, "VersionNotSupported", "this is HTTP/1.1")
    return parts[0], parts[1], parts[2]


def _headers(lines: list[str]) -> dict[str, str]:
    if len(lines) > MAX_HEADERS:
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        raise HttpError(status, "TooManyHeaders", f"a request may have {MAX_HEADERS} headers")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        value = value.strip(" \t")
        # RFC 9112 section 5: no space before the colon, no folded lines.
        if not colon or not _TOKEN.fullmatch(name) or not value.replace("\t", " ").isprintable():
            raise _bad(f"a header is not NAME: VALUE: {line[:60]!r}")
        if headers.setdefault(name.lower(), value) != value:
            raise _bad(f"the header {name} is given twice with different values")
    return headers


def _target(target: str) -> tuple[str, dict[str, str]]:
    if not target.startswith("/") or target.startswith("//"):
        raise _bad("the target is not a path that starts with one '/'")
    parts = urlsplit(target)
    try:
        pairs = parse_qsl(parts.query, keep_blank_values=True, max_num_fields=MAX_HEADERS)
    except ValueError:
        raise _bad(f"there are more than {MAX_HEADERS} parameters") from None
    query = dict(pairs)
    if len(query) < len(pairs):
        raise _bad("a parameter is given twice")
    return unquote(parts.path), query


def _bad(message: str) -> HttpError:
    return HttpError(HTTPStatus.BAD_REQUEST, "BadRequest", message)
