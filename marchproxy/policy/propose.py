"""From what audit saw to the services and mappings that would allow just that.

Nothing is widened but sources: clients of one network become that network where at least two of them were
seen. Destinations stay what was asked for, ports what was used. What is alike is said once: addresses that
the same clients use in the same way are one service, and mappings with the same ports are one mapping
wherever that allows nothing more.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import ip_network
from itertools import count

from marchproxy.model import entities
from marchproxy.model.address import Address, HostName, IPAddress, Prefix
from marchproxy.model.entities import Service
from marchproxy.model.names import ALL, DEFAULT_CLUSTER, EXTERNAL, cluster_of
from marchproxy.model.ports import PortRange, merge
from marchproxy.model.protocol import Protocol
from marchproxy.model.snapshot import Cluster
from marchproxy.policy.observed import Observation

GROUPS: Mapping[int, int] = {4: 24, 6: 64}
"""IP version to the prefix length of one network of clients."""
_LONGEST_NAME = 63


@dataclass(frozen=True, slots=True)
class Proposed:
    """Additions to a cluster, for an operator to judge."""

    services: tuple[Service, ...]
    mappings: tuple[entities.Mapping, ...]


type _Use = frozenset[tuple[Protocol, int]]
"""Protocols and ports that somebody uses of somebody."""


def propose(
    observations: Sequence[Observation], cluster: Cluster, groups: Mapping[int, int] = GROUPS
) -> Proposed:
    """What `cluster` lacks to allow the flows observed.

    `observations` are those that no mapping decided; `groups` says how wide networks of clients are.
    """
    names = _Names(cluster)
    asked = {seen.destination: seen.name for seen in observations if seen.name}
    observations = [replace(seen, name=seen.name or asked.get(seen.destination, "")) for seen in observations]
    networks = _networks(observations, groups)
    uses: dict[tuple[str, IPAddress | str], set[tuple[Protocol, int]]] = defaultdict(set)
    listening: dict[entities.Mapping, set[str]] = defaultdict(set)
    for seen in observations:
        source = names.source(seen, networks)
        listener = _listening(cluster, seen)
        if listener is not None:
            listening[listener].add(source)
        else:
            uses[source, names.known_destination(seen)].add((Protocol(seen.protocol), seen.port))
    pairs = names.gather(uses)
    mappings = [*_mappings(pairs), *(_also(mapping, sources) for mapping, sources in listening.items())]
    note = _note(observations)
    finished = tuple(names.christen(mapping, note) for mapping in mappings)
    return Proposed(tuple(names.made.values()), finished)


def _networks(observations: Iterable[Observation], groups: Mapping[int, int]) -> dict[Prefix, Prefix]:
    """Each source to what stands for it: its network where that has others, else itself."""
    members: dict[Prefix, set[Prefix]] = defaultdict(set)
    for seen in observations:
        members[_widened(seen.source, groups)].add(seen.source)
    return {
        source: network if len(sources) > 1 else source
        for network, sources in members.items()
        for source in sources
    }


def _widened(source: Prefix, groups: Mapping[int, int]) -> Prefix:
    length = groups[source.version]
    return source if source.prefixlen <= length else source.supernet(new_prefix=length)


def _listening(cluster: Cluster, seen: Observation) -> entities.Mapping | None:
    """The mapping whose listener was asked; what it lacks is the client among its sources."""
    for mapping in cluster.mappings:
        listen = mapping.listen
        if listen is None or seen.port not in listen.ports or mapping.action is not entities.Action.ALLOW:
            continue
        transports = {str(protocol.transport) for protocol in mapping.protocols}
        if listen.address in (None, seen.destination) and seen.protocol in transports:
            return mapping
    return None


class _Names:
    """Services by name: those of the cluster, and those that are made for what it has no name for."""

    def __init__(self, cluster: Cluster) -> None:
        self.made: dict[str, Service] = {}
        self._cluster = cluster.name
        self._services = {service.name for service in cluster.services} | {ALL, EXTERNAL}
        self._holding = {service.addresses: service.name for service in cluster.services}
        self._mappings = {mapping.name for mapping in cluster.mappings}

    def source(self, seen: Observation, networks: Mapping[Prefix, Prefix]) -> str:
        """The service of a client."""
        own = self._own(seen.source_service)
        prefix = networks[seen.source]
        alone = prefix.prefixlen == prefix.max_prefixlen
        wish = f"host-{prefix.network_address}" if alone else f"net-{prefix}"
        return own or self._service(wish, (prefix,))

    def known_destination(self, seen: Observation) -> IPAddress | str:
        """The service of a destination that has a name already, or its address."""
        own = self._own(seen.destination_service)
        if own:
            return own
        return self._service(seen.name, (HostName(seen.name),)) if seen.name else seen.destination

    def gather(
        self, uses: Mapping[tuple[str, IPAddress | str], set[tuple[Protocol, int]]]
    ) -> dict[tuple[str, str], _Use]:
        """Addresses that all clients use alike become one service."""
        used_by: dict[IPAddress | str, set[tuple[str, _Use]]] = defaultdict(set)
        for (source, destination), use in uses.items():
            used_by[destination].add((source, frozenset(use)))
        alike: dict[frozenset[tuple[str, _Use]], list[IPAddress]] = defaultdict(list)
        pairs: dict[tuple[str, str], _Use] = {}
        for destination, users in used_by.items():
            if isinstance(destination, str):
                pairs.update({(source, destination): use for source, use in users})
            else:
                alike[frozenset(users)].append(destination)
        for together, addresses in alike.items():
            prefixes = tuple(sorted(map(ip_network, addresses), key=lambda each: (each.version, each)))
            first = str(prefixes[0].network_address)
            name = self._service(f"{'host' if len(prefixes) == 1 else 'hosts'}-{first}", prefixes)
            pairs.update({(source, name): use for source, use in together})
        return pairs

    def christen(self, mapping: entities.Mapping, note: str) -> entities.Mapping:
        """The mapping under a name that no other has."""
        what = "-".join(str(protocol) for protocol in mapping.protocols)
        # A redirect has no destination.
        goal = (*mapping.destinations, "elsewhere")[0]
        name = _free(f"{mapping.sources[0]}-to-{goal}-{what}", self._mappings)
        self._mappings.add(name)
        fields = {field: getattr(mapping, field) for field in mapping.__slots__}
        return entities.Mapping(**fields | {"name": name, "description": note})

    def _own(self, qualified: str) -> str:
        """The name in this cluster, if it is one of it and still there."""
        if not qualified or cluster_of(qualified) != self._cluster:
            return ""
        name = qualified if self._cluster == DEFAULT_CLUSTER else qualified.partition("/")[2]
        return name if name in self._services else ""

    def _service(self, wish: str, addresses: tuple[Address, ...]) -> str:
        if addresses not in self._holding:
            name = _free(wish, self._services)
            self._services.add(name)
            self._holding[addresses] = name
            self.made[name] = Service(name, addresses)
        return self._holding[addresses]


def _mappings(pairs: Mapping[tuple[str, str], _Use]) -> list[entities.Mapping]:
    """One mapping for each set of ports, sources and destinations that belong together."""
    by_use: dict[tuple[str, frozenset[Protocol], frozenset[int]], set[str]] = defaultdict(set)
    for (source, destination), use in pairs.items():
        for protocols, ports in _split(use):
            by_use[destination, protocols, ports].add(source)
    joined: dict[tuple[frozenset[str], frozenset[Protocol], frozenset[int]], set[str]] = defaultdict(set)
    for (destination, protocols, ports), sources in by_use.items():
        joined[frozenset(sources), protocols, ports].add(destination)
    return [
        entities.Mapping(
            name="",
            sources=tuple(sorted(sources)),
            destinations=tuple(sorted(destinations)),
            protocols=tuple(sorted(protocols)),
            ports=merge([PortRange(port, port) for port in ports if port]),
        )
        for (sources, protocols, ports), destinations in joined.items()
    ]


def _split(use: _Use) -> list[tuple[frozenset[Protocol], frozenset[int]]]:
    """Protocols with the same ports together."""
    ports: dict[Protocol, set[int]] = defaultdict(set)
    for protocol, port in use:
        ports[protocol].add(port)
    same: dict[frozenset[int], set[Protocol]] = defaultdict(set)
    for protocol, found in ports.items():
        same[frozenset(found)].add(protocol)
    return [(frozenset(protocols), found) for found, protocols in same.items()]


def _also(mapping: entities.Mapping, sources: Iterable[str]) -> entities.Mapping:
    """The same for more clients: what it wants of them, and does with their requests, stays."""
    return replace(mapping, name="", sources=tuple(sorted(sources)))


def _note(observations: Sequence[Observation]) -> str:
    if not observations:
        return ""
    first = datetime.fromtimestamp(min(seen.first for seen in observations), UTC)
    last = datetime.fromtimestamp(max(seen.last for seen in observations), UTC)
    return f"learned from {first:%Y-%m-%d} to {last:%Y-%m-%d}"


def _free(wish: str, taken: Iterable[str]) -> str:
    """A name like `wish` that may be one, and is not taken."""
    allowed = "".join(char if char.isascii() and (char.isalnum() or char in "._-") else "-" for char in wish)
    base = allowed.strip("-._") or "learned"
    for number in count(1):
        end = "" if number == 1 else f"-{number}"
        name = base[: _LONGEST_NAME - len(end)] + end
        if name not in taken:
            return name
    raise AssertionError("there are always more numbers")
