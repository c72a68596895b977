"""Connections to backends that speak HTTP/2: shared by many exchanges, and opened once for all who wait."""

import asyncio
import errno
import socket
import ssl

from marchproxy.dataplane.http.http2.upstream import BackendLink, BackendStream
from marchproxy.dataplane.http.pool import Context, Place, place_of
from marchproxy.dataplane.proxy.connecting import Connect
from marchproxy.dataplane.tasks import Tasks
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import Backend

IDLE = 60.0
"""Seconds that a connection without exchanges is kept."""
ONCE_MORE = 5.0
"""Seconds for a connection to a backend that has refused a request unread."""
GREETING = 5.0
"""Seconds for a backend to send its settings (RFC 9113 section 3.4): of HTTP/1.1 it may wait for more."""
_KEEPALIVE = {
    socket.TCP_KEEPIDLE: 30,
    socket.TCP_KEEPINTVL: 10,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 60_000,
}
"""TCP asks whether a backend is still there, for calls may be silent for long. HTTP/2's own pings cannot:
servers of gRPC end a connection on which more than one comes in five minutes."""
_TRIES = 3
PROTOCOL = "h2"


class Http2Pool:
    """Those of one process."""

    def __init__(self, connecting: Connect, context: Context) -> None:
        self._connect = connecting
        self._context = context
        self._links: dict[Place, list[BackendLink]] = {}
        self._opening: dict[Place, asyncio.Task[None]] = {}
        self._tasks = Tasks()

    def take(self, backend: Backend) -> BackendStream | None:
        """A place on a connection that stands; None: there is none."""
        link = self._find(backend)
        return BackendStream(link, self._again) if link is not None else None

    async def connect(self, backend: Backend) -> BackendStream:
        """A place on a new connection, or on one that others have opened meanwhile. Raises `OSError`."""
        return BackendStream(await self._reach(backend), self._again)

    def tick(self, now: float, silence: float, head: float) -> None:
        """See to what takes too long, and close what nobody uses."""
        for link in [link for links in self._links.values() for link in links]:
            link.tick(now, silence, head)
            if not link.streams and not link.over and now - link.idle_since > IDLE:
                link.leaving = True
                link.farewell()
                link.close()

    async def close(self) -> None:
        """End all."""
        await self._tasks.stop()
        for task in self._opening.values():
            task.cancel()
        for link in [link for links in self._links.values() for link in links]:
            link.transport.abort()
        self._links.clear()

    def _find(self, backend: Backend) -> BackendLink | None:
        return next((link for link in self._links.get(place_of(backend), ()) if link.room), None)

    async def _reach(self, backend: Backend) -> BackendLink:
        place = place_of(backend)
        for _ in range(_TRIES):
            found = self._find(backend)
            if found is not None:
                return found
            task = self._opening.get(place)
            if task is None:
                task = self._opening[place] = asyncio.get_running_loop().create_task(self._open(backend))
                task.add_done_callback(lambda done: self._opened(place, done))
            # One who waits no longer must not end it for the others.
            await asyncio.shield(task)
        raise OSError(errno.ECONNREFUSED, "the backend takes no requests")

    def _opened(self, place: Place, task: asyncio.Task[None]) -> None:
        self._opening.pop(place, None)
        if not task.cancelled():
            # Who waited has it; nobody may have.
            task.exception()

    async def _open(self, backend: Backend) -> None:
        loop = asyncio.get_running_loop()
        sock = await self._connect(backend.address, backend.port, None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        link = BackendLink(backend, self._gone)
        try:
            if backend.tls:
                transport, _ = await loop.create_connection(
                    lambda: link, sock=sock, ssl=self._context(backend), server_hostname=backend.tls
                )
                if transport.get_extra_info("ssl_object").selected_alpn_protocol() != PROTOCOL:
                    transport.abort()
                    raise ssl.SSLError(ssl.SSL_ERROR_SSL, "the backend does not speak HTTP/2")
            else:
                await loop.create_connection(lambda: link, sock=sock)
        except BaseException:
            sock.close()
            raise
        try:
            async with asyncio.timeout(GREETING):
                await link.told
            if link.over:
                raise OSError(errno.ECONNRESET, "the backend does not speak HTTP/2")
        except BaseException:
            link.transport.abort()
            raise
        self._links.setdefault(place_of(backend), []).append(link)

    def _gone(self, link: BackendLink) -> None:
        place = place_of(link.backend)
        links = self._links.get(place, [])
        if link in links:
            links.remove(link)
        if not links:
            self._links.pop(place, None)

    def _again(self, stream: BackendStream) -> None:
        """Have a request sent once more that its backend has not looked at."""
        self._tasks.start(self._move(stream), name=f"once more {stream.backend.address}")

    async def _move(self, stream: BackendStream) -> None:
        try:
            async with asyncio.timeout(ONCE_MORE):
                link = await self._reach(stream.backend)
        except OSError as error:
            why = error.strerror or "no answer"
            stream.fail(Reason.UPSTREAM_REFUSED, f"the backend has refused the request: {why}")
            return
        if stream.waits:
            stream.move(link)
