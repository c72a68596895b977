"""Messages between the daemon and a worker, with descriptors, over a pair of Unix stream sockets.

Both ends are this program, run by one user, and nobody else has the socket: that is why pickle will do.
"""

import asyncio
import logging
import os
import pickle
import socket
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from struct import Struct
from typing import Any

log = logging.getLogger(__name__)

_HEAD = Struct("=QH")
"""Bytes of the pickled message, and how many descriptors come with it."""
_READ = 1 << 18
DESCRIPTORS = 128
"""That one message may carry; the kernel's own limit is 253 (SCM_MAX_FD)."""

type Heard = Callable[[Any, list[int]], None]
"""Told of each message and its descriptors, which are then its own."""


class Channel:
    """One end. `lost` is called once, when the other end is gone."""

    def __init__(self, sock: socket.socket, heard: Heard, lost: Callable[[], None]) -> None:
        """Take over `sock`; needs a running loop."""
        sock.setblocking(False)
        self._socket = sock
        self._heard = heard
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._descriptors: deque[int] = deque()
        self._waiting: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        """What the socket has not taken; descriptors go with the first byte, and are ours until then."""
        self._open = True
        self._loop.add_reader(sock, self._readable)

    def say(self, message: object, descriptors: Sequence[int] = ()) -> None:
        """Send a message, and copies of descriptors. After the other end is gone, nothing happens.

        Where descriptors cannot be copied the channel ends.
        """
        if not self._open:
            return
        if len(descriptors) > DESCRIPTORS:
            raise ValueError(f"{len(descriptors)} descriptors in one message")
        body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        try:
            kept = _copies(descriptors)
        except OSError as error:
            self._fail(f"descriptors cannot be sent: {error.strerror}")
            return
        self._waiting.append((memoryview(_HEAD.pack(len(body), len(kept)) + body), kept))
        if len(self._waiting) == 1:
            self._write()

    def close(self) -> None:
        """Let go of the socket. The other end hears that it is alone; `lost` is not called."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        for each in (*self._descriptors, *(each for _, kept in self._waiting for each in kept)):
            with suppress(OSError):
                os.close(each)
        self._waiting.clear()
        self._descriptors.clear()

    def _write(self) -> None:
        while self._waiting:
            data, kept = self._waiting[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", kept))] if kept else []
            try:
                sent = self._socket.sendmsg([data], rights)
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._socket, self._write)
                return
            except OSError:
                self._end()
                return
            for each in kept:
                os.close(each)
            if sent < len(data):
                self._waiting[0] = (data[sent:], ())
            else:
                self._waiting.popleft()
        self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(
                _READ, socket.CMSG_SPACE(DESCRIPTORS * array("i").itemsize), socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._end()
            return
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                got = array("i")
                got.frombytes(content[: len(content) - len(content) % got.itemsize])
                self._descriptors.extend(got)
        if not data:
            self._end()
            return
        if flags & socket.MSG_CTRUNC:
            self._fail("descriptors were lost: this process has as many as it may have")
            return
        self._buffer += data
        try:
            self._tell()
        except Exception as error:
            log.debug("message", exc_info=error)
            self._fail(f"a message could not be carried out: {type(error).__name__}: {error}")

    def _tell(self) -> None:
        while self._open and len(self._buffer) >= _HEAD.size:
            length, count = _HEAD.unpack_from(self._buffer)
            end = _HEAD.size + length
            if len(self._buffer) < end or len(self._descriptors) < count:
                return
            message = pickle.loads(memoryview(self._buffer)[_HEAD.size : end])  # noqa: S301  (see above)
            del self._buffer[:end]
            self._heard(message, [self._descriptors.popleft() for _ in range(count)])

    def _fail(self, why: str) -> None:
        """End it because messages would be lost."""
        if self._open:
            log.error("channel between daemon and worker ends: %s", why)
        self._end()

    def _end(self) -> None:
        if self._open:
            self.close()
            self._lost()


def _copies(descriptors: Sequence[int]) -> tuple[int, ...]:
    """Of all, or OSError."""
    made: list[int] = []
    try:
        for each in descriptors:
            made.append(os.dup(each))
    except OSError:
        for each in made:
            os.close(each)
        raise
    return tuple(made)
