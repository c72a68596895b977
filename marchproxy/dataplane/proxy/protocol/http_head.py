"""The head of an HTTP/1.1 request (RFC 9112), read strictly: what has two readings is refused.

Libraries were rejected: h11 takes bare line feeds and folded lines, httptools does not say where a head ends.
"""

import re
from dataclasses import dataclass, field
from http import HTTPStatus

from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.model.reason import Reason

MAX_LINE = 8_192
"""Bytes of the request line with its CRLF; RFC 9112 section 3 recommends to take 8,000."""
MAX_HEAD = 32_768
"""Bytes with the empty line. A JWT of the largest size in Basic leaves 10,000 for everything else."""

_END = re.compile(rb"\n\r?\n")
"""Also an end that is refused afterwards: whoever writes bare line feeds should not wait for the deadline."""
_BEGINS = frozenset(rb"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" + b"\r")
"""Of a request or an empty line before it. TLS, for one, does not begin so, and would wait for an answer."""
_NO_LINE = "the first line is not METHOD TARGET HTTP/VERSION"
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105
_LINE = re.compile(rf"({TOKEN}) ([!-~]+) HTTP/([0-9]\.[0-9])")
_WHOLE = re.compile(rf"({TOKEN}) ([!-~]+) HTTP/(1\.[01])\r\n((?:{TOKEN}:[\t -~\x80-\xff]*\r\n)*)\r\n")
"""A head that is right; of any other, it is looked for why."""
_FIELDS = re.compile(rf"({TOKEN}):[ \t]*([\t -~\x80-\xff]*)\r\n")
"""Neither a space before the colon nor a control character (RFC 9110 section 5.5)."""
_NO_WORDS: frozenset[str] = frozenset()
_SINGLE = frozenset({"host", "content-length", "transfer-encoding", "proxy-authorization"})


class HttpUnfit(Unfit):
    """Has a status of its own, where the reason's is not exact enough."""

    def __init__(self, status: HTTPStatus, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.status = status


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head. Fields are in the order and case of the client, their values as Latin-1."""

    method: str
    target: str
    version: str
    """`1.0` or `1.1`."""
    fields: tuple[tuple[str, str], ...]
    names: frozenset[str] = field(init=False, repr=False, compare=False)
    """Those of the fields, in lower case."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", frozenset([name.lower() for name, _ in self.fields]))

    def get(self, name: str) -> str | None:
        """The first value of a field, by its name in lower case."""
        if name in self.names:
            for other, value in self.fields:
                if other.lower() == name:
                    return value
        return None

    def words(self, name: str) -> frozenset[str]:
        """What a field lists, in lower case, all its lines together."""
        if name not in self.names:
            return _NO_WORDS
        values = [value for other, value in self.fields if other.lower() == name]
        return frozenset(word.strip(" \t").lower() for word in ",".join(values).split(",")) - {""}


def head_length(held: bytearray, seen: int) -> int | None:
    """Bytes of the head with its empty line, None while that is missing. Raises `Unfit` above the limits, and
    where it cannot become one.

    `seen`: bytes that were there at the last call.
    """
    if held and held[0] not in _BEGINS:
        raise malformed(_NO_LINE)
    if len(held) >= MAX_LINE and held.find(b"\n", 0, MAX_LINE) < 0:
        status = HTTPStatus.REQUEST_URI_TOO_LONG
        raise HttpUnfit(status, Reason.MALFORMED, f"a request line may have {MAX_LINE} bytes")
    end = _END.search(held, max(0, seen - 2), MAX_HEAD)
    if end is None and len(held) >= MAX_HEAD:
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        raise HttpUnfit(status, Reason.MALFORMED, f"a request's head may have {MAX_HEAD} bytes")
    return end.end() if end is not None else None


def parse_head(head: bytes) -> Head:
    """Read a head that ends with its empty line. Raises `Unfit`."""
    found = _WHOLE.fullmatch(head.decode("latin-1"))
    if found is None:
        raise _wrong(head)
    method, target, version, block = found.groups()
    made = Head(method, target, version, read_fields(block))
    if len(made.names) < len(made.fields):
        names = [name.lower() for name, _ in made.fields]
        for name in _SINGLE:
            if names.count(name) > 1:
                raise malformed(f"the header {name} is given twice")
    # A server that hands headers to CGI or WSGI does not tell them apart.
    if b"_" in head and any("_" in name and name.replace("_", "-") in _SINGLE for name in made.names):
        raise malformed("a header's name has '_' in place of '-'")
    return made


def read_fields(block: str) -> tuple[tuple[str, str], ...]:
    """The fields of a block of lines that are known to be right."""
    return tuple([(name, value.rstrip(" \t")) for name, value in _FIELDS.findall(block)])


def malformed(detail: str) -> Unfit:
    """The error for what breaks the protocol."""
    return Unfit(Reason.MALFORMED, detail)


def _wrong(head: bytes) -> Unfit:
    """What is wrong with a head."""
    if head.count(b"\n") != head.count(b"\r\n"):
        return malformed("a line ends without CR")
    line, *_ = head.decode("latin-1").split("\r\n")
    found = _LINE.fullmatch(line)
    if found is None:
        return malformed(_NO_LINE)
    if found[3] not in ("1.0", "1.1"):
        status = HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
        return HttpUnfit(status, Reason.UNSUPPORTED, "this proxy speaks HTTP/1.1")
    return malformed("a header is not NAME: VALUE on one line")
