"""How often one client may ask."""

from collections import OrderedDict
from ipaddress import IPv6Address

from marchproxy.model.address import IPAddress

PER_SECOND = 200.0
"""Questions of one client. A page with a hundred hosts, asked for by both families, is one second's worth."""
BURST = 400.0
IN_ALL = 1500.0
"""Questions of all clients together in a second: half a processor. Who floods from invented addresses gets no
more, and the daemon's other work goes on."""
REMEMBERED = 16_384
"""Clients that are told apart; who asked longest ago is forgotten, and begins anew."""

_SUBNET_BITS = 64
"""Of IPv6: one client may have all addresses of its subnet."""


class ClientRates:
    """A token bucket for each client address, or IPv6 subnet."""

    def __init__(self, per_second: float = PER_SECOND, burst: float = BURST, in_all: float = IN_ALL) -> None:
        self._per_second = per_second
        self._burst = burst
        self._in_all = in_all
        self._left = (2 * in_all, 0.0)
        self._buckets: OrderedDict[int, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def admit(self, client: IPAddress, now: float) -> bool:
        """Whether it may ask one more question at `now`, in seconds of a clock that does not turn back."""
        key = int(client)
        if isinstance(client, IPv6Address):
            # Shifted up, so that no subnet is taken for an IPv4 address.
            key = key >> (128 - _SUBNET_BITS) << 32 | 1 << 128
        tokens, last = self._buckets.get(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - last) * self._per_second)
        left = min(2 * self._in_all, self._left[0] + (now - self._left[1]) * self._in_all)
        admitted = tokens >= 1 and left >= 1
        self._left = (left - admitted, now)
        self._buckets[key] = (tokens - admitted, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        return admitted
