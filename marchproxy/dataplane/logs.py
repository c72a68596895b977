"""What the daemon says while it runs: lines on stderr, which systemd keeps."""

import asyncio
import logging
import os
import sys
from typing import Any

log = logging.getLogger(__name__)

_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""syslog's numbers, which systemd reads from the start of a line (sd-daemon(3))."""


class _ForSystemd(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


def configure(verbosity: int) -> None:
    """Log to stderr: what matters to an operator, or everything with a verbosity of 1 or more."""
    handler = logging.StreamHandler(sys.stderr)
    if _is_journal():
        handler.setFormatter(_ForSystemd("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger("marchproxy")
    root.handlers = [handler]
    root.setLevel(logging.DEBUG if verbosity else logging.INFO)
    root.propagate = False


def log_unhandled(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What a callback did not catch: one line, and the rest for whoever asks for everything."""
    log.error("%s: %s", context.get("message", "error in the loop"), context.get("exception", ""))
    log.debug("%s", context, exc_info=context.get("exception"))


def _is_journal() -> bool:
    """Whether stderr is the very stream that systemd opened: `JOURNAL_STREAM` names its device and inode."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
