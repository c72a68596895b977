"""HTTP/2's frames as they arrive, looked at before the library reads them (RFC 9113 section 4.1).

The library has no limit for what a peer makes it do for nothing, and takes GOAWAY for the end of everything.
So frames are counted here, against allowances that time fills up again; and GOAWAY is taken out.
"""

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

from h2.errors import ErrorCodes

_HEADER = 9
"""Bytes in front of every frame."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client says first (section 3.4)."""
MAX_FRAME = 16_384
"""Bytes of a frame: nobody was allowed more."""
MOST_CONTINUED = 16
"""CONTINUATION frames of one head (CVE-2024-27316)."""
MAX_BLOCK = 65_536
"""Bytes of one head, compressed."""

_PREFACE = -1
END_STREAM = 0x1
_END_HEADERS = 0x4
_GOAWAY = Struct("!LL")
_NUMBER = 2**31 - 1


class Kind(IntEnum):
    """Types of frames."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Flood(Exception):
    """A peer sends too much of what is of no use; the text says what."""


class Broken(Exception):
    """A frame that cannot be read; `code` is what the peer is told."""

    def __init__(self, code: ErrorCodes, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Allowance:
    """So many at once, and so many more each second."""

    __slots__ = ("_left", "_most", "_per_second", "_since", "_what")

    def __init__(self, what: str, most: float, per_second: float) -> None:
        self._what = what
        self._left = self._most = most
        self._per_second = per_second
        self._since = 0.0

    def spend(self, now: float) -> None:
        """Take one. Raises `Flood` when there is none."""
        if self._left < 1:
            self._left = min(self._most, self._left + (now - self._since) * self._per_second)
            self._since = now
            if self._left < 1:
                raise Flood(f"the peer sends too many {self._what}")
        elif self._left == self._most:
            self._since = now
        self._left -= 1

    def earn(self, count: float) -> None:
        """Allow more, up to what there was in the beginning."""
        self._left = min(self._most, self._left + count)


@dataclass(frozen=True, slots=True)
class Farewell:
    """A GOAWAY: the peer begins nothing more, and has not looked at streams above `last`."""

    last: int
    code: int


class Frames:
    """Those of one direction of one connection."""

    def __init__(self, *, preface: bool, resets: float) -> None:
        """`preface`: it begins with one; `resets`: streams that the peer may reset at once."""
        self.resets = Allowance("resets of streams", resets, resets / 10)
        """CVE-2023-44487; whoever resets streams for a peer's errors spends them, too."""
        self.empty = Allowance("frames without content", 100, 10)
        self.updates = Allowance("window updates", 4000, 500)
        """What is sent earns more of them."""
        self.since: float | None = None
        """When that began which is not complete, and should be soon: a head, or a frame but of DATA."""
        self.farewell: Farewell | None = None
        """The last GOAWAY."""
        self._control = Allowance("pings and settings", 200, 20)
        self._others = Allowance("frames of no use", 1000, 100)
        self._held = b""
        self._kind = _PREFACE
        self._left = len(PREFACE) if preface else 0
        """Bytes of the frame that go on."""
        self._goodbye: bytearray | None = None
        self._block = -1
        """Bytes of the head that is not complete; -1: there is none."""
        self._continued = 0

    def feed(self, data: bytes, now: float) -> bytes:
        """What the library should read of the bytes that came. Raises `Flood`, `Broken`."""
        if self._held:
            data, self._held = self._held + data, b""
        kept: list[bytes] = []
        at = begin = 0
        end = len(data)
        while at < end:
            if self._left:
                size = min(self._left, end - at)
                if self._kind == _PREFACE and data[at : at + size] != PREFACE[-self._left :][:size]:
                    raise Broken(ErrorCodes.PROTOCOL_ERROR, "no preface")
                self._left -= size
                if self._goodbye is not None:
                    self._goodbye += data[at : at + size]
                    begin = at + size
                    self._part()
                at += size
                continue
            if end - at < _HEADER:
                self._held = data[at:]
                break
            kind = self._kind = data[at + 3]
            length = self._left = int.from_bytes(data[at : at + 3])
            if length > MAX_FRAME:
                # The library would hold all of it before it looks.
                raise Broken(ErrorCodes.FRAME_SIZE_ERROR, "a frame that is too large")
            self._look(kind, data[at + 4], length, now)
            if kind == Kind.GOAWAY:
                if any(data[at + 5 : at + _HEADER]):
                    raise Broken(ErrorCodes.PROTOCOL_ERROR, "a GOAWAY on a stream")
                kept.append(data[begin:at])
                begin = at + _HEADER
            at += _HEADER
        self._watch(now)
        if not begin and not self._held:
            return data
        kept.append(data[begin:at])
        return b"".join(kept)

    def _look(self, kind: int, flags: int, length: int, now: float) -> None:
        match kind:
            case Kind.DATA:
                if not length and not flags & END_STREAM:
                    self.empty.spend(now)
            case Kind.HEADERS | Kind.PUSH_PROMISE:
                self._block, self._continued = length, 0
            case Kind.CONTINUATION:
                self._continued += 1
                self._block += length
                if self._continued > MOST_CONTINUED or self._block > MAX_BLOCK:
                    raise Flood("the peer's head has no end")
            case Kind.RST_STREAM:
                self.resets.spend(now)
            case Kind.PING | Kind.SETTINGS:
                self._control.spend(now)
            case Kind.WINDOW_UPDATE:
                self.updates.spend(now)
            case Kind.GOAWAY:
                if not _GOAWAY.size <= length <= MAX_FRAME:
                    raise Broken(ErrorCodes.FRAME_SIZE_ERROR, "a GOAWAY of the wrong size")
                self._control.spend(now)
                self._goodbye = bytearray()
            case _:
                self._others.spend(now)
        if flags & _END_HEADERS and kind in (Kind.HEADERS, Kind.PUSH_PROMISE, Kind.CONTINUATION):
            self._block = -1

    def _part(self) -> None:
        """Read a GOAWAY, once it is complete."""
        if self._goodbye is None or self._left:
            return
        last, code = _GOAWAY.unpack_from(self._goodbye)
        self._goodbye = None
        self.farewell = Farewell(last & _NUMBER, code)

    def _watch(self, now: float) -> None:
        partial = bool(self._left) and self._kind != Kind.DATA
        if partial or self._held or self._block >= 0:
            self.since = self.since or now
        else:
            self.since = None
