"""Challenges of ACME CAs at our own TLS listeners (TLS-ALPN-01, RFC 8737), brought to whoever orders.

A CA that looks whether a host is ours connects to port 443 and offers the protocol `acme-tls/1` alone. What
it is shown is known to the process that ordered (`client/acmetls.py`) and to nobody else: that gets the
connection, of which nothing was taken. While nobody orders there is no socket to bring it to, and no hello
is read: whether its first bytes may be such an offer is all that is looked at.
"""

import os
import socket

from marchproxy.dataplane.admission.hello import peeked_hello
from marchproxy.dataplane.runtime import DEFAULT_RUNTIME_DIR

_OFFER = ("acme-tls/1",)
_RECORD, _MESSAGE = 5, 4
"""Bytes before a record's content, and before a handshake message's."""


def awaited() -> bool:
    """Whether somebody orders a certificate by such challenges."""
    return os.path.exists(_place())


def excluded(first: bytes) -> bool:
    """Whether what begins with these bytes is a hello that is all there, and none of those: mostly they are
    in one record, and whoever sees them anyhow need not look whether somebody orders.
    """
    content = min(int.from_bytes(first[3:_RECORD]), len(first) - _RECORD)
    return content >= _MESSAGE + int.from_bytes(first[6:9]) and _OFFER[0].encode() not in first


async def brought(client: socket.socket) -> bool:
    """Whether a connection, whose first bytes have come, was one and is in other hands now; here it is shut.

    Raises `OSError` where the client is gone.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        try:
            # First: what is left of an order that was killed must not have clients wait for their hello.
            sock.connect(_place())
        except OSError:
            return False
        hello = await peeked_hello(client)
        if hello is None or hello.alpn != _OFFER:
            return False
        try:
            socket.send_fds(sock, [b"\0"], [client.fileno()])
        except OSError:
            return False
    client.close()
    return True


def _place() -> str:
    folder = os.environ.get("MARCHPROXY_RUNTIME_DIR") or str(DEFAULT_RUNTIME_DIR)
    return f"{folder}/acme.sock"
