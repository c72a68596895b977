"""Classes of source addresses: the sets of services an address can belong to.

An address belongs to every service one of whose prefixes contains it. The longest matching prefix therefore decides
its class: the services of that prefix and of all prefixes around it.
"""

from collections.abc import Iterable, Mapping

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.runs import PlanTooLarge
from marchproxy.model.address import Prefix

type PackedPrefix = tuple[int, bytes]
"""Prefix length of 128, and address."""

_V4_LENGTH = 96
_V4_ROOT: PackedPrefix = (_V4_LENGTH, layouts.ANY_V4)


class SourceClasses:
    """Numbers classes; a set of services keeps its number while it is in use."""

    def __init__(self) -> None:
        self.prefixes: dict[PackedPrefix, int] = {}
        self._sources: Mapping[str, tuple[Prefix, ...]] = {}
        self._numbers: dict[frozenset[str], int] = {frozenset(): layouts.CLASS_STRANGER}
        self._by_service: dict[str, frozenset[int]] = {}
        self._next = layouts.CLASS_STRANGER + 1
        self._packed: dict[Prefix, PackedPrefix] = {}

    def update(self, sources: Mapping[str, tuple[Prefix, ...]]) -> frozenset[str]:
        """Take over new sources; the services whose classes changed."""
        if sources is self._sources or sources == self._sources:
            self._sources = sources
            return frozenset()
        before = self._by_service
        owners = self._owners(sources)
        if len(owners) > layouts.SOURCES:
            raise PlanTooLarge(f"too many source prefixes: the kernel's table holds {layouts.SOURCES}")
        sets = set(owners.values())
        for services in sets - self._numbers.keys():
            self._numbers[services] = self._next
            self._next += 1
        for services in self._numbers.keys() - sets - {frozenset()}:
            del self._numbers[services]
        self.prefixes = {prefix: self._numbers[services] for prefix, services in owners.items()}
        collected: dict[str, set[int]] = {name: set() for name in sources}
        for services, number in self._numbers.items():
            for name in services:
                collected[name].add(number)
        self._by_service = {name: frozenset(numbers) for name, numbers in collected.items()}
        self._sources = sources
        names = before.keys() | self._by_service.keys()
        return frozenset(name for name in names if before.get(name) != self._by_service.get(name))

    def of_services(self, names: Iterable[str]) -> frozenset[int]:
        """Every class that belongs to one of the services."""
        classes: frozenset[int] = frozenset()
        return classes.union(*(self._by_service[name] for name in names))

    def outside(self, names: Iterable[str]) -> frozenset[int]:
        """Every class that belongs to none of the services, strangers included."""
        return frozenset(self._numbers.values()).difference(self.of_services(names))

    def _owners(self, sources: Mapping[str, tuple[Prefix, ...]]) -> dict[PackedPrefix, frozenset[str]]:
        named: dict[PackedPrefix, set[str]] = {}
        packed = {prefix: self._pack(prefix) for prefixes in sources.values() for prefix in prefixes}
        self._packed = packed
        for name, prefixes in sources.items():
            for prefix in prefixes:
                named.setdefault(packed[prefix], set()).add(name)
        if any(length < _V4_LENGTH and not int.from_bytes(address, "big") for length, address in named):
            # The IPv6 prefix holds the mapped range that IPv4 lives in here: fence it off.
            named.setdefault(_V4_ROOT, set())
        lengths = sorted({length for length, _ in named})
        shared: dict[frozenset[str], frozenset[str]] = {}
        owners: dict[PackedPrefix, frozenset[str]] = {}
        for place, names in named.items():
            found = frozenset(names.union(*self._around(place, named, lengths)))
            owners[place] = shared.setdefault(found, found)
        return owners

    def _pack(self, prefix: Prefix) -> PackedPrefix:
        return self._packed.get(prefix) or layouts.pack_prefix(prefix)

    @staticmethod
    def _around(prefix: PackedPrefix, named: Mapping[PackedPrefix, set[str]], lengths: list[int]) -> Iterable[set[str]]:
        length, address = prefix
        value = int.from_bytes(address, "big")
        is_v4 = length >= _V4_LENGTH and address.startswith(_V4_ROOT[1][:12])
        for shorter in lengths:
            if shorter >= length:
                return
            if is_v4 and shorter < _V4_LENGTH:
                continue
            masked = value >> (128 - shorter) << (128 - shorter)
            if names := named.get((shorter, masked.to_bytes(16, "big"))):
                yield names
