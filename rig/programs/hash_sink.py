"""Reads a TCP stream to its end and answers with its SHA-256 in hexadecimal: what half-close is for."""

import asyncio
import hashlib

from rig.programs.listening import serve

CHUNK = 1 << 18


async def sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection."""
    hasher = hashlib.sha256()
    try:
        while data := await reader.read(CHUNK):
            hasher.update(data)
        writer.write(hasher.hexdigest().encode())
        await writer.drain()
    except ConnectionError:
        pass  # The client gave up; there is nobody to tell.
    finally:
        writer.close()


async def listen(address: str, port: int) -> object:
    """Listen on one address."""
    return await asyncio.start_server(sink, address, port, backlog=4096)


if __name__ == "__main__":
    serve(__doc__ or "", listen)
