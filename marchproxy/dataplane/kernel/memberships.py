"""Which services the addresses of a prefix belong to.

An address belongs to every service one of whose prefixes contains it. The longest prefix that contains it
therefore tells all of them: its own services, and those of all prefixes around it.
"""

from collections.abc import Iterable, Mapping

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.entries import Place
from marchproxy.dataplane.kernel.runs import PlanTooLarge
from marchproxy.model.address import Prefix

type Membership = frozenset[str]
"""Qualified names of services."""
type Move = tuple[Place, Membership | None, Membership | None]
"""A prefix, its services before and after; None: not there."""

NOBODY: Membership = frozenset()
V4_LENGTH = 96
V4_ROOT: Place = (0xFFFF << 32, V4_LENGTH)
"""Where IPv4 lies. Always there: without it an IPv6 prefix around it, as `::/0`, would hold IPv4."""

_MASKS = tuple(((1 << length) - 1) << (128 - length) for length in range(129))


class Memberships:
    """The prefixes of a plan's sources. A change costs about its own size, and a look at every service."""

    def __init__(self) -> None:
        self._sources: dict[str, tuple[Prefix, ...]] = {}
        self._named: dict[Place, set[str]] = {V4_ROOT: set()}
        """Who names a prefix itself."""
        self._found: dict[Place, Membership] = {}

    def update(self, sources: Mapping[str, tuple[Prefix, ...]]) -> list[Move]:
        """Take over new sources; what that changes, first of all `V4_ROOT`. Raises `PlanTooLarge`."""
        old, new = self._sources, dict(sources)
        differing = {name for name, prefixes in new.items() if old.get(name) is not prefixes}
        moved = {V4_ROOT} - self._found.keys()
        for name in differing | (old.keys() - new.keys()):
            moved |= self._rename(name, old.get(name, ()), new.get(name, ()))
        self._sources = new
        if len(self._named) > layouts.PREFIXES:
            raise PlanTooLarge(
                f"too many prefixes of services: the kernel's table holds {layouts.PREFIXES}",
                hint="use wider prefixes, or name fewer services in mappings",
            )
        return self._move(moved) if moved else []

    def _rename(self, name: str, before: Iterable[Prefix], after: Iterable[Prefix]) -> set[Place]:
        """Note which prefixes a service names; those where that differs."""
        old, new = set(map(place_of, before)), set(map(place_of, after))
        for place in old - new:
            self._named[place].discard(name)
            if not self._named[place] and place != V4_ROOT:
                del self._named[place]
        for place in new - old:
            self._named.setdefault(place, set()).add(name)
        return old ^ new

    def _move(self, moved: set[Place]) -> list[Move]:
        """Find the services of the prefixes in `moved`, and of all inside of them, anew."""
        moves: list[Move] = [(place, self._found.pop(place), None) for place in moved - self._named.keys()]
        lengths = sorted({length for _, length in self._named}, reverse=True)
        # From the outside in: each one builds on the next around it.
        for place in sorted(self._inside(moved), key=lambda place: place[1]):
            before, after = self._found.get(place), self._services_of(place, lengths)
            if before != after:
                self._found[place] = after
                moves.append((place, before, after))
        return moves

    def _inside(self, moved: set[Place]) -> set[Place]:
        """Those of `moved` that are there, and every prefix inside one of `moved`."""
        inside = moved & self._named.keys()
        for length in {length for _, length in moved} - {128}:
            mask = _MASKS[length]
            inside.update(place for place in self._named if (place[0] & mask, length) in moved)
        return inside

    def _services_of(self, place: Place, lengths: list[int]) -> Membership:
        """Its own services, and those of the next prefix around it."""
        address, own_length = place
        own = self._named[place]
        for length in lengths if place != V4_ROOT else ():
            around = (address & _MASKS[length], length)
            if length < own_length and around in self._named:
                return self._found[around] | own
        return frozenset(own)


def place_of(prefix: Prefix) -> Place:
    """Where a prefix lies in the space that both families share."""
    address = int(prefix.network_address)
    if prefix.version == 4:
        return V4_ROOT[0] | address, V4_LENGTH + prefix.prefixlen
    return address, prefix.prefixlen
