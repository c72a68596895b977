"""What the daemon says while it runs: lines on stderr for people or programs, or fields for the journal."""

import asyncio
import json
import logging
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

JOURNAL = Path("/run/systemd/journal/socket")
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""syslog's numbers, which systemd reads from the start of a line (sd-daemon(3))."""
_LONGEST = 48 * 1024
"""Octets of one text to the journal: what a datagram may hold, with room for the other fields."""


class LogFormat(StrEnum):
    """How lines on stderr look."""

    CONSOLE = "console"
    JSON = "json"


class _Json(logging.Formatter):
    """One object a line: `time`, `level`, `logger`, `message`, and where there is one `flow`, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, Any] = {
            "time": when.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {key: value for key, value in (("flow", flow_of(record)), _exception(record)) if value}
        return json.dumps(fields, ensure_ascii=False)


class _ForSystemd(logging.Formatter):
    """Each line of another formatter behind its priority."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in self._inner.format(record).splitlines())


class JournalHandler(logging.Handler):
    """Hands records to the journal with fields of their own (systemd's native journal protocol)."""

    def __init__(self, path: Path = JOURNAL) -> None:
        """Raises `OSError` where there is no journal."""
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            # A journal that is stuck must not stop the daemon: then the line is lost.
            self._socket.setblocking(False)
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        with suppress(OSError):
            self._socket.send(b"".join(_journal_fields(record)))

    def close(self) -> None:
        """Let go of the journal."""
        self._socket.close()
        super().close()


def configure(verbosity: int, form: LogFormat = LogFormat.CONSOLE) -> None:
    """Log to stderr, or to the journal that reads it: what matters to an operator, or everything with a
    verbosity of 1 or more.
    """
    handler = _handler(form)
    handler.setLevel(logging.DEBUG if verbosity else logging.INFO)
    root = logging.getLogger("marchproxy")
    root.handlers = [handler]
    root.setLevel(handler.level)
    root.propagate = False


def level() -> int:
    """The least level that is logged, as one of logging's numbers."""
    return logging.getLogger("marchproxy").getEffectiveLevel()


def listen(handler: logging.Handler) -> None:
    """Hand what is said to `handler`, too; everything, unless it has a level."""
    root = logging.getLogger("marchproxy")
    root.addHandler(handler)
    _suit(root)


def unlisten(handler: logging.Handler) -> None:
    """End that."""
    root = logging.getLogger("marchproxy")
    root.removeHandler(handler)
    _suit(root)


def _suit(root: logging.Logger) -> None:
    """Say what the most curious of those who listen wants to hear."""
    root.setLevel(min((each.level or logging.DEBUG for each in root.handlers), default=logging.INFO))


def flow_of(record: logging.LogRecord) -> int:
    """The flow that a record is about, where whoever logged it said so (`extra={"flow": …}`); 0: none."""
    return int(getattr(record, "flow", 0))


def exception_of(record: logging.LogRecord) -> str:
    """The traceback of what went wrong; empty where nothing did."""
    return _exception(record)[1]


def log_unhandled(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What a callback did not catch: one line, and the rest for whoever asks for everything."""
    log.error("%s: %s", context.get("message", "error in the loop"), context.get("exception", ""))
    log.debug("%s", context, exc_info=context.get("exception"))


def _handler(form: LogFormat) -> logging.Handler:
    journal = _is_journal()
    if journal and form is LogFormat.CONSOLE:
        with suppress(OSError):
            return JournalHandler(JOURNAL)
    handler = logging.StreamHandler(sys.stderr)
    formatter: logging.Formatter
    if form is LogFormat.JSON:
        formatter = _Json()
    else:
        formatter = logging.Formatter("%(message)s" if journal else "%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(_ForSystemd(formatter) if journal else formatter)
    return handler


def _journal_fields(record: logging.LogRecord) -> Iterator[bytes]:
    key, trace = _exception(record)
    fields = {
        "MESSAGE": record.getMessage(),
        "PRIORITY": str(PRIORITIES.get(record.levelno, 6)),
        "SYSLOG_IDENTIFIER": "marchproxy",
        "LOGGER": record.name,
        "CODE_FILE": record.pathname,
        "CODE_LINE": str(record.lineno),
        "MARCHPROXY_FLOW": str(flow_of(record) or ""),
        key.upper(): trace,
    }
    for name, value in fields.items():
        if value:
            raw = value.encode(errors="replace")[:_LONGEST]
            # With its length the value may hold line breaks.
            yield b"%b\n%b%b\n" % (name.encode(), struct.pack("<Q", len(raw)), raw)


def _exception(record: logging.LogRecord) -> tuple[str, str]:
    found = record.exc_info
    return "exception", logging.Formatter().formatException(found) if found and found[0] else ""


def _is_journal() -> bool:
    """Whether stderr is the very stream that systemd opened: `JOURNAL_STREAM` names its device and inode."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
