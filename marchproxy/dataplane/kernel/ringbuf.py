"""Events from programs: the consumer of a BPF ring buffer (kernel 5.8) whose records are all of one size.

libbpf's own consumer calls back for each record, which costs Python more than to copy a hundred of them.
Here what waits is one copy, whose records lie at equal distances.
"""

import mmap
from struct import Struct
from typing import Final, Self

from marchproxy.dataplane.kernel.errors import KernelError, refusal
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.maptypes import MapType

_HEADER = 8
"""Octets in front of each record: its length, and where its page is (BPF_RINGBUF_HDR_SZ)."""
_BUSY = 0x80
"""In the last octet of the length: a program still writes (BPF_RINGBUF_BUSY_BIT). None ever discards one."""
_POSITION = Struct("N")
"""An unsigned long. In native mode it is read and written by one instruction."""


class RingBuffer:
    """To be used by one thread at a time."""

    def __init__(self, source: Map, size: int) -> None:
        """`size` is that of each record. ValueError for a map of another type; `KernelError`."""
        if source.type is not MapType.RINGBUF:
            raise ValueError(f"map {source.name!r} is a {source.type.name}, not a RINGBUF")
        self._size = size
        self.stride: Final = _HEADER + (size + 7) // 8 * 8
        """Octets from one record to the next, in the ring and in what `take` brings."""
        self._room = source.max_entries
        page = mmap.PAGESIZE
        try:
            # One page with the consumer's position; one with the producer's, and then the data, twice in a
            # row: what goes beyond the end goes on at the beginning (kernel/bpf/ringbuf.c).
            self._own = mmap.mmap(source.fd, page)
            self._data = mmap.mmap(source.fd, page + 2 * self._room, prot=mmap.PROT_READ, offset=page)
        except OSError as error:
            raise refusal(error.errno or 0, f"consume map {source.name!r}") from error

    def take(self) -> bytes:
        """All records that wait, in order, each with its header in front; see the other methods."""
        if self._own.closed:
            raise KernelError("the ring buffer is closed")
        (begin,) = _POSITION.unpack_from(self._own)
        (end,) = _POSITION.unpack_from(self._data)
        first = mmap.PAGESIZE + begin % self._room
        flags = self._data[first + 3 : first + end - begin : self.stride]
        busy = flags.find(_BUSY)
        ready = len(flags) if busy < 0 else busy
        # After the look at the flags: x86 reads in this order, and elsewhere far too much lies in between.
        taken = self._data[first : first + ready * self.stride]
        _POSITION.pack_into(self._own, 0, begin + len(taken))
        return taken

    def count(self, taken: bytes) -> int:
        """How many records `take` has brought."""
        return len(taken) // self.stride

    def record(self, taken: bytes, number: int) -> bytes:
        """One of them, from 0."""
        first = number * self.stride + _HEADER
        return taken[first : first + self._size]

    def column(self, taken: bytes, offset: int) -> bytes:
        """The octet at `offset` of each of them."""
        return taken[_HEADER + offset :: self.stride]

    def close(self) -> None:
        """Free the mapping; records that wait are for the next consumer. May be repeated."""
        self._own.close()
        self._data.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
