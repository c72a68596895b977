"""Reading fields in network byte order, each checked against what is there."""


class Truncated(Exception):
    """A field goes beyond the end of what holds it, or not to it."""


class Cursor:
    """Reads forward through bytes that are complete; every read raises `Truncated` beyond their end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that were not read."""
        return len(self._data) - self._at

    def number(self, size: int) -> int:
        """An unsigned number of `size` bytes."""
        return int.from_bytes(self.take(size))

    def take(self, size: int) -> bytes:
        """The next bytes."""
        if size > self.left:
            raise Truncated
        self._at += size
        return self._data[self._at - size : self._at]

    def vector(self, size: int) -> "Cursor":
        """What follows a length of `size` bytes (RFC 8446 section 3.4)."""
        return Cursor(self.take(self.number(size)))

    def end(self) -> None:
        """Nothing may be left."""
        if self.left:
            raise Truncated
