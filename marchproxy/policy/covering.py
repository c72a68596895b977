"""Which transit rules match all that another one matches: with bits, as `bits.py` finds which match a packet.

Sound and not complete: what is said to be covered is, whatever names resolve to and whenever mappings expire.
What only several rules with parts of a prefix or of a port range cover together is not found.
"""

from collections.abc import Iterator, Sequence
from collections.abc import Mapping as MappingABC
from collections.abc import Set as AbstractSet
from itertools import product
from math import prod

from marchproxy.model.address import Prefix
from marchproxy.policy.bits import alike, lowest
from marchproxy.policy.directory import Audience
from marchproxy.policy.plan import ANYONE, Match, TransitRule
from marchproxy.policy.sources import SourceIndex

MOST_CELLS = 64
"""A rule for more pairs of services and ports than this is looked at as a whole only."""
MOST_RANGES = 256
"""Port ranges that others are looked for in, the widest first."""


class Covers:
    """Transit rules, indexed by what they cover. Addresses of `unsettled` services, with host names, move."""

    def __init__(
        self,
        rules: Sequence[TransitRule],
        sources: MappingABC[str, Sequence[Prefix]],
        unsettled: AbstractSet[str],
    ) -> None:
        settled = {name: prefixes for name, prefixes in sources.items() if name not in unsettled}
        index = SourceIndex(settled)
        lasting = sum(1 << number for number, rule in enumerate(rules) if rule.expires is None)
        self._rules = rules
        self._sources = _Ends([(rule.sources, rule.excluded) for rule in rules], settled, index, lasting)
        self._destinations = _Ends(
            [(rule.destinations, rule.excluded_destinations) for rule in rules], settled, index, lasting
        )
        self._matches = _Matches([rule.matches for rule in rules])

    def earlier(self, number: int) -> list[TransitRule]:
        """Earlier rules that together match all that rule `number` does; none if that is not so."""
        rule = self._rules[number]
        before = (1 << number) - 1
        ends = (
            self._sources.cells((rule.sources, rule.excluded)),
            self._destinations.cells((rule.destinations, rule.excluded_destinations)),
            _Cells(list(self._matches.cells(rule.matches))),
        )
        found = before & ends[0].whole & ends[1].whole & ends[2].whole
        if found:
            return [self._rules[lowest(found)]]
        if prod(len(end.each) for end in ends) > MOST_CELLS:
            return []
        taken = set()
        for source, destination, match in product(*[end.each for end in ends]):
            found = source & destination & match & before
            if not found:
                return []
            taken.add(lowest(found))
        return [self._rules[each] for each in sorted(taken)]


class _Cells:
    """Parts of what a rule is for that can be looked at by themselves."""

    __slots__ = ("each", "whole")

    def __init__(self, each: Sequence[int]) -> None:
        self.each = each
        """For each part, of which there is one at least: the rules that cover it."""
        self.whole = _all(each)
        """The rules that cover all parts."""


class _Ends:
    """The rules that cover sources, or destinations."""

    def __init__(
        self,
        audiences: Sequence[Audience],
        prefixes: MappingABC[str, Sequence[Prefix]],
        index: SourceIndex,
        lasting: int,
    ) -> None:
        self._prefixes = prefixes
        self._index = index
        self._lasting = lasting
        self._everyone = 0
        self._except: list[tuple[frozenset[str], int]] = []
        self._naming: dict[str, int] = {}
        self._services: dict[str, int] = {}
        self._known: dict[tuple[int, int], _Cells] = {}
        for (included, excluded), mask in alike(audiences):
            if ANYONE not in included:
                for service in () if excluded else included:
                    self._naming[service] = self._naming.get(service, 0) | mask
            elif excluded:
                self._except.append((frozenset(excluded), mask))
            else:
                self._everyone |= mask

    def cells(self, audience: Audience) -> _Cells:
        """Its services, or everyone as one."""
        included, excluded = audience
        key = (id(included), id(excluded))
        found = self._known.get(key)
        if found is None:
            everyone = ANYONE in included
            each = [self._but(excluded)] if everyone else [self._service(name) for name in included]
            found = self._known[key] = _Cells(each)
        return found

    def _but(self, excluded: tuple[str, ...]) -> int:
        """For everyone, or everyone but some: who excludes no others."""
        found = self._everyone
        for others, mask in self._except:
            if others.issubset(excluded):
                found |= mask
        return found & self._lasting

    def _service(self, name: str) -> int:
        found = self._services.get(name)
        if found is None:
            found = self._everyone | self._naming.get(name, 0)
            prefixes = self._prefixes.get(name, ())
            if prefixes:
                found |= _all([self._around(prefix) for prefix in prefixes])
            found = self._services[name] = found & self._lasting
        return found

    def _around(self, prefix: Prefix) -> int:
        found = 0
        for holder in self._index.holders(prefix.network_address, prefix.prefixlen):
            found |= self._naming.get(holder, 0)
        return found


class _Matches:
    """The rules that cover protocols and ports."""

    def __init__(self, matches: Sequence[Sequence[Match]]) -> None:
        self._any: dict[int, int] = {}
        self._exact: dict[tuple[int, int, int], int] = {}
        for number, each in enumerate(matches):
            for protocol, ports in each:
                if not ports:
                    self._any[protocol] = self._any.get(protocol, 0) | 1 << number
                for held in ports:
                    key = (protocol, held.first, held.last)
                    self._exact[key] = self._exact.get(key, 0) | 1 << number
        wide = sorted(self._exact, key=lambda key: key[1] - key[2])[:MOST_RANGES]
        self._wide = [key for key in wide if key[1] < key[2]]
        self._known: dict[tuple[int, int, int], int] = {}

    def cells(self, matches: Sequence[Match]) -> Iterator[int]:
        """For each protocol and port range: the rules that cover it."""
        for protocol, ports in matches:
            if not ports:
                yield self._any[protocol]
            for held in ports:
                yield self._range((protocol, held.first, held.last))

    def _range(self, wanted: tuple[int, int, int]) -> int:
        found = self._known.get(wanted)
        if found is None:
            protocol, first, last = wanted
            found = self._any.get(protocol, 0) | self._exact[wanted]
            for key in self._wide:
                if key[0] == protocol and key[1] <= first and last <= key[2]:
                    found |= self._exact[key]
            self._known[wanted] = found
        return found


def _all(masks: Sequence[int]) -> int:
    """The rules that are in every mask; there is one mask at least."""
    found = masks[0]
    for mask in masks[1:]:
        found &= mask
    return found
