"""Sends back what it gets, over TCP and UDP. A TCP half-close is answered once everything was sent back."""

import asyncio
import socket

from rig.programs.listening import serve

CHUNK = 1 << 16


async def echo_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One TCP connection."""
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # The client gave up; there is nobody to tell.
    finally:
        writer.close()


class EchoDatagrams(asyncio.DatagramProtocol):
    """Answers each datagram with itself, from the address it was sent to."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to answer."""
        assert isinstance(transport, asyncio.DatagramTransport)
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Send it back."""
        self._transport.sendto(data, addr)


async def listen_tcp(address: str, port: int) -> object:
    """Echo TCP on one address."""
    return await asyncio.start_server(echo_stream, address, port, backlog=4096)


async def listen_udp(address: str, port: int) -> object:
    """Echo UDP on one address."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(EchoDatagrams, local_addr=(address, port))
    # As much as may wait while nobody lets this program run: what finds no room is lost.
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    return transport


if __name__ == "__main__":
    serve(__doc__ or "", listen_tcp, listen_udp)
