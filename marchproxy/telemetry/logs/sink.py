"""A sink: a bounded queue, and a task that empties it however long its other end is away.

Offering a record costs a comparison and an append, and never waits. A record that finds the queue full is
counted, and the newest are those that are lost: what arrives has no gaps inside.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from marchproxy.telemetry.logs.metered import metered
from marchproxy.telemetry.logs.records import LogClass, Record

QUEUE = 10_000
"""Records that wait for one sink: some 10 MB."""
CLOSING = 2.0
"""Seconds in which what waits may still leave when the daemon stops."""
SETTLE = 0.5
"""Seconds between two looks at whether what was sent has arrived."""
FIRST_RETRY, LAST_RETRY = 0.5, 30.0
"""Seconds until another attempt; each time twice as long as before, and up to half as much again."""


class Unreachable(Exception):
    """What was to be sent has not arrived, and may be sent again. Its text says why."""


class Refused(Exception):
    """What was sent is not taken, and would not be the next time."""


class Delivery(Protocol):
    """Brings records to one place."""

    most: int
    """Records of one `send`."""
    linger: float
    """Seconds that records wait for others to be sent with."""

    @property
    def held(self) -> int:
        """Records that were sent, of which nobody knows yet whether they arrive."""

    @property
    def unsettled(self) -> bool:
        """Whether something may have to be sent again: then `send` is called, if need be without records."""

    async def send(self, records: Sequence[Record]) -> int:
        """Deliver; how many records are now known to be lost. Raises `Unreachable` or `Refused`."""

    async def close(self) -> int:
        """Let go of connections; how many records that were sent have not arrived."""


@dataclass(frozen=True, slots=True)
class SinkState:
    """A sink at one moment."""

    cluster: str
    kind: str
    """`syslog`, `ipfix`, `http` or `file`."""
    target: str
    sent: int
    """Records since it was set up."""
    lost: dict[str, int]
    """Those that were not, by why: `full` (the queue), `refused` (by the other end), `unsent` (at the
    end)."""
    waiting: int
    problem: str
    """Why nothing arrives now; empty: nothing is wrong."""


class _Over:
    """The `Delivery` of a sink that is closed: what it held has been counted."""

    most, linger, held, unsettled = 1, 0.0, 0, False

    async def send(self, records: Sequence[Record]) -> int:
        """Nothing is taken any more."""
        raise Refused("it is closed")

    async def close(self) -> int:
        """It is."""
        return 0


_OVER = _Over()


def free(_: float) -> None:
    """Nobody minds what it costs."""


class Sink:
    """Takes records of one cluster and has them delivered."""

    def __init__(
        self,
        cluster: str,
        kind: str,
        target: str,
        classes: frozenset[LogClass],
        delivery: Delivery,
        spend: Callable[[float], None] = free,
    ) -> None:
        """`spend` is told what delivering costs, in seconds of a processor."""
        self.cluster = cluster
        self.kind = kind
        self.target = target
        self.classes = classes
        self.problem = ""
        self._delivery = delivery
        self._waiting: deque[Record] = deque()
        self._sent = 0
        self._lost = dict.fromkeys(("full", "refused", "unsent"), 0)
        self._arrived = asyncio.Event()
        self._many = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(metered(self._run(), spend), name=f"{kind} of cluster {cluster}")

    def offer(self, record: Record) -> None:
        """Take a record that is of its classes, or count it. In the loop's thread."""
        if len(self._waiting) >= QUEUE or self._closing:
            self._lost["full"] += 1
            return
        self._waiting.append(record)
        self._arrived.set()
        if len(self._waiting) >= self._delivery.most:
            self._many.set()

    def state(self) -> SinkState:
        """How it is."""
        return SinkState(
            self.cluster,
            self.kind,
            self.target,
            self._sent - self._delivery.held,
            dict(self._lost),
            len(self._waiting) + self._delivery.held,
            self.problem,
        )

    async def close(self) -> SinkState:
        """Deliver what waits, as far as `CLOSING` allows; how it was in the end."""
        self._closing = True
        self._arrived.set()
        self._many.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._task, CLOSING)
        missing = await self._delivery.close()
        self._delivery = _OVER
        self._sent -= missing
        self._lost["unsent"] += missing + len(self._waiting)
        self._waiting.clear()
        return self.state()

    async def _run(self) -> None:
        while self._waiting or not self._closing:
            if not await self._woken():
                return
            if self._delivery.linger and not self._closing:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._many.wait(), self._delivery.linger)
            self._many.clear()
            while self._waiting:
                if not await self._send():
                    return
                # Formatting takes a millisecond a turn; whoever waits for the loop comes in between.
                await asyncio.sleep(0)
                if self._delivery.linger and len(self._waiting) < self._delivery.most and not self._closing:
                    self._arrived.set()
                    break

    async def _woken(self) -> bool:
        """Wait for records, and look after those on their way meanwhile; False as of `_send`."""
        while not self._arrived.is_set():
            if not self._delivery.unsettled:
                await self._arrived.wait()
                break
            with suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), SETTLE)
                break
            if not await self._send():
                return False
        self._arrived.clear()
        return True

    async def _send(self) -> bool:
        """Deliver the oldest records, which stay in the queue until they have arrived. False: nobody is
        there, and no time is left.
        """
        records = [self._waiting[at] for at in range(min(len(self._waiting), self._delivery.most))]
        pause = FIRST_RETRY
        while True:
            try:
                lost = await self._delivery.send(records)
            except Unreachable as error:
                self.problem = str(error)
                if self._closing:
                    return False
                await self._pause(pause)
                pause = min(2 * pause, LAST_RETRY)
                continue
            except Refused as error:
                self.problem, lost = str(error), len(records)
            except Exception as error:
                # A defect of ours must not end the sink: what it met is counted and said.
                self.problem, lost = f"{type(error).__name__}: {error}", len(records)
            else:
                self.problem = ""
            self._sent += len(records) - lost
            self._lost["refused"] += lost
            for _ in records:
                self._waiting.popleft()
            return True

    async def _pause(self, seconds: float) -> None:
        # Many appliances must not come back to one server in step. No secret depends on this chance.
        until = seconds * (1 + random.random() / 2)  # noqa: S311
        end = asyncio.get_running_loop().time() + until
        while not self._closing and (left := end - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(left, 0.25))
