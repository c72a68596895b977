"""The file format of captures: pcapng (draft-ietf-opsawg-pcapng). Pure; numbers in this machine's byte order.

A file is a run of blocks: type, length, body, length again. Every body and every option is filled up to a
multiple of four bytes.
"""

import sys
from collections.abc import Iterator, Sequence
from struct import Struct, pack

from marchproxy.dataplane.capture.packet import CapturedPacket, CaptureKind

SECTION, INTERFACE, STATISTICS, PACKET = 0x0A0D0D0A, 1, 5, 6
_BYTE_ORDER_MAGIC, _ANY_LENGTH = 0x1A2B3C4D, (1 << 64) - 1
_ETHERNET = 1
_END, _COMMENT = 0, 1
_SECTION_OS, _SECTION_APPLICATION = 3, 4
_INTERFACE_NAME, _INTERFACE_RESOLUTION = 2, 9
_PACKET_FLAGS = 2
_STATISTICS_DROPPED = 5
_NANOSECONDS = b"\x09"
"""Times are counted in units of 10^-9 seconds."""
_INBOUND, _OUTBOUND = 1, 2
_OPTION, _HEAD = Struct("=HH"), Struct("=II")
_LONGEST = 65_535
"""Bytes of an option."""

type Option = tuple[int, bytes]


class Writer:
    """Makes the blocks of one section. Interfaces are numbered in the order they are named."""

    def __init__(self, application: str, comment: str, snap: int) -> None:
        """`comment` is told about the file as a whole, `snap` the most bytes of a packet."""
        self._application = application
        self._comment = comment
        self._snap = snap
        self._interfaces: dict[str, int] = {}

    def begin(self, interfaces: Sequence[str]) -> bytes:
        """What a file starts with: the section, and the interfaces that are known beforehand."""
        head = pack("=IHHQ", _BYTE_ORDER_MAGIC, 1, 0, _ANY_LENGTH)
        options = [(_COMMENT, self._comment.encode()), (_SECTION_OS, sys.platform.encode())]
        options.append((_SECTION_APPLICATION, self._application.encode()))
        known = b"".join(self._interface(name) for name in interfaces)
        return _block(SECTION, head, options) + known

    def packet(self, packet: CapturedPacket) -> bytes:
        """One packet, behind its interface where that is new."""
        new = b"" if packet.interface in self._interfaces else self._interface(packet.interface)
        number = self._interfaces[packet.interface]
        high, low = divmod(packet.time, 1 << 32)
        head = pack("=IIIII", number, high, low, len(packet.data), packet.length)
        way = _OUTBOUND if packet.kind is CaptureKind.LEFT else _INBOUND
        options = [(_COMMENT, packet.comment.encode()), (_PACKET_FLAGS, pack("=I", way))]
        return new + _block(PACKET, head + _padded(packet.data), options)

    def end(self, time: int, missed: int) -> bytes:
        """What a file may end with: how many packets are missing. `time` as of packets."""
        if not self._interfaces:
            return b""
        head = pack("=III", 0, *divmod(time, 1 << 32))
        return _block(STATISTICS, head, [(_STATISTICS_DROPPED, pack("=Q", missed))])

    def _interface(self, name: str) -> bytes:
        self._interfaces[name] = len(self._interfaces)
        options = [(_INTERFACE_NAME, name.encode()), (_INTERFACE_RESOLUTION, _NANOSECONDS)]
        return _block(INTERFACE, pack("=HHI", _ETHERNET, 0, self._snap), options)


class Reader:
    """Cuts a stream of pieces into whole blocks, as its own `Writer` made them."""

    def __init__(self) -> None:
        self._pending = b""

    def blocks(self, piece: bytes) -> Iterator[tuple[int, bytes]]:
        """Type and whole bytes of each block that is complete. ValueError for what is no pcapng."""
        self._pending += piece
        while len(self._pending) >= _HEAD.size:
            kind, length = _HEAD.unpack_from(self._pending)
            if length < 12 or length % 4:
                raise ValueError(f"a block of {length} bytes")
            if len(self._pending) < length:
                return
            block, self._pending = self._pending[:length], self._pending[length:]
            yield kind, block


def dropped(block: bytes) -> int:
    """How many packets are missing, by a block of `STATISTICS` that `Writer.end` made."""
    return int.from_bytes(block[24:32], sys.byteorder)


def _block(kind: int, head: bytes, options: Sequence[Option]) -> bytes:
    body = head + b"".join(_option(*each) for each in options if each[1]) + _OPTION.pack(_END, 0)
    length = len(body) + 12
    return _HEAD.pack(kind, length) + body + pack("=I", length)


def _option(code: int, value: bytes) -> bytes:
    value = value[:_LONGEST]
    return _OPTION.pack(code, len(value)) + _padded(value)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
