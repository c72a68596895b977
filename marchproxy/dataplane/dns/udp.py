"""Questions and answers as datagrams."""

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

from marchproxy.dataplane.proxy import pktinfo, sockets
from marchproxy.dataplane.tasks import Tasks
from marchproxy.model.address import IPAddress

log = logging.getLogger(__name__)

AT_ONCE = 1024
"""Questions of one socket that wait for an answer; further ones are lost, and asked again."""
_DATAGRAMS_AT_ONCE = 64
_LARGEST = 4096
"""Bytes of a question; longer ones are cut off and then malformed."""

type Respond = Callable[[bytes, IPAddress], Awaitable[bytes | None]]
type Client = tuple[str, int] | tuple[str, int, int, int]


class UdpServer:
    """Answers what one socket receives. The socket is its own from now on."""

    def __init__(self, sock: socket.socket, respond: Respond) -> None:
        self._socket = sock
        self._respond = respond
        self._tasks = Tasks()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._readable)

    async def close(self) -> None:
        """Receive no more; who waits is not answered."""
        self._loop.remove_reader(self._socket)
        await self._tasks.stop()
        self._socket.close()

    def _readable(self) -> None:
        for _ in range(_DATAGRAMS_AT_ONCE):
            try:
                data, ancillary, _, client = self._socket.recvmsg(_LARGEST, pktinfo.ANCILLARY)
            except OSError:
                # Nothing left, or an ICMP error about an answer, which the kernel has told only now.
                return
            if len(self._tasks) < AT_ONCE and client[1]:
                self._tasks.start(self._answer(data, ancillary, client), name="dns client")

    async def _answer(self, data: bytes, ancillary: pktinfo.Ancillary, client: Client) -> None:
        wire = await self._respond(data, sockets.address_of(client[0]))
        if wire is None:
            return
        control: pktinfo.Ancillary = []
        with suppress(LookupError):
            control = pktinfo.source(pktinfo.destination(ancillary))
        try:
            self._socket.sendmsg([wire], control, 0, client)
        except OSError as error:
            # A full buffer loses datagrams as any router does, and clients may be gone.
            if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                log.debug("no answer to %s: %s", client[0], error.strerror)
