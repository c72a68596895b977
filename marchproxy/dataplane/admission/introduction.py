"""Who a client is where a proxy before us says so, and how we say so to a backend: the PROXY protocol."""

import asyncio
import socket
from collections.abc import Iterable
from dataclasses import replace

from marchproxy.dataplane.admission.arrivals import Client
from marchproxy.dataplane.admission.wire import Wire
from marchproxy.dataplane.proxy.protocol.admission import DEADLINE
from marchproxy.dataplane.proxy.protocol.proxyprotocol import (
    Ends,
    NotProxy,
    ProxyProtocolReader,
    build_v1,
    build_v2,
)
from marchproxy.model.address import IPAddress, Prefix
from marchproxy.model.entities import SendProxy

_BUILDERS = {SendProxy.V1: build_v1, SendProxy.V2: build_v2}


async def introduced(wire: Wire, who: Client) -> Client | NotProxy | None:
    """Read the header before anything else, and no byte behind it: who the client is. Raises `OSError`.

    A peer that speaks for itself is the client; None: it says nothing, as in health checks.
    """
    reader, until = ProxyProtocolReader(), asyncio.get_running_loop().time() + DEADLINE
    heard = False
    while True:
        came = await wire.peek(until)
        if not came:
            return NotProxy("the PROXY header is not whole") if heard else None
        heard = True
        said = reader.feed(came)
        if isinstance(said, NotProxy):
            return said
        # As long as the header is not whole, all that came is of it.
        wire.discard(len(came) - len(said.rest) if said else len(came))
        if said:
            return said_by(who, said.ends) if said.ends else who


def said_by(who: Client, ends: Ends) -> Client:
    """The client that `who` speaks for."""
    return replace(who, source=ends.source, port=ends.source_port, proxy=who.source)


def is_trusted(peer: IPAddress, prefixes: Iterable[Prefix]) -> bool:
    """Whether a peer may say who its client is."""
    return any(peer in prefix for prefix in prefixes)


def introduce(upstream: socket.socket, how: SendProxy, who: Client) -> None:
    """Tell a backend, before anything else, who the client is. Raises `OSError`."""
    build = _BUILDERS.get(how)
    if build:
        # The queue of a connection that has just been opened has room for it.
        upstream.sendall(build(Ends(who.source, who.port, who.local, who.local_port)))
