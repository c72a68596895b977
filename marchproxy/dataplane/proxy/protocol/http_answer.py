"""What an HTTP client is told when its request goes nowhere: enough for a person to know what to do."""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.dataplane.proxy.protocol.http_head import HttpUnfit
from marchproxy.model.reason import Reason

MAX_DETAIL = 500
"""Characters of a detail that are shown."""

_STATUS: Mapping[Reason, HTTPStatus] = MappingProxyType(
    {
        Reason.AUTH_MISSING: HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
        Reason.AUTH_INVALID: HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
        Reason.AUTH_EXPIRED: HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
        Reason.AUTH_REVOKED: HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
        Reason.NAME_UNKNOWN: HTTPStatus.BAD_GATEWAY,
        Reason.UPSTREAM_REFUSED: HTTPStatus.BAD_GATEWAY,
        Reason.NO_ROUTE: HTTPStatus.BAD_GATEWAY,
        Reason.NO_BACKEND: HTTPStatus.BAD_GATEWAY,
        Reason.UPSTREAM_TIMEOUT: HTTPStatus.GATEWAY_TIMEOUT,
        Reason.RATE_LIMITED: HTTPStatus.TOO_MANY_REQUESTS,
        Reason.FLOW_TABLE_FULL: HTTPStatus.SERVICE_UNAVAILABLE,
        Reason.NO_NAT_PORT: HTTPStatus.SERVICE_UNAVAILABLE,
        Reason.MALFORMED: HTTPStatus.BAD_REQUEST,
        Reason.UNSUPPORTED: HTTPStatus.BAD_REQUEST,
        Reason.TOO_SLOW: HTTPStatus.REQUEST_TIMEOUT,
    }
)
"""Every other reason is the policy's: 403."""
_ADVICE: Mapping[HTTPStatus, str] = MappingProxyType(
    {
        HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: "Send the name of your service and its token as the "
        "proxy's user and password, or the token alone as Proxy-Authorization: Bearer. "
        "Whoever runs this proxy issues tokens.",
        HTTPStatus.FORBIDDEN: "If you need this access, ask whoever runs this proxy for it, and send "
        "them these lines.",
        HTTPStatus.BAD_GATEWAY: "The proxy lets you through, but the destination cannot be reached.",
        HTTPStatus.GATEWAY_TIMEOUT: "The proxy lets you through, but the destination stays silent.",
        HTTPStatus.TOO_MANY_REQUESTS: "Try again later.",
        HTTPStatus.SERVICE_UNAVAILABLE: "Try again later.",
    }
)
_CHALLENGES = (
    'Proxy-Authenticate: Basic realm="MarchProxy", charset="UTF-8"',
    'Proxy-Authenticate: Bearer realm="MarchProxy"',
)


def status_of(unfit: Unfit) -> HTTPStatus:
    """The status that says it best."""
    if isinstance(unfit, HttpUnfit):
        return unfit.status
    return _STATUS.get(unfit.reason, HTTPStatus.FORBIDDEN)


def render_refusal(unfit: Unfit, asked: str = "", *, with_body: bool = True) -> bytes:
    """The whole answer, after which the connection ends.

    `asked`: what the client wanted, as `example.com:443`. `with_body` False: the answer to HEAD.
    """
    status = status_of(unfit)
    body = _body(unfit, asked, status).encode()
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"X-MarchProxy-Reason: {unfit.reason.name}",
        "Content-Type: text/plain; charset=utf-8",
        "X-Content-Type-Options: nosniff",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    if status is HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        lines += _CHALLENGES
    head = "\r\n".join((*lines, "", "")).encode("ascii")
    return head + body if with_body else head


def _body(unfit: Unfit, asked: str, status: HTTPStatus) -> str:
    lines = [f"MarchProxy: no connection for {_shown(asked) or 'your request'}."]
    lines += ["", f"Reason: {unfit.reason.name}: {unfit.reason.meaning}"]
    if unfit.detail:
        lines.append(f"Detail: {_shown(unfit.detail)}")
    if status in _ADVICE:
        lines += ["", _ADVICE[status]]
    return "\n".join((*lines, ""))


def _shown(text: str) -> str:
    """One line, whatever was in it."""
    return "".join(character if character.isprintable() else "?" for character in text[:MAX_DETAIL])
