"""Has certificates fetched that come from elsewhere, by `marchproxy cert pull`: the daemon writes none."""

import asyncio
import logging
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from marchproxy.dataplane.intent import Intent
from marchproxy.dataplane.status import Problem
from marchproxy.dataplane.tasks import Tasks
from marchproxy.model.errors import MarchproxyError

log = logging.getLogger(__name__)

EVERY = 300.0
"""Seconds between two rounds; each asks only whose time has come, or who may have something new."""
FIRST = 20.0
"""Seconds after the start."""
PATIENCE = 300.0
"""Seconds of one round."""


class Pulling:
    """Starts the rounds."""

    def __init__(self, intent: Intent, command: Sequence[str] | None = None) -> None:
        isolated = ["-I"] if sys.flags.isolated else []
        self._command = command or [sys.executable, *isolated, "-m", "marchproxy", "cert", "pull"]
        self._intent = intent
        self._due = time.monotonic() + FIRST
        self._tasks = Tasks()
        self._failure = ""

    def look(self) -> None:
        """Called about once a second."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + EVERY
            self._tasks.start(self._round(), name="certificate sources")

    def problems(self) -> Sequence[Problem]:
        """What did not come the last time."""
        return [Problem("certificates", self._failure)] if self._failure else []

    async def close(self) -> None:
        """End a round that is under way."""
        await self._tasks.stop()

    async def _round(self) -> None:
        try:
            if not await self._intent.read(lambda store: store.certificate_sources.every()):
                self._failure = ""
                return
            self._failure = await self._pull()
        except (MarchproxyError, OSError) as error:
            self._failure = f"certificates cannot be fetched: {error}"

    async def _pull(self) -> str:
        """What went wrong; empty: nothing."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(PATIENCE):
                _, said = await process.communicate()
        except TimeoutError:
            return f"certificates are not fetched within {PATIENCE:.0f} s"
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if not process.returncode:
            return ""
        lines = [line for line in said.decode(errors="replace").splitlines() if line.startswith("error: ")]
        return "; ".join(line.removeprefix("error: ") for line in lines[:3]) or "marchproxy cert pull failed"
