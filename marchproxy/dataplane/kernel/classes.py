"""Classes of source addresses: the sets of services that an address can belong to.

An address belongs to every service one of whose prefixes contains it. The longest prefix that contains it
therefore decides its class: the services of that prefix and of all prefixes around it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.entries import Place, Table
from marchproxy.dataplane.kernel.runs import PlanTooLarge
from marchproxy.model.address import Prefix

V4_LENGTH = 96
V4_ROOT: Place = (0xFFFF << 32, V4_LENGTH)
"""Where IPv4 lies. Always in the table: without it an IPv6 prefix around it, as `::/0`, would hold IPv4."""

_MASKS = tuple(((1 << length) - 1) << (128 - length) for length in range(129))
_NOBODY: frozenset[str] = frozenset()


class SourceClasses:
    """Keeps `table`, prefixes to classes, equal to the sources of a plan; a change costs about its size."""

    def __init__(self, table: Table[Place, int]) -> None:
        self._table = table
        self._sources: dict[str, tuple[Prefix, ...]] = {}
        self._named: dict[Place, set[str]] = {V4_ROOT: set()}
        self._numbers: dict[frozenset[str], int] = {_NOBODY: layouts.CLASS_STRANGER}
        self._services: dict[int, frozenset[str]] = {layouts.CLASS_STRANGER: _NOBODY}
        self._uses: Counter[int] = Counter()
        self._of_service: dict[str, set[int]] = {}
        self._next = layouts.CLASS_STRANGER + 1
        self._classify({V4_ROOT})

    def update(self, sources: Mapping[str, tuple[Prefix, ...]]) -> frozenset[str]:
        """Take over new sources; the services with other classes than before. Raises `PlanTooLarge`."""
        old, new = self._sources, dict(sources)
        differing = {name for name, prefixes in new.items() if old.get(name) is not prefixes}
        moved: set[Place] = set()
        for name in differing | (old.keys() - new.keys()):
            moved |= self._rename(name, old.get(name, ()), new.get(name, ()))
        self._sources = new
        if len(self._named) > layouts.SOURCES:
            raise PlanTooLarge(
                f"too many source prefixes: the kernel's table holds {layouts.SOURCES}",
                hint="use wider prefixes, or fewer services as sources",
            )
        return self._classify(moved) if moved else frozenset()

    def of_services(self, names: Iterable[str]) -> frozenset[int]:
        """Every class that belongs to one of the services."""
        classes: set[int] = set()
        return frozenset(classes.union(*(self._of_service.get(name, ()) for name in names)))

    def outside(self, names: Iterable[str]) -> frozenset[int]:
        """Every class that belongs to none of the services, strangers included."""
        return frozenset(self._services).difference(self.of_services(names))

    def _rename(self, name: str, before: Iterable[Prefix], after: Iterable[Prefix]) -> set[Place]:
        """Note which prefixes a service has; those where that differs."""
        old, new = set(map(place_of, before)), set(map(place_of, after))
        for place in old - new:
            self._named[place].discard(name)
            if not self._named[place] and place != V4_ROOT:
                del self._named[place]
        for place in new - old:
            self._named.setdefault(place, set()).add(name)
        return old ^ new

    def _classify(self, moved: set[Place]) -> frozenset[str]:
        """Give the prefixes in `moved`, and all inside of them, their classes; the services concerned."""
        concerned: set[str] = set()
        lengths = sorted({length for _, length in self._named}, reverse=True)
        left = [self._table.entries[place] for place in moved - self._named.keys()]
        self._table.remove(moved - self._named.keys())
        for place in sorted(self._inside(moved), key=_by_length):
            number = self._number(self._services_of(place, lengths), concerned)
            before = self._table.entries.get(place)
            if number != before:
                self._table[place] = number
                self._uses[number] += 1
                if before is not None:
                    left.append(before)
        # Last, so that a class that only moves to other prefixes keeps its number.
        for number in left:
            self._release(number, concerned)
        return frozenset(concerned)

    def _inside(self, moved: set[Place]) -> set[Place]:
        """Those of `moved` that are there, and every prefix inside one of `moved`."""
        inside = moved & self._named.keys()
        for length in {length for _, length in moved} - {128}:
            mask = _MASKS[length]
            inside.update(place for place in self._named if (place[0] & mask, length) in moved)
        return inside

    def _services_of(self, place: Place, lengths: list[int]) -> frozenset[str]:
        """Its own services, and those of the next prefix around it, which already has its class."""
        address, own_length = place
        own = self._named[place]
        for length in lengths if place != V4_ROOT else ():
            around = (address & _MASKS[length], length)
            if length < own_length and around in self._named:
                inherited = self._services[self._table.entries[around]]
                return inherited | own if own else inherited
        return frozenset(own)

    def _number(self, services: frozenset[str], concerned: set[str]) -> int:
        """The number of a class. None is used twice, so that what refers to an old one finds nothing."""
        number = self._numbers.get(services)
        if number is None:
            number, self._next = self._next, self._next + 1
            self._numbers[services] = number
            self._services[number] = services
            for name in services:
                self._of_service.setdefault(name, set()).add(number)
            concerned |= services
        return number

    def _release(self, number: int, concerned: set[str]) -> None:
        """One prefix less has this class; the last one takes it along."""
        self._uses[number] -= 1
        if self._uses[number] or number == layouts.CLASS_STRANGER:
            return
        del self._uses[number]
        services = self._services.pop(number)
        del self._numbers[services]
        for name in services:
            self._of_service[name].discard(number)
            if not self._of_service[name]:
                del self._of_service[name]
        concerned |= services


def place_of(prefix: Prefix) -> Place:
    """Where a prefix lies in the space that both families share."""
    address = int(prefix.network_address)
    if prefix.version == 4:
        return V4_ROOT[0] | address, V4_LENGTH + prefix.prefixlen
    return address, prefix.prefixlen


def _by_length(place: Place) -> int:
    return place[1]
