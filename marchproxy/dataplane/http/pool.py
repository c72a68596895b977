"""Connections to backends, made when they are needed and kept for whoever needs them next."""

import asyncio
import ssl
import time
from collections import defaultdict
from collections.abc import Callable

from marchproxy.dataplane.http.upstream import Upstream
from marchproxy.dataplane.proxy.connecting import Connect
from marchproxy.model.address import IPAddress
from marchproxy.policy.plan import Backend

MOST_IDLE = 128
"""Connections to one backend that wait for their next use, in one process."""
IDLE = 30.0
"""Seconds that one waits: less than the backends that end it after 60, or Node.js's 5 for the unlucky."""

type Context = Callable[[Backend], ssl.SSLContext]
"""The TLS that is spoken with a backend that wants it. Raises `ssl.SSLError` where it cannot be."""

type Place = tuple[IPAddress, int, str, str, str, str]
"""See `place_of`."""


class Pool:
    """Those of one process."""

    def __init__(self, connecting: Connect, context: Context) -> None:
        self._connect = connecting
        self._context = context
        self._idle: defaultdict[Place, list[Upstream]] = defaultdict(list)
        self._known: dict[int, tuple[Backend, list[Upstream]]] = {}
        """Those that wait by the identity of their backend, for a moment: its address is slow to look up."""
        self._every: set[Upstream] = set()

    def take(self, backend: Backend) -> Upstream | None:
        """One that waits; the one that waited least. None: there is none."""
        known = self._known.get(id(backend))
        waiting = known[1] if known is not None else self._waiting(backend)
        while waiting:
            found = waiting.pop()
            if not found.transport.is_closing():
                return found
        return None

    async def connect(self, backend: Backend) -> Upstream:
        """A new one. Raises `OSError`; TLS that fails is one."""
        loop = asyncio.get_running_loop()
        sock = await self._connect(backend.address, backend.port, None)
        upstream = Upstream(self, backend, secure=bool(backend.tls))
        try:
            if backend.tls:
                await loop.create_connection(
                    lambda: upstream,
                    sock=sock,
                    ssl=self._context(backend),
                    server_hostname=backend.tls,
                )
            else:
                await loop.create_connection(lambda: upstream, sock=sock)
        except BaseException:
            sock.close()
            raise
        self._every.add(upstream)
        return upstream

    def keep(self, upstream: Upstream) -> None:
        """See `Keeper`."""
        known = self._known.get(id(upstream.backend))
        waiting = known[1] if known is not None else self._waiting(upstream.backend)
        if len(waiting) < MOST_IDLE:
            waiting.append(upstream)
        else:
            upstream.transport.close()

    def gone(self, upstream: Upstream) -> None:
        """See `Keeper`."""
        self._every.discard(upstream)
        waiting = self._waiting(upstream.backend)
        if upstream in waiting:
            waiting.remove(upstream)

    def expire(self, *, kept: Callable[[Backend], bool] = lambda _: True) -> None:
        """Close what has waited too long, and what goes to a backend that is not `kept`."""
        since = time.monotonic() - IDLE
        for place, waiting in list(self._idle.items()):
            for upstream in [each for each in waiting if each.idle_since < since or not kept(each.backend)]:
                waiting.remove(upstream)
                upstream.transport.close()
            if not waiting:
                del self._idle[place]
        self._known.clear()

    def close(self) -> None:
        """End all."""
        for upstream in tuple(self._every):
            upstream.transport.abort()
        self._idle.clear()
        self._known.clear()

    def _waiting(self, backend: Backend) -> list[Upstream]:
        waiting = self._idle[place_of(backend)]
        self._known[id(backend)] = backend, waiting
        return waiting


def place_of(backend: Backend) -> Place:
    """What its connections are kept by: no service gets another's, and TLS none in the clear, of another CA,
    or with another certificate of ours.
    """
    terms = backend.tls, backend.tls_ca, backend.tls_cert
    return backend.address, backend.port, backend.service, *terms
