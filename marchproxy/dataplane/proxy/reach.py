"""A TCP connection to one of the backends of a conversation."""

import asyncio
import logging
import socket
from collections.abc import Set as AbstractSet

from marchproxy.dataplane.proxy import sockets
from marchproxy.dataplane.proxy.connecting import Connect, connect
from marchproxy.dataplane.proxy.ledger import Conversation, Ledger
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import Backend

log = logging.getLogger(__name__)


class Unreachable(Exception):
    """No backend could be reached."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.name)
        self.reason = reason


async def reach(
    ledger: Ledger,
    conversation: Conversation,
    *,
    each: float,
    within: float,
    connecting: Connect = connect,
    among: AbstractSet[str] | None = None,
) -> tuple[Backend, socket.socket]:
    """The first backend that answers; each may take `each` seconds, and all of them together `within`.

    `among`: only backends of these services, by their qualified names.
    Raises `Unreachable` with the reason of the last one tried.
    """
    reason = Reason.NO_BACKEND
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    for backend in ledger.candidates(conversation):
        if among is not None and backend.service not in among:
            continue
        if ledger.is_blocked(backend):
            reason = Reason.BLOCKED_DESTINATION
            continue
        try:
            until = min(loop.time() + each, deadline)
            return backend, await connecting(backend.address, backend.port, until)
        except OSError as error:
            reason = sockets.refusal_reason(error)
            log.debug("%s at %s:%d: %s", backend.service, backend.address, backend.port, error)
        if loop.time() >= deadline:
            break
    raise Unreachable(reason)
