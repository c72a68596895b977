"""A request's head as the server behind a proxy gets it (RFC 9110 section 7.6)."""

from marchproxy.dataplane.proxy.protocol.authority import format_authority
from marchproxy.dataplane.proxy.protocol.http_body import wants_websocket
from marchproxy.dataplane.proxy.protocol.http_head import Head, malformed
from marchproxy.dataplane.proxy.protocol.http_target import Target

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "te", "upgrade", "host"})
"""RFC 9110 section 7.6.1. Host is written anew; Transfer-Encoding stays, because the body passes as it is."""
_KEPT = frozenset({"host", "content-length", "transfer-encoding"})
"""Who names these in Connection wants the server to see another request than the proxy."""


def check_connection(head: Head) -> None:
    """Refuse a Connection that would take away what the request means. Raises `Unfit`."""
    if head.words("connection") & _KEPT:
        raise malformed("Connection names a header that belongs to the request")


def rewrite_head(head: Head, target: Target) -> bytes:
    """The head in origin form, for one request on a connection of its own."""
    dropped = _HOP_BY_HOP | head.words("connection")
    host = format_authority(target.host, target.port if target.port != 80 else None)
    lines = [f"{head.method} {target.origin} HTTP/{head.version}", f"Host: {host}"]
    for name, value in head.fields:
        lower = name.lower()
        if lower not in dropped and not lower.startswith("proxy-"):
            lines.append(f"{name}: {value}")
    lines.append(f"Via: {head.version} marchproxy")
    lines += ["Connection: Upgrade", "Upgrade: websocket"] if wants_websocket(head) else ["Connection: close"]
    return "\r\n".join((*lines, "", "")).encode("latin-1")
