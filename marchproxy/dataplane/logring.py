"""The last things that the daemon and its workers have said about themselves, for whoever looks later.

stderr and the journal have them too, and for longer; here a front end finds them, which needs no rights but
those to the control socket.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from marchproxy.dataplane import logs
from marchproxy.dataplane.outbox import Lost, Outbox
from marchproxy.dataplane.redaction import redact

KEPT = 2_000
"""Records; older ones are in the journal, or wherever stderr goes."""
LONGEST = 4_000
"""Characters of one text: what is kept has a bound, whatever is said."""
LEVELS = ("debug", "info", "warning", "error", "critical")
"""From what helps to find faults to what ends the daemon."""
DAEMON = "daemon"


@dataclass(frozen=True, slots=True)
class Said:
    """One record."""

    time: float
    """Seconds since the epoch."""
    level: str
    """One of `LEVELS`."""
    logger: str
    message: str
    flow: int = 0
    """The id of the flow that it is about; 0: none."""
    exception: str = ""
    process: str = DAEMON
    """Who said it: the daemon, or `worker 1`."""
    number: int = 0
    """Grows by one with each record of a daemon and its workers; 0: it is in no ring yet."""

    @classmethod
    def of(cls, record: logging.LogRecord, process: str) -> "Said":
        """What a record says, cut to `LONGEST`, without what looks like a secret."""
        return cls(
            time=record.created,
            level=_level(record.levelno),
            logger=record.name,
            message=redact(record.getMessage())[:LONGEST],
            flow=logs.flow_of(record),
            # Of a long one the end says what went wrong.
            exception=redact(logs.exception_of(record))[-LONGEST:],
            process=process,
        )


@dataclass(frozen=True, slots=True)
class LogQuestion:
    """Which records are asked for."""

    least: str = LEVELS[0]
    """This level and what is worse."""
    text: str = ""
    """In small letters; it occurs in the message, the logger, the process, the exception or the flow's id."""

    def matches(self, said: Said) -> bool:
        """Whether a record is one of them."""
        if LEVELS.index(said.level) < LEVELS.index(self.least):
            return False
        texts = (said.message, said.logger, said.process, said.exception, str(said.flow or ""))
        return not self.text or any(self.text in text.lower() for text in texts)


class Handler(logging.Handler):
    """Hands on what is logged from now on, at the level that is logged anyway."""

    def __init__(self, take: Callable[[Said], None], process: str = DAEMON) -> None:
        super().__init__(logs.level())
        self._take = take
        self._process = process

    def emit(self, record: logging.LogRecord) -> None:
        """In whatever thread."""
        try:
            self._take(Said.of(record, self._process))
        except Exception:
            self.handleError(record)


class LogRing:
    """Keeps `KEPT` records, and hands new ones to whoever follows."""

    def __init__(self) -> None:
        """Needs a running loop."""
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._kept: deque[Said] = deque(maxlen=KEPT)
        self._count = 0
        self._followers: set[_Follower] = set()

    def add(self, said: Said) -> None:
        """Keep a record; from whatever thread."""
        with self._lock:
            self._count += 1
            numbered = replace(said, number=self._count)
            self._kept.append(numbered)
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._tell, numbered)

    def find(self, question: LogQuestion) -> Sequence[Said]:
        """Those of the kept records that are asked for, the oldest first."""
        return [said for said in self._now()[0] if question.matches(said)]

    async def follow(self, question: LogQuestion, limit: int) -> AsyncGenerator[Sequence[Said | Lost]]:
        """The last `limit` records, then those that come, without a gap and without end."""
        kept, last = self._now()
        follower = _Follower(question, after=last)
        self._followers.add(follower)
        try:
            found = [said for said in kept if question.matches(said)]
            yield found[-limit:] if limit else []
            async for batch in follower.batches():
                yield batch
        finally:
            self._followers.discard(follower)

    def _now(self) -> tuple[Sequence[Said], int]:
        """What is kept, and the number of the last of them."""
        with self._lock:
            return tuple(self._kept), self._count

    def _tell(self, said: Said) -> None:
        for follower in self._followers:
            follower.offer(said)


@contextmanager
def keep_log() -> Iterator[LogRing]:
    """Keep what this process logs. Needs a running loop."""
    ring = LogRing()
    handler = Handler(ring.add)
    logs.listen(handler)
    try:
        yield ring
    finally:
        logs.unlisten(handler)


class _Follower(Outbox[Said]):
    def __init__(self, question: LogQuestion, *, after: int) -> None:
        """`after`: the number of the last record that it has got otherwise."""
        super().__init__()
        self._after = after
        self._question = question

    def offer(self, said: Said) -> None:
        """Queue a record that is asked for."""
        if said.number > self._after and self._question.matches(said):
            self.put(said)


def _level(number: int) -> str:
    """The word for a level: that of the next lower one for what lies between."""
    return LEVELS[max(min(number // 10, len(LEVELS)) - 1, 0)]
