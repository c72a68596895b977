"""Which transit rules a new flow matches: one bit for each rule, in first-match order.

Each dimension (source, destination, protocol and port) gives an integer with the bits of the rules that it
satisfies; the lowest bit of all three ANDed is the answer. The kernel does the same in words of 64.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from marchproxy.model.reason import Reason
from marchproxy.policy.directory import Audience
from marchproxy.policy.plan import ANYONE, Match, TransitRule


class TransitIndex:
    """Transit rules, indexed for questions. An answer takes some microseconds, with 10,000 rules too."""

    def __init__(self, rules: Sequence[TransitRule]) -> None:
        self.rules = rules
        self.sources = Ends([(rule.sources, rule.excluded) for rule in rules])
        self.destinations = Ends([(rule.destinations, rule.excluded_destinations) for rule in rules])
        self._matches = Matches([rule.matches for rule in rules])

    def find(
        self, sources: frozenset[str], destinations: frozenset[str], protocol: int, port: int
    ) -> TransitRule | None:
        """The first rule that matches a flow between these services; `protocol` as in `Match`."""
        found = self.sources.bits(sources) & self.destinations.bits(destinations)
        if found:
            found &= self._matches.bits(protocol, port)
        return self.rules[lowest(found)] if found else None

    def leads(self, sources: frozenset[str], protocol: int, port: int) -> bool:
        """Whether some rule but a refusal is for these sources and the port (0: any)."""
        found = self.sources.bits(sources)
        if port:
            found &= self._matches.bits(protocol, port)
        while found:
            rule = self.rules[lowest(found)]
            if _may_open(rule) and (port or any(match.protocol == protocol for match in rule.matches)):
                return True
            found &= found - 1
        return False

    def between(self, sources: frozenset[str], destinations: frozenset[str]) -> Iterator[TransitRule]:
        """The rules for these services, whatever the protocol and port, in first-match order."""
        found = self.sources.bits(sources) & self.destinations.bits(destinations)
        while found:
            yield self.rules[lowest(found)]
            found &= found - 1


class Ends:
    """The rules that one end of a flow satisfies."""

    def __init__(self, audiences: Sequence[Audience]) -> None:
        self._everyone = 0
        self._except: list[tuple[frozenset[str] | None, frozenset[str], int]] = []
        """Services that match, or None for everyone; services that do not; and the rules that say so."""
        self._naming: dict[str, int] = {}
        self._known: dict[frozenset[str], int] = {}
        for (included, excluded), mask in alike(audiences):
            if excluded:
                self._except.append((_members(included), frozenset(excluded), mask))
            elif ANYONE in included:
                self._everyone |= mask
            else:
                for service in included:
                    self._naming[service] = self._naming.get(service, 0) | mask

    def bits(self, services: frozenset[str]) -> int:
        """The rules for an address that belongs to exactly these services."""
        found = self._known.get(services)
        if found is None:
            found = self._everyone
            for service in services:
                found |= self._naming.get(service, 0)
            for included, excluded, mask in self._except:
                if services.isdisjoint(excluded) and (included is None or not services.isdisjoint(included)):
                    found |= mask
            self._known[services] = found
        return found


class Matches:
    """The rules that a protocol and port satisfy."""

    def __init__(self, matches: Sequence[Sequence[Match]]) -> None:
        self._any: dict[int, int] = {}
        self._ranges: dict[int, list[tuple[int, int, int]]] = {}
        """By protocol: first and last port, and the number of the rule."""
        self._cuts: dict[int, list[int]] = {}
        """By protocol: the ports from which on other rules match than before."""
        self._known: dict[tuple[int, int], int] = {}
        """By protocol and number of cuts passed. Filled as it is asked: most ports never are."""
        for number, each in enumerate(matches):
            for protocol, ports in each:
                if not ports:
                    self._any[protocol] = self._any.get(protocol, 0) | 1 << number
                self._ranges.setdefault(protocol, []).extend(
                    [(range_.first, range_.last, number) for range_ in ports]
                )
        for protocol, ranges in self._ranges.items():
            self._cuts[protocol] = sorted({cut for first, last, _ in ranges for cut in (first, last + 1)})

    def bits(self, protocol: int, port: int) -> int:
        """The rules for new flows to that port; for ICMP the port does not matter."""
        place = (protocol, bisect_right(self._cuts.get(protocol, ()), port))
        found = self._known.get(place)
        if found is None:
            found = self._any.get(protocol, 0)
            for first, last, number in self._ranges.get(protocol, ()):
                if first <= port <= last:
                    found |= 1 << number
            self._known[place] = found
        return found


def _may_open(rule: TransitRule) -> bool:
    return rule.reason is Reason.FORWARDED or bool(rule.credentials) or rule.sni is not None or rule.audit


def lowest(bits: int) -> int:
    """The number of the lowest bit that is set; there is one."""
    return (bits & -bits).bit_length() - 1


def alike(audiences: Sequence[Audience]) -> Iterable[tuple[Audience, int]]:
    """Each audience once, with its rules. By identity: one list of ten thousand names serves many rules."""
    masks: dict[tuple[int, int], int] = {}
    first: dict[tuple[int, int], Audience] = {}
    for number, audience in enumerate(audiences):
        key = (id(audience[0]), id(audience[1]))
        masks[key] = masks.get(key, 0) | 1 << number
        first.setdefault(key, audience)
    return [(first[key], mask) for key, mask in masks.items()]


def _members(included: tuple[str, ...]) -> frozenset[str] | None:
    return None if ANYONE in included else frozenset(included)
