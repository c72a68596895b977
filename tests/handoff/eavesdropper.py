"""Who hears every TCP segment that passes an interface, and notes what it was."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rig import Host

ALL_PROTOCOLS = 0x0003
BUFFER = 64 << 20
SO_RCVBUFFORCE, SO_TIMESTAMPNS = 33, 35
"""Of <asm-generic/socket.h>: Python's socket module leaves them out."""
HEADS = 160
FIN, RST = 1, 4
_ETHERNET = 14
_HALF = 1 << 31
_WORD = 1 << 32


@dataclass(frozen=True, slots=True)
class Segment:
    """One, as it passed."""

    at: float
    """The kernel's wall clock, in seconds."""
    outgoing: bool
    ports: tuple[int, int]
    sequence: int
    flags: int
    length: int
    """Bytes of payload."""

    @property
    def end(self) -> int:
        return (self.sequence + self.length) % _WORD


@dataclass(slots=True)
class Heard:
    """All of them, in order."""

    segments: list[Segment] = field(default_factory=list)

    @property
    def resets(self) -> list[Segment]:
        return [each for each in self.segments if each.flags & RST]

    @property
    def ends(self) -> set[tuple[tuple[int, int], int]]:
        """Of directions, with the sequence number: a FIN that is sent again is the same."""
        return {(each.ports, each.end) for each in self.segments if each.flags & FIN}

    def waits(self) -> dict[tuple[int, int], list[tuple[float, float]]]:
        """By connection: the moments of two segments that came in and went beyond all before them."""
        found: dict[tuple[int, int], list[tuple[float, float]]] = {}
        last: dict[tuple[int, int], tuple[float, int]] = {}
        for each in self.segments:
            if each.outgoing or not each.length:
                continue
            at, most = last.get(each.ports, (each.at, each.sequence))
            if 0 < (each.end - most) % _WORD < _HALF:
                found.setdefault(each.ports, []).append((at, each.at))
                last[each.ports] = each.at, each.end
        return found


@contextmanager
def listen_at(host: Host, interface: str = "eth0") -> Iterator[Heard]:
    """Listen until the end of the block; behind it all is there."""
    heard, over = Heard(), threading.Event()
    with host.call(_open, interface) as sock:
        thread = threading.Thread(target=_hear, args=(sock, heard, over), daemon=True)
        thread.start()
        try:
            yield heard
        finally:
            over.set()
            thread.join(10)


def _open(interface: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    sock.bind((interface, 0))
    sock.settimeout(0.1)
    return sock


def _hear(sock: socket.socket, heard: Heard, over: threading.Event) -> None:
    while True:
        try:
            frame, said, _, origin = sock.recvmsg(HEADS, 64)
        except TimeoutError:
            if over.is_set():
                return
            continue
        seconds, nanoseconds = struct.unpack("=qq", said[0][2][:16])
        segment = _read(frame, seconds + nanoseconds / 1e9, origin[2] == socket.PACKET_OUTGOING)
        if segment is not None:
            heard.segments.append(segment)


def _read(frame: bytes, at: float, outgoing: bool) -> Segment | None:
    version = frame[_ETHERNET] >> 4 if len(frame) > _ETHERNET + 40 else 0
    if version == 4 and frame[_ETHERNET + 9] == socket.IPPROTO_TCP:
        tcp = _ETHERNET + (frame[_ETHERNET] & 15) * 4
        end = _ETHERNET + int.from_bytes(frame[_ETHERNET + 2 : _ETHERNET + 4])
    elif version == 6 and frame[_ETHERNET + 6] == socket.IPPROTO_TCP:
        tcp = _ETHERNET + 40
        end = tcp + int.from_bytes(frame[_ETHERNET + 4 : _ETHERNET + 6])
    else:
        return None
    source, destination, sequence, _, offset, flags = struct.unpack_from("!HHIIBB", frame, tcp)
    length = end - tcp - (offset >> 4) * 4
    return Segment(at, outgoing, (source, destination), sequence, flags, length)
