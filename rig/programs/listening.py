"""What the programs share: their arguments, and saying when they are ready."""

import argparse
import asyncio
from collections.abc import Awaitable, Callable

type Start = Callable[[str, int], Awaitable[object]]
"""Open a listener on an address and port; the loop keeps what it returns alive."""


def serve(description: str, *starts: Start) -> None:
    """Listen by every one of `starts` on every address on the command line, until the process is ended."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--bind", action="append", required=True, metavar="ADDRESS", help="may be repeated")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()

    async def run() -> None:
        listeners = [await start(address, options.port) for address in options.bind for start in starts]
        print("ready", flush=True)
        await asyncio.Event().wait()
        del listeners

    asyncio.run(run())
