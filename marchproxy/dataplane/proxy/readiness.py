"""Which sockets of connections are ready, and who waits for that: one epoll instance inside an event loop.

`loop.add_reader` is made for few sockets that stay. For each call libuv tries the descriptor out, sets it
non-blocking once more and takes it out three times over: eighteen system calls for a tunnel, and as many
timers as it has deadlines. Here a socket costs one call to watch and one to leave, and deadlines a set.
"""

import asyncio
import select
import socket
from collections.abc import Callable
from weakref import WeakKeyDictionary

AT_ONCE = 256
"""Sockets looked after before the loop turns to others."""
TICK = 0.1
"""Seconds by which a deadline may be late."""

_READABLE = select.EPOLLIN
_WRITABLE = select.EPOLLOUT
_BROKEN = select.EPOLLHUP | select.EPOLLERR
"""Told unasked, and by every call that follows; so whoever waits may find out."""

type Wake = Callable[[], None]


class _Watched:
    """A socket with who waits for it; at least one does."""

    __slots__ = ("reader", "writer")

    def __init__(self, reader: Wake | None, writer: Wake | None) -> None:
        self.reader = reader
        self.writer = writer

    def events(self) -> int:
        return (_READABLE if self.reader else 0) | (_WRITABLE if self.writer else 0)


class Readiness:
    """That of one event loop; see `readiness`. Level-triggered, as loops are."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, _Watched] = {}
        self._due: dict[int, set[asyncio.Future[bool]]] = {}
        """Those that wait until a tick of the loop's clock at most."""
        self._timer: asyncio.Handle | None = None
        self._next = 0
        """The tick for which it is set."""
        loop.add_reader(self._epoll.fileno(), self._look)

    def add_reader(self, sock: socket.socket, wake: Wake) -> None:
        """Call `wake` whenever there is something to read, or the end. It takes the last one's place."""
        fd = sock.fileno()
        watched = self._watched.get(fd)
        if watched is None:
            self._epoll.register(fd, _READABLE)
            self._watched[fd] = _Watched(wake, None)
        else:
            watched.reader = wake
            self._epoll.modify(fd, watched.events())

    def add_writer(self, sock: socket.socket, wake: Wake) -> None:
        """The same when it takes more."""
        fd = sock.fileno()
        watched = self._watched.get(fd)
        if watched is None:
            self._epoll.register(fd, _WRITABLE)
            self._watched[fd] = _Watched(None, wake)
        else:
            watched.writer = wake
            self._epoll.modify(fd, watched.events())

    def remove_reader(self, sock: socket.socket) -> None:
        """Nobody reads any more. Needed before the socket is closed: another may get its number."""
        fd = sock.fileno()
        watched = self._watched.get(fd)
        if watched is not None and watched.reader is not None:
            watched.reader = None
            self._less(fd, watched)

    def remove_writer(self, sock: socket.socket) -> None:
        """The same of writing."""
        fd = sock.fileno()
        watched = self._watched.get(fd)
        if watched is not None and watched.writer is not None:
            watched.writer = None
            self._less(fd, watched)

    def forget(self, sock: socket.socket) -> None:
        """Nobody reads or writes any more."""
        fd = sock.fileno()
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    async def readable(self, sock: socket.socket, until: float | None) -> bool:
        """Wait for something to read; False: the loop's clock has come to `until`."""
        waiting, wake = self._waiting()
        self.add_reader(sock, wake)
        try:
            return await self._in_time(waiting, until)
        finally:
            self.remove_reader(sock)

    async def writable(self, sock: socket.socket, until: float | None) -> bool:
        """The same until it takes more."""
        waiting, wake = self._waiting()
        self.add_writer(sock, wake)
        try:
            return await self._in_time(waiting, until)
        finally:
            self.remove_writer(sock)

    def _less(self, fd: int, watched: _Watched) -> None:
        if watched.reader is None and watched.writer is None:
            del self._watched[fd]
            self._epoll.unregister(fd)
        else:
            self._epoll.modify(fd, watched.events())

    def _look(self) -> None:
        for fd, events in self._epoll.poll(0, AT_ONCE):
            # Whoever was called before may have let go of this one.
            watched = self._watched.get(fd)
            if watched is None:
                continue
            if watched.reader is not None and events & ~_WRITABLE:
                _call(watched.reader)
            if watched.writer is not None and events & (_WRITABLE | _BROKEN):
                _call(watched.writer)

    def _waiting(self) -> tuple[asyncio.Future[bool], Wake]:
        waiting: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not waiting.done():
                waiting.set_result(True)

        return waiting, wake

    async def _in_time(self, waiting: asyncio.Future[bool], until: float | None) -> bool:
        if until is None:
            return await waiting
        tick = int(until / TICK) + 1
        due = self._due.get(tick)
        if due is None:
            due = self._due[tick] = set()
            self._set_timer(tick)
        due.add(waiting)
        try:
            return await waiting
        finally:
            due.discard(waiting)

    def _set_timer(self, tick: int) -> None:
        if self._timer is not None:
            if self._next <= tick:
                return
            self._timer.cancel()
        self._next = tick
        self._timer = asyncio.get_running_loop().call_at(tick * TICK, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for tick in [each for each in self._due if each * TICK <= now]:
            for waiting in self._due.pop(tick):
                if not waiting.done():
                    waiting.set_result(False)
        if self._due:
            self._set_timer(min(self._due))


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Readiness] = WeakKeyDictionary()


def readiness() -> Readiness:
    """That of the running loop."""
    loop = asyncio.get_running_loop()
    found = _of_loops.get(loop)
    if found is None:
        found = _of_loops[loop] = Readiness(loop)
    return found


def _call(wake: Wake) -> None:
    try:
        wake()
    except Exception as error:
        context = {"message": f"exception in {wake}", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)
