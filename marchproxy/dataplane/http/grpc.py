"""What is particular about gRPC: how a call fails, and how long it may be silent.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import quote

from marchproxy.dataplane.http.messages import Fields, Request, Response
from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.model.reason import Reason

_MEDIA_TYPE = "application/grpc"
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNITS = MappingProxyType({"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9})

DEADLINE_EXCEEDED, PERMISSION_DENIED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = (
    4,
    7,
    12,
    13,
    14,
    16,
)
_STATUS: Mapping[Reason, int] = MappingProxyType(
    {
        Reason.AUTH_MISSING: UNAUTHENTICATED,
        Reason.AUTH_INVALID: UNAUTHENTICATED,
        Reason.AUTH_EXPIRED: UNAUTHENTICATED,
        Reason.AUTH_REVOKED: UNAUTHENTICATED,
        Reason.NO_MAPPING: UNIMPLEMENTED,
        Reason.UPSTREAM_REFUSED: UNAVAILABLE,
        Reason.NO_ROUTE: UNAVAILABLE,
        Reason.RESET: UNAVAILABLE,
        Reason.TLS_FAILED: UNAVAILABLE,
        Reason.UPSTREAM_TIMEOUT: UNAVAILABLE,
        Reason.NO_BACKEND: UNAVAILABLE,
        Reason.NO_NAT_PORT: UNAVAILABLE,
        Reason.FLOW_TABLE_FULL: UNAVAILABLE,
        Reason.RATE_LIMITED: UNAVAILABLE,
        Reason.TOO_SLOW: UNAVAILABLE,
        Reason.MALFORMED: INTERNAL,
        Reason.UNSUPPORTED: INTERNAL,
    }
)
"""As clients read the status of HTTP that stands for the same (doc/http-grpc-status-mapping.md). Every other
reason is the policy's."""


class DeadlinePassed(Unfit):
    """The time that a client gave a call is over."""

    def __init__(self) -> None:
        super().__init__(Reason.UPSTREAM_TIMEOUT, "the deadline of the call has passed")


def is_call(request: Request) -> bool:
    """Whether a request is a call of gRPC. gRPC-Web is HTTP like any other."""
    if request.version in ("1.0", "1.1"):
        return False
    kind = next((value for name, value in request.fields if name == "content-type"), "")
    return kind.startswith(_MEDIA_TYPE) and kind[len(_MEDIA_TYPE) :][:1] in ("", "+", ";")


def timeout_of(request: Request) -> float | None:
    """Seconds that a call may take; None: as long as it likes."""
    said = next((value for name, value in request.fields if name == "grpc-timeout"), "")
    found = _TIMEOUT.fullmatch(said)
    return int(found[1]) * _UNITS[found[2]] if found else None


def failure(unfit: Unfit) -> Response:
    """The answer that says why a call goes nowhere: it has trailers only."""
    fields: Fields = (
        ("content-type", _MEDIA_TYPE),
        *trailers_of(unfit),
        ("x-marchproxy-reason", unfit.reason.name),
    )
    return Response(200, "", fields, None, bodiless=True)


def trailers_of(unfit: Unfit) -> Fields:
    """How an answer ends that had begun."""
    code = (
        DEADLINE_EXCEEDED
        if isinstance(unfit, DeadlinePassed)
        else _STATUS.get(unfit.reason, PERMISSION_DENIED)
    )
    words = f"{unfit.reason.name}: {unfit.detail or unfit.reason.meaning}"
    return (("grpc-status", str(code)), ("grpc-message", quote(words, safe=" !\"#$&'()*+,/:;<=>?@[]^_`{|}~")))
