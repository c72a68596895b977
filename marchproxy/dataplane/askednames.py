"""Which host name a client was given an address for: the names of destinations that no policy names."""

from collections import OrderedDict
from collections.abc import Iterable

from marchproxy.dataplane.dns.responder import Teacher
from marchproxy.model.address import IPAddress

KEPT = 65_536
"""Addresses; the one that was told longest ago gives way."""


class AskedNames:
    """Stands between the DNS listener and whom it teaches, and remembers what clients are told."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self._names: OrderedDict[IPAddress, str] = OrderedDict()

    def refusal(self, name: str, address: IPAddress) -> str:
        """See `Teacher`."""
        return self._teacher.refusal(name, address)

    def learn(self, name: str, addresses: Iterable[IPAddress], ttl: float) -> int:
        """See `Teacher`."""
        told = tuple(addresses)
        for address in told:
            self._names[address] = name.rstrip(".")
            self._names.move_to_end(address)
        while len(self._names) > KEPT:
            self._names.popitem(last=False)
        return self._teacher.learn(name, told, ttl)

    def name(self, address: IPAddress) -> str:
        """The name that `address` was last given for; empty where nobody asked."""
        return self._names.get(address, "")
