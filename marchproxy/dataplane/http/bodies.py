"""Where a message ends (RFC 9112 section 6): bodies taken out of their framing, piece by piece."""

from collections.abc import Callable
from typing import Protocol

from marchproxy.dataplane.http.fields import may_trail
from marchproxy.dataplane.http.messages import Fields
from marchproxy.dataplane.proxy.protocol.http_body import Chunked

type Take = Callable[[memoryview | bytes], None]
"""Given each piece of a body."""


class Body(Protocol):
    """Reads one body."""

    @property
    def done(self) -> bool:
        """Whether all of it has come."""

    @property
    def trailers(self) -> Fields:
        """What came behind it."""

    def feed(self, data: bytes, take: Take) -> int:
        """Hand on what is of the body; how many bytes were. Raises `Unfit` when the framing is broken."""


class Counted:
    """A body of known length."""

    __slots__ = ("done", "left", "trailers")

    def __init__(self, length: int) -> None:
        self.left = length
        self.done = not length
        self.trailers: Fields = ()

    def feed(self, data: bytes, take: Take) -> int:
        """See `Body`."""
        size, left = len(data), self.left
        if size > left:
            size, data = left, data[:left]
        self.left = left - size
        self.done = size == left
        if size:
            take(data)
        return size


NOTHING = Counted(0)
"""The body of what has none."""


class UntilClose:
    """A response that ends with its connection."""

    __slots__ = ("done", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.trailers: Fields = ()

    def feed(self, data: bytes, take: Take) -> int:
        """See `Body`."""
        take(data)
        return len(data)


class Dechunked(Chunked):
    """A body in chunks, without them."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []
        self._found: list[tuple[str, str]] = []

    @property
    def done(self) -> bool:
        """Whether the last chunk and the trailers have come."""
        return self.ended

    @property
    def trailers(self) -> Fields:
        """What came behind the last chunk, and goes on."""
        return tuple(self._found)

    def feed(self, data: bytes, take: Take) -> int:
        """See `Body`."""
        size = len(self.take(data))
        pieces, self._pieces = self._pieces, []
        if pieces:
            take(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        return size

    def _content(self, data: bytes) -> None:
        self._pieces.append(data)

    def _trail(self, line: bytes) -> None:
        name, _, value = line.decode("latin-1").partition(":")
        if may_trail(name := name.lower()):
            self._found.append((name, value.strip(" \t")))


def chunk(data: memoryview | bytes) -> bytes:
    """A piece of a body as one chunk; it is not empty."""
    return b"".join([b"%x\r\n" % len(data), data, b"\r\n"])


def last_chunk(trailers: Fields) -> bytes:
    """What ends a body in chunks."""
    if not trailers:
        return b"0\r\n\r\n"
    lines = "".join([f"{name}: {value}\r\n" for name, value in trailers])
    return f"0\r\n{lines}\r\n".encode("latin-1")
