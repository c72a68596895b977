"""A DNS server that knows one answer: whatever name is asked for is at the address that it listens on."""

import asyncio
import socket
from ipaddress import ip_address

from rig.programs.listening import serve

TTL = 2
"""Seconds."""
_A, _AAAA = 1, 28
_ANSWER = 0x8180
"""Flags: a response, recursion desired and available."""
_POINTER = b"\xc0\x0c"
"""To the name of the question (RFC 1035 section 4.1.4)."""


def answer(question: bytes, address: str) -> bytes:
    """To a query with one question; empty for what is none."""
    end = question.find(b"\0", 12)
    if len(question) < 17 or end < 0 or len(question) < end + 5:
        return b""
    asked = question[12 : end + 5]
    own = ip_address(address)
    kind = _A if own.version == 4 else _AAAA
    known = int.from_bytes(asked[-4:-2]) == kind
    counts = b"\0\1" + int(known).to_bytes(2) + bytes(4)
    record = _POINTER + asked[-4:] + TTL.to_bytes(4) + len(own.packed).to_bytes(2) + own.packed
    return question[:2] + _ANSWER.to_bytes(2) + counts + asked + (record if known else b"")


class Answers(asyncio.DatagramProtocol):
    """Answers each datagram."""

    def __init__(self, address: str) -> None:
        self._address = address

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to answer."""
        assert isinstance(transport, asyncio.DatagramTransport)
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer it."""
        said = answer(data, self._address)
        if said:
            self._transport.sendto(said, addr)


async def listen(address: str, port: int) -> object:
    """Answer over UDP on one address."""
    loop = asyncio.get_running_loop()
    return await loop.create_datagram_endpoint(
        lambda: Answers(address), local_addr=(address, port), family=socket.AF_UNSPEC
    )


if __name__ == "__main__":
    serve(__doc__ or "", listen)
