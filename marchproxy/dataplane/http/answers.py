"""What a client is told when its request goes nowhere: enough for a person to know what to do."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType

from marchproxy.dataplane.http.messages import Fields, Response
from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.dataplane.proxy.protocol.http_answer import MAX_DETAIL
from marchproxy.dataplane.proxy.protocol.http_head import HttpUnfit
from marchproxy.model.reason import Reason

_STATUS: Mapping[Reason, HTTPStatus] = MappingProxyType(
    {
        Reason.AUTH_MISSING: HTTPStatus.UNAUTHORIZED,
        Reason.AUTH_INVALID: HTTPStatus.UNAUTHORIZED,
        Reason.AUTH_EXPIRED: HTTPStatus.UNAUTHORIZED,
        Reason.AUTH_REVOKED: HTTPStatus.UNAUTHORIZED,
        Reason.NO_MAPPING: HTTPStatus.NOT_FOUND,
        Reason.UPSTREAM_REFUSED: HTTPStatus.BAD_GATEWAY,
        Reason.NO_ROUTE: HTTPStatus.BAD_GATEWAY,
        Reason.RESET: HTTPStatus.BAD_GATEWAY,
        Reason.TLS_FAILED: HTTPStatus.BAD_GATEWAY,
        Reason.UPSTREAM_TIMEOUT: HTTPStatus.GATEWAY_TIMEOUT,
        Reason.NO_BACKEND: HTTPStatus.SERVICE_UNAVAILABLE,
        Reason.NO_NAT_PORT: HTTPStatus.SERVICE_UNAVAILABLE,
        Reason.FLOW_TABLE_FULL: HTTPStatus.SERVICE_UNAVAILABLE,
        Reason.RATE_LIMITED: HTTPStatus.TOO_MANY_REQUESTS,
        Reason.MALFORMED: HTTPStatus.BAD_REQUEST,
        Reason.UNSUPPORTED: HTTPStatus.BAD_REQUEST,
        Reason.TOO_SLOW: HTTPStatus.REQUEST_TIMEOUT,
    }
)
"""Every other reason is the policy's: 403."""
_CHALLENGES: Fields = (
    ("www-authenticate", 'Bearer realm="MarchProxy"'),
    ("www-authenticate", 'Basic realm="MarchProxy", charset="UTF-8"'),
)
_ADVICE: Mapping[HTTPStatus, str] = MappingProxyType(
    {
        HTTPStatus.UNAUTHORIZED: "Send a token as Authorization: Bearer, or the name of your service and its "
        "token as user and password. Whoever runs this gateway issues tokens.",
        HTTPStatus.FORBIDDEN: "If you need this access, ask whoever runs this gateway for it, and send "
        "them these lines.",
        HTTPStatus.NOT_FOUND: "Nothing here answers to this host and path.",
        HTTPStatus.BAD_GATEWAY: "The gateway lets you through, but what is behind it does not answer.",
        HTTPStatus.GATEWAY_TIMEOUT: "The gateway lets you through, but what is behind it stays silent.",
        HTTPStatus.TOO_MANY_REQUESTS: "Try again later.",
        HTTPStatus.SERVICE_UNAVAILABLE: "Try again later.",
    }
)

_LATER = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
"""Statuses with `Retry-After`."""


class Later(Unfit):
    """May be tried again."""

    def __init__(self, reason: Reason, detail: str, after: int) -> None:
        """`after` so many seconds."""
        super().__init__(reason, detail)
        self.after = after


class WrongMethod(HttpUnfit):
    """There are routes for a request, but by other methods (RFC 9110 section 15.5.6)."""

    def __init__(self, method: str, allowed: Sequence[str]) -> None:
        listed = ", ".join(allowed)
        status = HTTPStatus.METHOD_NOT_ALLOWED
        super().__init__(status, Reason.NO_MAPPING, f"{method} is not for this path: {listed} would be")
        self.allow = listed


def refusal(unfit: Unfit) -> tuple[Response, bytes]:
    """The answer that says why, and its body."""
    status = unfit.status if isinstance(unfit, HttpUnfit) else _STATUS.get(unfit.reason, HTTPStatus.FORBIDDEN)
    lines = [f"{status.value} {status.phrase}", ""]
    lines.append(f"Reason: {unfit.reason.name}: {unfit.reason.meaning}")
    if unfit.detail:
        lines.append(f"Detail: {_shown(unfit.detail)}")
    if status in _ADVICE:
        lines += ["", _ADVICE[status]]
    body = "\n".join((*lines, "")).encode()
    fields: Fields = (
        ("x-marchproxy-reason", unfit.reason.name),
        ("content-type", "text/plain; charset=utf-8"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
    )
    if status is HTTPStatus.UNAUTHORIZED:
        fields += _CHALLENGES
    elif status in _LATER:
        fields += (("retry-after", str(unfit.after if isinstance(unfit, Later) else 1)),)
    if isinstance(unfit, WrongMethod):
        fields += (("allow", unfit.allow),)
    return Response(status.value, status.phrase, fields, len(body)), body


def _shown(text: str) -> str:
    """One line, whatever was in it."""
    return "".join(character if character.isprintable() else "?" for character in text[:MAX_DETAIL])
