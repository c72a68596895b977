"""From the services that rules name to what the programs look up: prefixes to classes, classes to rules."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.addressclasses import AddressClasses
from marchproxy.dataplane.kernel.classes import Audience, ClassBits, ClassNumbers, Dimension
from marchproxy.dataplane.kernel.entries import Place, Tables
from marchproxy.dataplane.kernel.memberships import NOBODY, Membership, Memberships, Move
from marchproxy.model.address import Prefix
from marchproxy.policy.plan import ANYONE

type Names = tuple[str, ...]
"""Qualified names of services, or ANYONE alone."""
_BY_ADDRESS = (Dimension.LISTENER, Dimension.SOURCE, Dimension.DESTINATION)


@dataclass(slots=True, eq=False)
class _Group:
    """The prefixes whose addresses are in the same services, and the class that these come to."""

    number: int | None = None
    """None: not looked at yet."""
    audiences: frozenset[Audience] = frozenset()
    places: set[Place] = field(default_factory=set)


class Audiences:
    """Keeps classes of addresses, and their bits, equal to the rules that have joined and the services.

    Who joins is taken in by `settle`.
    """

    def __init__(self, tables: Tables) -> None:
        self._classes = AddressClasses(tables)
        self._bits = ClassBits(tables)
        self._memberships = Memberships()
        everyone = [Audience(each, frozenset((ANYONE,))) for each in _BY_ADDRESS]
        self._bits.assign(layouts.CLASS_ANYONE, frozenset(everyone))
        self._known = {_identity(each): each for each in everyone}
        self._everyone = frozenset(everyone)
        self._lately: dict[tuple[Dimension, int, int], tuple[Names, Names, Audience]] = {}
        """By the identity of the lists, since the last `settle`: ten thousand names are hashed once."""
        self._of_rule: dict[tuple[Dimension, int], Audience] = {}
        self._unsettled: set[Audience] = set()
        self._naming: dict[object, set[Audience]] = {}
        """By service, or ANYONE for everyone but some: the settled audiences that include it."""
        self._groups = {NOBODY: _Group(layouts.CLASS_STRANGER)}
        self._containing: dict[object, set[Membership]] = {}
        """By service: the groups whose addresses are in it."""
        self._numbers: dict[frozenset[Audience], int] = {}
        self._uses: Counter[int] = Counter()
        self._free = ClassNumbers("groups of addresses")
        self.settle({})

    def join(self, dimension: Dimension, number: int, included: Names, excluded: Names) -> None:
        """Let rule `number` match addresses in services of one list and in none of the other."""
        key = (dimension, id(included), id(excluded))
        if key not in self._lately:
            self._lately[key] = (included, excluded, self._audience(dimension, included, excluded))
        *_, audience = self._lately[key]
        self._of_rule[dimension, number] = audience
        self._bits.join(audience, number)

    def leave(self, dimension: Dimension, number: int) -> None:
        """Let rule `number` match nobody."""
        audience = self._of_rule.pop((dimension, number))
        self._bits.leave(audience, number)
        if audience not in self._everyone:
            self._unsettled.add(audience)

    def settle(self, services: Mapping[str, tuple[Prefix, ...]]) -> None:
        """Take over who has joined and left, and the services. Raises `PlanTooLarge`."""
        concerned = self._regroup(self._memberships.update(services))
        for audience in self._unsettled:
            concerned |= self._enlist(audience) if audience.words else self._strike(audience)
        self._unsettled.clear()
        self._lately.clear()
        for membership in concerned & self._groups.keys():
            self._classify(membership)
        self._classes.settle()

    def _audience(self, dimension: Dimension, included: Names, excluded: Names) -> Audience:
        names = (ANYONE,) if ANYONE in included else included
        audience = Audience(dimension, frozenset(names), frozenset(excluded))
        if _identity(audience) not in self._known:
            self._known[_identity(audience)] = audience
            self._unsettled.add(audience)
        return self._known[_identity(audience)]

    def _enlist(self, audience: Audience) -> set[Membership]:
        """Have an audience found by its services; the groups that this concerns."""
        if audience.settled:
            return set()
        audience.settled = True
        for name in audience.included:
            self._naming.setdefault(name, set()).add(audience)
        return self._concerned_by(audience)

    def _strike(self, audience: Audience) -> set[Membership]:
        """Forget an audience that has no rules; the groups that this concerns."""
        del self._known[_identity(audience)]
        if not audience.settled:
            return set()
        for name in audience.included:
            _discard(self._naming, name, audience)
        return self._concerned_by(audience)

    def _concerned_by(self, audience: Audience) -> set[Membership]:
        if ANYONE in audience.included:
            return set(self._groups)
        return {group for name in audience.included for group in self._containing.get(name, ())}

    def _regroup(self, moves: Sequence[Move]) -> set[Membership]:
        """Put prefixes where they belong now; the groups that are new."""
        new: set[Membership] = set()
        for place, _, after in moves:
            if after is None:
                del self._classes[place]
                continue
            group = self._groups.get(after) or self._form(after)
            group.places.add(place)
            if group.number is None:
                new.add(after)
            else:
                self._classes[place] = group.number
        # Last, so that a group whose only prefix is replaced keeps its class.
        for place, before, _ in moves:
            if before is not None:
                self._groups[before].places.remove(place)
                if not self._groups[before].places and before != NOBODY:
                    self._disband(before)
        return new

    def _form(self, membership: Membership) -> _Group:
        for name in membership:
            self._containing.setdefault(name, set()).add(membership)
        group = self._groups[membership] = _Group()
        return group

    def _disband(self, membership: Membership) -> None:
        for name in membership:
            _discard(self._containing, name, membership)
        self._release(self._groups.pop(membership))

    def _classify(self, membership: Membership) -> None:
        """Give a group the class of all audiences that match its services."""
        group = self._groups[membership]
        candidates = self._naming.get(ANYONE, set()).union(
            *(self._naming.get(name, ()) for name in membership)
        )
        audiences = frozenset(each for each in candidates if each.excluded.isdisjoint(membership))
        if membership == NOBODY:
            # What is in no prefix finds this class whatever it consists of.
            self._bits.assign(layouts.CLASS_STRANGER, audiences)
        elif group.number is None or group.audiences != audiences:
            number = self._enter(audiences)
            self._release(group)
            group.number, group.audiences = number, audiences
            self._classes.update(dict.fromkeys(group.places, number))

    def _enter(self, audiences: frozenset[Audience]) -> int:
        """The number of a class, for one group more."""
        number = self._numbers.get(audiences)
        if number is None:
            number = self._numbers[audiences] = self._free.take()
            self._bits.assign(number, audiences)
        self._uses[number] += 1
        return number

    def _release(self, group: _Group) -> None:
        """One group less has its class."""
        if group.number is None:
            return
        self._uses[group.number] -= 1
        if not self._uses[group.number]:
            del self._uses[group.number]
            del self._numbers[group.audiences]
            self._bits.assign(group.number, frozenset())
            self._free.give_back(group.number)


def _identity(audience: Audience) -> tuple[Dimension, frozenset[object], frozenset[object]]:
    """What no other audience has."""
    return audience.dimension, audience.included, audience.excluded


def _discard[K, V](index: dict[K, set[V]], key: K, value: V) -> None:
    """Take a value out of an index, and with the last one its key."""
    index[key].remove(value)
    if not index[key]:
        del index[key]
