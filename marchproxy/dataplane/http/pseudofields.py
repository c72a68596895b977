"""Heads of HTTP/2 and HTTP/3, with pseudo-fields (RFC 9113 section 8.3, RFC 9114 section 4.3), read strictly.

What they say goes on in HTTP/1.1, too, so everything is refused that could mean something else there. Field
compression and frames are somebody else's.
"""

import base64
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from http import HTTPStatus

from marchproxy.dataplane.http.fields import from_backend, from_client, may_trail
from marchproxy.dataplane.http.messages import Fields, Request, Response
from marchproxy.dataplane.http.requests import host_of
from marchproxy.dataplane.http.responses import NO_CONTENT
from marchproxy.dataplane.proxy.protocol.http_head import MAX_HEAD, MAX_LINE, HttpUnfit, malformed
from marchproxy.model.endpoint import Endpoint
from marchproxy.model.reason import Reason
from marchproxy.policy.paths import canonical_path

type RawFields = Sequence[tuple[bytes, bytes]]
"""As they come out of HPACK or QPACK."""

OVERHEAD = 32
"""Bytes that each field counts for beside its name and value (RFC 9113 section 6.5.2)."""
WEBSOCKET = b"websocket"
"""The `:protocol` of RFC 8441 and RFC 9220."""

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
"""In lower case (RFC 9113 section 8.2)."""
_VALUE = re.compile(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
"""No control character, and no white space around it (section 8.2.1)."""
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(r"/[!-~]*")
_LENGTH = re.compile(r"[0-9]{1,18}")
_STATUS = re.compile(rb"[1-5][0-9]{2}")
_SINGLE = frozenset({"host", "content-length", "proxy-authorization"})
_OF_A_CONNECTION = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"})
"""What makes a message malformed (section 8.2.2)."""
_REQUEST = frozenset({":method", ":scheme", ":authority", ":path", ":protocol"})
_OF_A_HANDSHAKE = frozenset({"sec-websocket-key", "sec-websocket-accept"})
"""What has no meaning outside HTTP/1.1 (RFC 8441 section 5)."""


def read_request(raw: RawFields, version: str, *, ends: bool) -> Request:
    """Read the head of a request. `version`: `2` or `3`; `ends`: no body follows.

    An extended CONNECT for a WebSocket becomes the GET that asks for one in HTTP/1.1. Raises `Unfit`.
    """
    pseudo, fields = _split(raw, _REQUEST)
    method = pseudo.get(":method", "")
    if not _METHOD.fullmatch(method):
        raise malformed(":method is missing, or no method")
    websocket = _wants_websocket(method, pseudo, ends=ends)
    if pseudo.get(":scheme") not in ("http", "https"):
        raise malformed(":scheme is neither http nor https")
    target, path = _target(pseudo.get(":path", ""), method)
    authority = _authority(pseudo.get(":authority"), fields)
    length = _length(fields)
    if ends and length:
        raise malformed("Content-Length announces a body, and none follows")
    if websocket:
        kept = tuple([each for each in fields if each[0] not in _OF_A_HANDSHAKE])
        # Random only because RFC 6455 section 4.1 says so: caches are to be confused, nobody to be kept out.
        fields = (*kept, ("sec-websocket-key", base64.b64encode(os.urandom(16)).decode()))
    return Request(
        method="GET" if websocket else method,
        authority=authority,
        host=host_of(authority),
        target=target,
        path=path,
        fields=tuple([each for each in from_client(_crumbs(fields), ()) if each[0] != "host"]),
        length=0 if ends or websocket else length,
        version=version,
        websocket=websocket,
        trailers=any(name == "te" for name, _ in fields),
    )


def write_request(request: Request, scheme: str, about: Fields, backend: Endpoint) -> Fields:
    """The head for a backend; `about` is added to the request's own fields.

    Where the client named no host, which HTTP/1.0 allows, it is the backend itself.
    """
    fields = [
        *((":method", request.method), (":scheme", scheme)),
        *((":authority", request.authority or str(backend)), (":path", request.target)),
        *request.fields,
        *about,
    ]
    if request.length is not None and (request.length or request.method in ("POST", "PUT", "PATCH")):
        fields.append(("content-length", str(request.length)))
    if request.trailers:
        fields.append(("te", "trailers"))
    return tuple(fields)


def read_response(raw: RawFields, method: str, *, ends: bool) -> Response:
    """Read the head of an answer to a request with this method; `ends`: no body follows. Raises `Unfit`."""
    status = next((value for name, value in raw if name == b":status"), b"")
    _, fields = _split(raw, frozenset({":status"}))
    if not _STATUS.fullmatch(status) or status == b"101":
        raise malformed("the backend's answer has no :status, or one that is not there in this version")
    length = _length(fields)
    response = Response(int(status), "", from_backend(fields, ()), length)
    without = method == "HEAD" or response.interim or response.status in (NO_CONTENT, HTTPStatus.NOT_MODIFIED)
    if ends and length and not without:
        raise malformed("the backend's Content-Length announces a body, and none follows")
    if ends and not without:
        return replace(response, length=0)
    return replace(response, bodiless=without)


def write_response(response: Response) -> Fields:
    """The head for a client; interim answers have one, too."""
    fields = ((":status", str(response.status)), *response.fields)
    if response.length is None or response.interim or response.status == NO_CONTENT:
        return fields
    return (*fields, ("content-length", str(response.length)))


def read_trailers(raw: RawFields) -> Fields:
    """What came behind a body, and goes on. Raises `Unfit`."""
    _, fields = _split(raw, frozenset())
    return tuple([each for each in fields if may_trail(each[0])])


def raw_fields(fields: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Fields as bytes, for HPACK or QPACK."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]


def _split(raw: RawFields, known: frozenset[str]) -> tuple[dict[str, str], Fields]:
    """Pseudo-fields, of which each comes once and before the others; and the others."""
    if sum(len(name) + len(value) + OVERHEAD for name, value in raw) > MAX_HEAD:
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        raise HttpUnfit(status, Reason.MALFORMED, f"the fields of a message may have {MAX_HEAD} bytes")
    pseudo: dict[str, str] = {}
    fields: list[tuple[str, str]] = []
    for raw_name, raw_value in raw:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if not _VALUE.fullmatch(raw_value):
            raise malformed("the value of a field has a control character, or white space around it")
        if not name.startswith(":"):
            if not _NAME.fullmatch(raw_name):
                raise malformed("the name of a field has a letter in upper case, or what no name may have")
            fields.append((name, value))
        elif fields or name in pseudo or name not in known:
            raise malformed("a pseudo-field is unknown, comes twice, or behind a field")
        else:
            pseudo[name] = value
    _check(fields)
    return pseudo, tuple(fields)


def _check(fields: list[tuple[str, str]]) -> None:
    names = [name for name, _ in fields]
    # A server that hands fields to CGI or WSGI does not tell '_' and '-' apart.
    plain = [name.replace("_", "-") for name in names]
    if not _OF_A_CONNECTION.isdisjoint(plain):
        raise malformed("a field is of HTTP/1.1's connections only")
    for name in _SINGLE.intersection(plain):
        if plain.count(name) > 1 or name not in names:
            raise malformed(f"the field {name} is given twice, or with '_' in place of '-'")
    if any(name == "te" and value.lower() != "trailers" for name, value in fields):
        raise malformed("the field te says something else than trailers")


def _wants_websocket(method: str, pseudo: dict[str, str], *, ends: bool) -> bool:
    """Whether it is the extended CONNECT of RFC 8441. Another CONNECT is for no web server."""
    protocol = pseudo.get(":protocol")
    if method in ("CONNECT", "TRACE") and protocol is None:
        status = HTTPStatus.METHOD_NOT_ALLOWED
        raise HttpUnfit(status, Reason.UNSUPPORTED, f"{method} is not for a web server")
    if protocol is None:
        return False
    if method != "CONNECT":
        raise malformed(":protocol without CONNECT")
    if protocol.encode("latin-1") != WEBSOCKET or ends:
        raise HttpUnfit(HTTPStatus.NOT_IMPLEMENTED, Reason.UNSUPPORTED, "of protocols, websocket is taken")
    return True


def _target(target: str, method: str) -> tuple[str, str]:
    """What goes on, and its path in one form."""
    if len(target) > MAX_LINE:
        status = HTTPStatus.REQUEST_URI_TOO_LONG
        raise HttpUnfit(status, Reason.MALFORMED, f"a path may have {MAX_LINE} bytes")
    whole = method == "OPTIONS" and target == "*"
    path = canonical_path(target) if whole or _TARGET.fullmatch(target) else None
    if path is None:
        raise malformed("the path is missing, has dot segments, or characters that have to be escaped")
    return target, path


def _authority(authority: str | None, fields: Fields) -> str:
    """The host asked for; `Host` may say it instead, and has to agree."""
    host = next((value for name, value in fields if name == "host"), None)
    if authority is None:
        authority = host
    if not authority:
        raise malformed(":authority is missing")
    if host is not None and host.lower() != authority.lower():
        raise malformed("the field host names another host than :authority")
    return authority


def _length(fields: Fields) -> int | None:
    declared = next((value for name, value in fields if name == "content-length"), None)
    if declared is None:
        return None
    if not _LENGTH.fullmatch(declared):
        raise malformed("Content-Length is not a number")
    return int(declared)


def _crumbs(fields: Fields) -> Fields:
    """Cookies in one field, where a client has split them (RFC 9113 section 8.2.3)."""
    cookies = [value for name, value in fields if name == "cookie"]
    if len(cookies) < 2:
        return fields
    others = tuple([each for each in fields if each[0] != "cookie"])
    return (*others, ("cookie", "; ".join(cookies)))
