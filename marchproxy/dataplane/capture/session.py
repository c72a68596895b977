"""A capture as a stream of pcapng, until one of its limits is reached or its reader goes."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence

from marchproxy.dataplane.capture.packet import Feed
from marchproxy.dataplane.capture.pcapng import Writer
from marchproxy.dataplane.capture.wish import Wish
from marchproxy.model.errors import MarchproxyError
from marchproxy.version import VERSION

log = logging.getLogger(__name__)

TURN = 0.1
"""Seconds between two readings: soon enough for somebody who watches."""


async def stream(feed: Feed, wish: Wish, interfaces: Sequence[str], about: str) -> AsyncGenerator[bytes]:
    """The file, in pieces of whole blocks. Closes `feed` however it ends; `about` is told in the file.

    The last piece tells how many packets were missed. A feed that fails is an early end: who reads is in the
    middle of a file, and the log has the reason.
    """
    try:
        writer = Writer(f"marchproxy {VERSION}", about, wish.snap)
        piece = writer.begin(interfaces)
        left, written = wish.packets or None, len(piece)
        deadline = time.monotonic() + wish.duration
        yield piece
        running = True
        while running:
            await asyncio.sleep(max(0.0, min(TURN, deadline - time.monotonic())))
            running = time.monotonic() < deadline
            blocks, size = list[bytes](), 0
            for packet in await feed.read():
                block = writer.packet(packet)
                if left == 0 or written + size + len(block) > wish.size:
                    running = False
                    break
                blocks.append(block)
                size += len(block)
                left = left and left - 1
            running = running and left != 0
            written += size
            if blocks:
                yield b"".join(blocks)
        yield writer.end(time.time_ns(), feed.missed)
    except MarchproxyError as error:
        log.warning("a capture ends early: %s", error.message)
    finally:
        await feed.close()
