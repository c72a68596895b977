"""Records with packets behind them: the consumer of a perf event array, one buffer for each CPU.

The buffers exist only as long as this object, or the process: the kernel then takes them out of the map.
"""

import ctypes as ct
from collections.abc import Callable
from typing import Self

from marchproxy.dataplane.kernel.errors import KernelError, refusal
from marchproxy.dataplane.kernel.libbpf import PERF_LOST_CALLBACK, PERF_SAMPLE_CALLBACK, library
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.maptypes import MapType

PAGES = 256
"""Of memory for each CPU, a power of two: 1 MiB with pages of 4 KiB."""


class PerfBuffer:
    """Delivers records, those of one CPU in order. To be used by one thread at a time."""

    def __init__(self, source: Map, callback: Callable[[bytes], None], pages: int = PAGES) -> None:
        """`source` must stay open as long as this object. ValueError for a map of another type.

        Raises `KernelError`; `NotPermitted` without CAP_PERFMON, unless perf_event_paranoid allows it.
        """
        if source.type is not MapType.PERF_EVENT_ARRAY:
            raise ValueError(f"map {source.name!r} is a {source.type.name}, not a PERF_EVENT_ARRAY")
        self.lost = 0
        """Records for which there was no room."""
        self._callback = callback
        self._raised: list[BaseException] = []
        # Referred to from here for as long as libbpf may call them.
        self._on_sample, self._on_loss = PERF_SAMPLE_CALLBACK(self._sample), PERF_LOST_CALLBACK(self._loss)
        self._handle: int | None = library().perf_buffer__new(
            source.fd, pages, self._on_sample, self._on_loss, None, None
        )
        if not self._handle:
            raise refusal(ct.get_errno(), f"read map {source.name!r}")

    def consume(self) -> None:
        """Deliver the records that are there, without waiting.

        What the callback raises is raised here, once all are delivered.
        """
        if not self._handle:
            raise KernelError("the perf buffer is closed")
        code = library().perf_buffer__consume(self._handle)
        if self._raised:
            first, self._raised = self._raised[0], []
            raise first
        if code < 0:
            raise refusal(-code, "read a perf buffer")

    def close(self) -> None:
        """Give the buffers back. May be repeated."""
        handle, self._handle = self._handle, None
        if handle:
            library().perf_buffer__free(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sample(self, _context: int, _cpu: int, record: int, size: int) -> None:
        """Called by libbpf, which has no way to be stopped; ctypes would lose an exception."""
        try:
            self._callback(ct.string_at(record, size))
        except BaseException as problem:  # raised again by consume, on the other side of the C code
            self._raised.append(problem)

    def _loss(self, _context: int, _cpu: int, count: int) -> None:
        self.lost += count
