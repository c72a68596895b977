"""What the target of a request to a proxy says (RFC 9112 section 3.2)."""

from dataclasses import dataclass
from http import HTTPStatus

from marchproxy.dataplane.proxy.protocol.authority import read_authority
from marchproxy.dataplane.proxy.protocol.exchange import Speech, Unfit
from marchproxy.dataplane.proxy.protocol.http_head import Head, HttpUnfit, malformed
from marchproxy.model.address import IPAddress
from marchproxy.model.reason import Reason

_HTTP = "http://"
_HTTP_PORT = 80


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes."""

    speech: Speech
    host: str | IPAddress
    port: int
    origin: str = ""
    """The target that the server itself gets, where a request is forwarded."""


def read_target(head: Head) -> Target:
    """Read a request's target, with which its Host has to agree. Raises `Unfit`."""
    tunnel = head.method == "CONNECT"
    authority, origin = (head.target, "") if tunnel else _absolute(head.method, head.target)
    host, port = read_authority(authority)
    if tunnel and port is None:
        raise malformed("CONNECT without a port")
    speech = Speech.CONNECT if tunnel else Speech.FORWARD
    target = Target(speech, host, port or _HTTP_PORT, origin)
    if head.get("host") != authority:
        _check_host(head, target)
    return target


def _absolute(method: str, text: str) -> tuple[str, str]:
    """Authority, and what the server itself gets."""
    if text.startswith("/") or text == "*":
        raise malformed(
            "this is a proxy and no web server: configure it as the HTTP proxy of a client, "
            "for example `curl --proxy http://THIS_ADDRESS:PORT http://example.com/`"
        )
    if text[: len(_HTTP)].lower() != _HTTP:
        raise Unfit(Reason.UNSUPPORTED, "requests are forwarded to http:// only; for https:// use CONNECT")
    rest = text[len(_HTTP) :]
    length = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    authority, origin = rest[:length], rest[length:]
    if "@" in authority or "#" in origin:
        raise malformed("the URL has a user or a fragment, which no request may have")
    if not origin and method == "OPTIONS":
        return authority, "*"
    return authority, origin if origin.startswith("/") else f"/{origin}"


def _check_host(head: Head, target: Target) -> None:
    """RFC 9112 section 3.2; a Host without a port is taken, because it says nothing about it."""
    text = head.get("host")
    if text is None:
        if head.version == "1.1":
            raise malformed("HTTP/1.1 without the header Host")
        return
    host, port = read_authority(text)
    if host != target.host or port not in (None, target.port):
        raise malformed("the header Host names another host than the request")


def check_hops(head: Head) -> None:
    """Refuse what asks to be answered on the way (RFC 9110 section 7.6.2). Raises `HttpUnfit`."""
    if head.method in ("TRACE", "OPTIONS") and head.get("max-forwards") is not None:
        raise HttpUnfit(HTTPStatus.NOT_IMPLEMENTED, Reason.UNSUPPORTED, "Max-Forwards is not counted here")
