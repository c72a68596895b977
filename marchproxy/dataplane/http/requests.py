"""HTTP/1.1 requests: heads read strictly (`http_head`), and written for a backend."""

from functools import lru_cache
from http import HTTPStatus

from marchproxy.dataplane.http.bodies import NOTHING, Body, Counted, Dechunked
from marchproxy.dataplane.http.fields import from_client
from marchproxy.dataplane.http.messages import Fields, Request
from marchproxy.dataplane.proxy.protocol.authority import read_authority
from marchproxy.dataplane.proxy.protocol.http_body import Chunked, read_body, wants_websocket
from marchproxy.dataplane.proxy.protocol.http_head import Head, HttpUnfit, malformed, parse_head
from marchproxy.model.endpoint import Endpoint
from marchproxy.model.reason import Reason
from marchproxy.policy.paths import canonical_path

_SCHEMES = ("http://", "https://")


def read_request(head: bytes) -> Request:
    """Read a head that ends with its empty line. Raises `Unfit`, as for what has two readings."""
    parsed = parse_head(head)
    authority, target = _target(parsed)
    path = canonical_path(target)
    if path is None or (path == "*") is not (parsed.method == "OPTIONS" and target == "*"):
        raise malformed("the path has dot segments, or characters that have to be escaped")
    websocket = wants_websocket(parsed)
    length = 0 if websocket else _length(parsed)
    named = parsed.words("connection")
    fields = from_client([(name.lower(), value) for name, value in parsed.fields], named)
    return Request(
        method=parsed.method,
        authority=authority,
        host=host_of(authority),
        target=target,
        path=path,
        fields=tuple([field for field in fields if field[0] != "host"]),
        length=length,
        version=parsed.version,
        keeps="close" not in named if parsed.version == "1.1" else "keep-alive" in named,
        websocket=websocket,
        trailers="trailers" in parsed.words("te"),
    )


def body_of(request: Request) -> Body:
    """What reads the body that follows the head."""
    if request.length is None:
        return Dechunked()
    return Counted(request.length) if request.length else NOTHING


@lru_cache(maxsize=1024)
def host_of(authority: str) -> str:
    """The host that an authority names, in lower case and without its port; empty: none. Raises `Unfit`."""
    return str(read_authority(authority)[0]) if authority else ""


def write_request(request: Request, about: Fields, backend: Endpoint) -> bytes:
    """The head for a backend that speaks HTTP/1.1; `about` is added to the request's own fields.

    Where the client named no host, which HTTP/1.0 allows, it is the backend itself: many servers take no
    empty one.
    """
    host = request.authority or str(backend)
    lines = [f"{request.method} {request.target} HTTP/1.1\r\nhost: {host}\r\n"]
    lines += [f"{name}: {value}\r\n" for name, value in request.fields]
    lines += [f"{name}: {value}\r\n" for name, value in about]
    if request.websocket:
        lines.append("connection: Upgrade\r\nupgrade: websocket\r\n")
    elif request.length is None:
        lines.append("transfer-encoding: chunked\r\n")
    elif request.length or request.method not in _WITHOUT_BODY:
        lines.append(f"content-length: {request.length}\r\n")
    if request.trailers:
        lines.append("connection: TE\r\nte: trailers\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("latin-1")


_WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
"""Methods of which nobody expects one."""


def _length(head: Head) -> int | None:
    body = read_body(head)
    if isinstance(body, Chunked):
        return None
    declared = head.get("content-length")
    return int(declared) if declared is not None else 0


def _target(head: Head) -> tuple[str, str]:
    """Authority and target; an absolute URL has the last word, and `Host` has to agree (RFC 9112, 3.2.2)."""
    host = head.get("host")
    if head.method in ("CONNECT", "TRACE"):
        status = HTTPStatus.METHOD_NOT_ALLOWED
        raise HttpUnfit(status, Reason.UNSUPPORTED, f"{head.method} is not for a web server")
    if host is None and head.version == "1.1":
        raise malformed("HTTP/1.1 without the header Host")
    if head.target.startswith("/") or head.target == "*":
        return host or "", head.target
    scheme = next((each for each in _SCHEMES if head.target[: len(each)].lower() == each), None)
    if scheme is None:
        raise malformed("the target is neither a path nor a URL")
    authority, slash, rest = head.target[len(scheme) :].partition("/")
    if "@" in authority or "?" in authority or (host is not None and host.lower() != authority.lower()):
        raise malformed("the header Host names another host than the request")
    return authority, f"{slash}{rest}" or "/"
