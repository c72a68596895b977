"""What exchanges take care of with backends: who is left out, how many requests at once, what is sent again.

Of one process. While nothing fails and no mapping bounds anything, a request pays for a few tests for truth.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence

from marchproxy.dataplane.http.budget import Budget
from marchproxy.dataplane.http.circuits import FAILURES, Circuits
from marchproxy.dataplane.http.room import Room
from marchproxy.dataplane.records import Outlier
from marchproxy.policy.evaluate import Answer
from marchproxy.policy.plan import DEFAULT_HANDLING, Backend, Handling, Rule

MOST_REPEATS = 2
"""Times that one request is sent again."""
FORGET_EVERY = 10.0


class Care:
    """Circuits, room and budgets."""

    def __init__(self) -> None:
        self.circuits = Circuits()
        self.room = Room()
        self._budgets: dict[str, Budget] = {}
        """By mapping."""
        self._forgot_at = 0.0

    def candidates(self, found: Iterator[Backend], handling: Handling) -> Iterator[Backend]:
        """Those of `found` that a request should try, in order."""
        return self._willing(found, handling) if self.circuits else found

    def avoids(self, backend: Backend) -> bool:
        """Whether it is left out now."""
        return bool(self.circuits) and not self.circuits.admits(backend, time.monotonic())

    def _willing(self, found: Iterator[Backend], handling: Handling) -> Iterator[Backend]:
        out, some = [], False
        for backend in found:
            if self.circuits.admits(backend, time.monotonic()):
                some = True
                yield backend
            else:
                out.append(backend)
        # The pool may have become smaller since they were left out: a share stays all the same.
        if not some and handling.eject_most < 1.0:
            yield from out

    def answered(self, backend: Backend, answer: Answer, handling: Handling, status: int) -> None:
        """A backend has answered; to be told of what is in `FAILURES`, and of all while `circuits`."""
        if status in FAILURES:
            self.failed(backend, answer, handling, f"it answers {status}")
        else:
            self.circuits.succeeded(backend, time.monotonic())

    def failed(self, backend: Backend, answer: Answer, handling: Handling, why: str) -> None:
        """A backend has not answered."""
        self.circuits.failed(backend, answer.pool, handling, why, time.monotonic())

    def earn(self, mapping: str, handling: Handling) -> None:
        """A request has come that may be sent again."""
        self._budget(mapping).earn(handling.retry_budget)

    def may_retry(self, mapping: str) -> bool:
        """Whether one may be, now."""
        counts = self.circuits.counts
        if self._budget(mapping).spend():
            counts.retried += 1
            return True
        counts.unretried += 1
        return False

    async def wait_for_room(self, backend: Backend, handling: Handling, until: float) -> bool:
        """See `Room.wait`; `until` is of the monotonic clock."""
        counts, loop = self.circuits.counts, asyncio.get_running_loop()
        counts.waited += bool(handling.max_waiting)
        left = until - time.monotonic()
        entered = await self.room.wait(
            backend, handling.max_requests, handling.max_waiting, loop.time() + left
        )
        counts.crowded += not entered
        return entered

    def tick(self) -> None:
        """Called about once a second."""
        now = time.monotonic()
        if self.circuits and now - self._forgot_at >= FORGET_EVERY:
            self._forgot_at = now
            self.circuits.forget(now)

    def keep(self, mappings: frozenset[str]) -> None:
        """These are all mappings there are."""
        for gone in self._budgets.keys() - mappings:
            del self._budgets[gone]

    def outliers(self) -> Sequence[Outlier]:
        """Backends that are left out."""
        age = time.time() - time.monotonic()
        return [
            Outlier(service, address, port, circuit.since + age, circuit.why)
            for (address, port, service), circuit in self.circuits
        ]

    def _budget(self, mapping: str) -> Budget:
        found = self._budgets.get(mapping)
        if found is None:
            found = self._budgets[mapping] = Budget()
        return found


def handling_of(answer: Answer) -> Handling:
    """What its rule says."""
    return answer.rule.handling if isinstance(answer.rule, Rule) else DEFAULT_HANDLING
