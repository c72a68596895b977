"""Host names that clients ask the explicit proxy for: looked up once for all who wait, and kept for their
TTL.
"""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Sequence

from marchproxy.dataplane.admission.limits import source_key
from marchproxy.dataplane.names.found import Found, LookupFailed
from marchproxy.dataplane.tasks import Tasks
from marchproxy.model.address import IPAddress

ENTRIES = 10_000
"""Names that are kept; who was asked for longest ago goes first."""
SHORTEST, LONGEST = 1.0, 300.0
"""Seconds that an answer is kept, whatever its TTL."""
AT_ONCE = 256
"""Names looked up at the same time; more fail at once."""
OF_ONE_SOURCE = AT_ONCE // 4
"""The same for one source. Who waits for a name that is looked up already is not counted."""

type Find = Callable[[str], Awaitable[Found]]


class AskedAddresses:
    """Addresses of names, as `find` finds them."""

    def __init__(self, find: Find, clock: Callable[[], float] = time.monotonic) -> None:
        self._find = find
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, tuple[IPAddress, ...]]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[tuple[IPAddress, ...]]] = {}
        self._by_source: Counter[int] = Counter()
        self._tasks = Tasks()

    async def find(self, name: str, source: IPAddress, until: float | None = None) -> Sequence[IPAddress]:
        """The addresses of `name`, for `source`; at least one. Raises `LookupError`: there are none, nobody
        knows, or too many look-ups are under way; `TimeoutError` when the loop's clock comes to `until`.
        """
        found: Sequence[IPAddress]
        known = self._known.get(name)
        if known and known[0] > self._clock():
            self._known.move_to_end(name)
            found = known[1]
        else:
            async with asyncio.timeout_at(until):
                found = await self._look_up(name, source_key(source))
        if not found:
            raise LookupError(name)
        return found

    async def close(self) -> None:
        """Stop looking up."""
        await self._tasks.stop()

    async def _look_up(self, name: str, source: int) -> Sequence[IPAddress]:
        asking = self._asking.get(name)
        if asking is None:
            if len(self._asking) >= AT_ONCE or self._by_source[source] >= OF_ONE_SOURCE:
                raise LookupError(name)
            self._by_source[source] += 1
            asking = self._asking[name] = self._tasks.start(self._ask(name), name=f"look up {name}")
            asking.add_done_callback(lambda _: self._looked_up(name, source))
        # Who gives up does not take the answer from the others.
        return await asyncio.shield(asking)

    def _looked_up(self, name: str, source: int) -> None:
        self._asking.pop(name, None)
        self._by_source[source] -= 1
        if not self._by_source[source]:
            del self._by_source[source]

    async def _ask(self, name: str) -> tuple[IPAddress, ...]:
        """The addresses; none where the name has none."""
        try:
            found = await self._find(name)
            addresses, ttl = tuple(dict.fromkeys(found.addresses)), found.ttl
        except LookupFailed as error:
            addresses, ttl = (), error.ttl
        self._known[name] = (self._clock() + min(max(ttl, SHORTEST), LONGEST), addresses)
        self._known.move_to_end(name)
        if len(self._known) > ENTRIES:
            self._known.popitem(last=False)
        return addresses
