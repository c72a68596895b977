"""Rate limits as far as sockets can keep them: how many new flows a client, a service or all may open.

Packets and bytes are not seen here: the kernel takes them in, and acknowledges them, before a program reads.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from marchproxy.dataplane.records import LimitState, Traffic
from marchproxy.model.address import IPAddress
from marchproxy.policy.limits import Allowance, Bucket, Held, HeldIndex, allowances
from marchproxy.policy.plan import RateLimit

CLIENTS = 65536
"""With buckets of their own; who has been silent longest goes first, and starts afresh."""


@dataclass(slots=True, eq=False)
class _Bucket:
    """The kernel's, in seconds: see bpf/limit.h."""

    until: float = 0.0

    def is_over(self, allowed: Allowance, now: float) -> bool:
        return self.until > now + (allowed.burst - 1) / allowed.per_second

    def pay(self, allowed: Allowance, now: float) -> None:
        self.until = max(self.until, now) + 1 / allowed.per_second


@dataclass(slots=True, eq=False)
class _Client:
    index: HeldIndex
    """By which `held` was found."""
    held: Held
    bucket: _Bucket = field(default_factory=_Bucket)


class FlowLimits:
    """Asks the limits of the plan in force about each new flow."""

    def __init__(self) -> None:
        self._limits: tuple[RateLimit, ...] = ()
        self._index = HeldIndex(())
        self._allowed: dict[str, Allowance] = {}
        self._clients: OrderedDict[IPAddress, _Client] = OrderedDict()
        self._shared: dict[Bucket, _Bucket] = {}
        self._counts: dict[str, list[int]] = {}

    def adopt(self, limits: tuple[RateLimit, ...]) -> None:
        """Ask these from now on. What was let through before still counts."""
        if limits is self._limits:
            return
        self._limits = limits
        self._index = HeldIndex(limits)
        flows = {rate.limit.name: allowances(rate.limit)[2] for rate in limits}
        self._allowed = {name: allowed for name, allowed in flows.items() if allowed}
        self._counts = {name: self._counts.get(name, [0, 0]) for name in flows}
        self._shared = {
            bucket: held for bucket, held in self._shared.items() if bucket.limit in self._allowed
        }

    def admit(self, source: IPAddress, now: float) -> bool:
        """Whether `source` may open one more flow; if so, it is taken from all limits that hold."""
        if not self._allowed:
            return True
        asked = self._buckets(source)
        for name, allowed, bucket in asked:
            if bucket.is_over(allowed, now):
                self._counts[name][1] += 1
                return False
        for name, allowed, bucket in asked:
            bucket.pay(allowed, now)
            self._counts[name][0] += 1
        return True

    def states(self) -> Sequence[LimitState]:
        """What each limit let through and dropped; a new flow is a packet without bytes, as in the ledger."""
        counted = self._counts.items()
        return [LimitState(name, Traffic(passed), Traffic(dropped)) for name, (passed, dropped) in counted]

    def problems(self) -> Sequence[str]:
        """Limits that are not kept here."""
        return [
            f"limit {rate.limit.name}: packets and bytes are not limited without BPF, only new flows are"
            for rate in self._limits
            if rate.limit.packets_per_second is not None or rate.limit.bytes_per_second is not None
        ]

    def _buckets(self, source: IPAddress) -> list[tuple[str, Allowance, _Bucket]]:
        client = self._client(source)
        own = client.held.own[2]
        found = [(own, client.bucket)] if own else []
        found += [(key.limit, self._shared.setdefault(key, _Bucket())) for key in client.held.shared]
        return [(name, self._allowed[name], bucket) for name, bucket in found if name in self._allowed]

    def _client(self, source: IPAddress) -> _Client:
        client = self._clients.get(source)
        if client is None:
            client = self._clients[source] = _Client(self._index, self._index.find(source))
            if len(self._clients) > CLIENTS:
                self._clients.popitem(last=False)
        elif client.index is not self._index:
            client.index, client.held = self._index, self._index.find(source)
        self._clients.move_to_end(source)
        return client
