"""Events from programs: the consumer of a BPF ring buffer (kernel 5.8), made to sit in an event loop."""

import ctypes as ct
import errno
from collections.abc import Callable
from typing import Self

from marchproxy.dataplane.kernel.errors import KernelError, refusal
from marchproxy.dataplane.kernel.libbpf import SAMPLE_CALLBACK, library
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.maptypes import MapType

LIMIT = 4096
"""Records per `RingBuffer.consume`: a flood of events must not keep the event loop from its other work."""

_STOP = -errno.ECANCELED


class RingBuffer:
    """Delivers records in order, each as bytes of its own. To be used by one thread at a time.

    With asyncio: `loop.add_reader(ring.fileno(), ring.consume)`. The descriptor is readable while records
    wait.
    """

    def __init__(self, source: Map, callback: Callable[[bytes], None]) -> None:
        """`source` must stay open as long as this object. ValueError for a map of another type."""
        if source.type is not MapType.RINGBUF:
            raise ValueError(f"map {source.name!r} is a {source.type.name}, not a RINGBUF")
        self._callback = callback
        self._raised: list[BaseException] = []
        self._remaining = 0
        self._delivered = 0
        self._consuming = False
        # Referred to from here for as long as libbpf may call it.
        self._on_sample = SAMPLE_CALLBACK(self._sample)
        self._handle: int | None = library().ring_buffer__new(source.fd, self._on_sample, None, None)
        if not self._handle:
            raise refusal(ct.get_errno(), f"consume map {source.name!r}")

    def fileno(self) -> int:
        """A descriptor to wait on, the same for the life of this object."""
        return int(library().ring_buffer__epoll_fd(self._open_handle()))

    def consume(self, limit: int = LIMIT) -> int:
        """Deliver up to `limit` records that are there, without waiting; how many.

        What the callback raises ends the delivery and is raised here. Its record counts as consumed.
        """
        handle = self._open_handle()
        self._remaining, self._delivered, self._consuming = limit, 0, True
        try:
            code = library().ring_buffer__consume(handle)
        finally:
            self._consuming = False
        if self._raised:
            raise self._raised.pop()
        if code < 0 and code != _STOP:
            raise refusal(-code, "consume a ring buffer")
        return self._delivered

    def close(self) -> None:
        """Free the buffer's mapping; records that wait are for the next consumer. May be repeated.

        RuntimeError from within the callback, whose record lies in that mapping.
        """
        if self._consuming:
            raise RuntimeError("a ring buffer cannot be closed by its own callback")
        handle, self._handle = self._handle, None
        if handle:
            library().ring_buffer__free(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_handle(self) -> int:
        if not self._handle:
            raise KernelError("the ring buffer is closed", errno=errno.EBADF)
        return self._handle

    def _sample(self, _context: int, record: int, size: int) -> int:
        """Called by libbpf. A negative result stops it behind this record; ctypes would lose an exception."""
        self._delivered += 1
        try:
            self._callback(ct.string_at(record, size))
        except BaseException as problem:  # raised again by consume, on the other side of the C code
            self._raised.append(problem)
            return _STOP
        self._remaining -= 1
        return 0 if self._remaining > 0 else _STOP
