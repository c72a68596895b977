"""How many requests are with a backend at one time, where a mapping bounds that, and who waits for room.

Of one process. First come, first served.
"""

import asyncio
from collections import Counter, deque

from marchproxy.dataplane.http.circuits import Place
from marchproxy.policy.plan import Backend


class Room:
    """Counts requests by backend."""

    def __init__(self) -> None:
        self._inside: Counter[Place] = Counter()
        self._waiting: dict[Place, deque[asyncio.Future[None]]] = {}

    def enter(self, backend: Backend, most: int) -> bool:
        """Whether there is room for one more; then `leave` must follow."""
        place = _place(backend)
        if self._inside[place] >= most or self._waiting.get(place):
            return False
        self._inside[place] += 1
        return True

    async def wait(self, backend: Backend, most: int, waiting: int, until: float) -> bool:
        """Whether there came to be room before `until`, in the loop's time; `waiting` may wait. Then `leave`
        must follow.
        """
        place = _place(backend)
        if self.enter(backend, most):
            return True
        queue = self._waiting.setdefault(place, deque())
        if len(queue) >= waiting:
            self._tidy(place)
            return False
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            async with asyncio.timeout_at(until):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                # It had its turn, and does not take it.
                self.leave(backend)
            elif turn in queue:
                queue.remove(turn)
            self._tidy(place)
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    def leave(self, backend: Backend) -> None:
        """One is over: its room is the next one's, if one waits."""
        place = _place(backend)
        queue = self._waiting.get(place)
        while queue:
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(None)
                self._tidy(place)
                return
        self._tidy(place)
        self._inside[place] -= 1
        if self._inside[place] <= 0:
            del self._inside[place]

    def _tidy(self, place: Place) -> None:
        if not self._waiting.get(place, True):
            del self._waiting[place]


def _place(backend: Backend) -> Place:
    return backend.address, backend.port, backend.service
