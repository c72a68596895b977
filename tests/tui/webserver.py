"""`marchproxy tui --web` as its own process."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from yarl import URL

from rig import wait_for
from tests.cli.test_daemon import free_port


@contextmanager
def serving() -> Iterator[URL]:
    """The address that it prints, until it is told to end."""
    words = [sys.executable, "-m", "marchproxy", "tui", "--web", "--read-only", "--port", str(free_port())]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        printed = URL(server.stdout.readline().strip())
        try:
            wait_for(lambda: _answers(printed), "the web server")
            yield printed
        finally:
            server.send_signal(signal.SIGINT)
            status = server.wait(20)
    assert status == 0


def _answers(printed: URL) -> bool:
    async def ask() -> bool:
        with suppress(OSError):
            _, writer = await asyncio.open_connection(printed.host, printed.port)
            writer.close()
            await writer.wait_closed()
            return True
        return False

    return asyncio.run(ask())
