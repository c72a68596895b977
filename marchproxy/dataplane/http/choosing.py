"""A connection under TLS whose version of HTTP is known once the handshake is over."""

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

type Choose = Callable[[ssl.SSLObject], asyncio.Protocol]
"""What speaks the protocol that was agreed on."""


class Choosing(asyncio.Protocol):
    """Gives its transport to who speaks it."""

    def __init__(self, choose: Choose) -> None:
        self._choose = choose

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`; called after the handshake."""
        chosen = self._choose(transport.get_extra_info("ssl_object"))
        cast(asyncio.Transport, transport).set_protocol(chosen)
        chosen.connection_made(transport)
