"""What a request is known by: `x-request-id`, kept where a client has given a good one.

`traceparent` and `tracestate` (W3C Trace Context) go on as they came, as every other field does. A trace is
begun only where a mapping says so: what we call sampled, tracers behind us would record.
"""

import re
import secrets
from dataclasses import replace
from itertools import count

from marchproxy.dataplane.http.messages import Fields, Request

REQUEST_ID = "x-request-id"
TRACEPARENT = "traceparent"
_GOOD = re.compile(r"[A-Za-z0-9._~+/=@:-]{1,128}")
"""What stands in logs and shells without harm."""
_PROCESS = secrets.token_hex(8)
next_number = count(1).__next__
"""What ids are numbered by; no number comes twice."""


def new_id() -> str:
    """An id that nobody has had before."""
    return id_of(next_number())


def id_of(number: int) -> str:
    """32 hexadecimal digits: 16 of this process, 16 counted."""
    return f"{_PROCESS}{number:016x}"


def settle_id(request: Request) -> str:
    """The id that came with a request; empty: none did that is fit for logs, and what did goes no further."""
    if request.given_id is None:
        given = [value for name, value in request.fields if name == REQUEST_ID]
        good = len(given) == 1 and _GOOD.fullmatch(given[0])
        request.given_id = given[0] if good else ""
        if given and not good:
            request.fields = tuple([field for field in request.fields if field[0] != REQUEST_ID])
    return request.given_id


def traceparent_of(fields: Fields) -> str:
    """As it goes to the backend; empty: without."""
    return next((value[:256] for name, value in fields if name == TRACEPARENT), "")


def with_id(head: bytes, made: str) -> bytes:
    """A head that ends with its empty line, and an id of ours."""
    return b"%bx-request-id: %b\r\n\r\n" % (head[:-2], made.encode("ascii"))


def unnumbered(head: bytes) -> bytes:
    """`with_id` of an `id_of`, up to the number."""
    return b"%bx-request-id: %b" % (head[:-2], _PROCESS.encode("ascii"))


_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
"""W3C Trace Context, section 3.2.2; later versions may have more behind."""


def begin_trace(request: Request) -> Request:
    """The request itself where it is part of a trace, else one that begins one (section 4.3: what is no
    `traceparent` is none, and its `tracestate` goes with it).
    """
    given = [value for name, value in request.fields if name == TRACEPARENT]
    if len(given) == 1 and _PARENT.fullmatch(given[0]):
        return request
    kept = [field for field in request.fields if field[0] not in (TRACEPARENT, "tracestate")]
    parent = f"00-{new_id()}-{secrets.token_hex(8)}-01"
    return replace(request, fields=(*kept, (TRACEPARENT, parent)), encoded=b"")
