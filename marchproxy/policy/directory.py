"""The services of one cluster, with host names resolved, ready to be referred to by mappings."""

from collections.abc import Iterable, Iterator
from collections.abc import Mapping as MappingABC
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from types import MappingProxyType
from typing import NamedTuple

from marchproxy.model.address import HostName, IPAddress, Prefix, address_order, is_single
from marchproxy.model.entities import Auth, Service
from marchproxy.model.names import ALL, COLLECTION_PREFIX, EXTERNAL, cluster_of, qualify
from marchproxy.model.snapshot import Cluster
from marchproxy.policy.checks import BackendKey, Watched, checked_port, is_checked, is_drained, watch
from marchproxy.policy.plan import ANYONE

type HostTable = MappingABC[str, tuple[IPAddress, ...]]
"""Host names to what they resolved to."""
type Audience = tuple[tuple[str, ...], tuple[str, ...]]
"""Services that match, or `EVERYONE`; and services that do not. As of a rule."""

EVERYONE = (ANYONE,)

type DownTable = MappingABC[str, frozenset[BackendKey]]
"""Qualified service names to those of their backends that are down."""

_NO_HOSTS: HostTable = MappingProxyType({})
_NONE_DOWN: DownTable = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A service and what its addresses came to. The object stays the same for as long as neither changes.

    Equality is therefore identity: as part of a key, an entry stands for its contents at no cost.
    """

    name: str
    """Qualified, `cluster/service`."""
    service: Service
    hosts: tuple[str, ...]
    """Its host names."""
    prefixes: tuple[Prefix, ...]
    """Fixed and resolved ones, sorted."""
    lingering: frozenset[Prefix] = frozenset()
    """Those of `prefixes` that its host names no longer resolve to: allowed for a while, and no backends."""
    down: frozenset[BackendKey] = frozenset()
    """Those of its backends that checks found down."""

    _watched: dict[int, tuple[Watched, ...]] = field(default_factory=dict, repr=False)

    @property
    def certificate(self) -> str:
        """The qualified name of the certificate that its backends are shown; empty: none."""
        own = self.service.tls_cert
        return qualify(cluster_of(self.name), own) if own else ""

    def backends(self, version: int) -> list[IPAddress]:
        """Its single addresses of IP version 4 or 6: what traffic can be sent to."""
        return [
            prefix.network_address
            for prefix in self.prefixes
            if prefix.version == version and is_single(prefix) and prefix not in self.lingering
        ]

    def watched(self, port: int) -> tuple[Watched, ...]:
        """Those of its backends, asked on `port`, that are checked or drained; the same tuple each time."""
        port = checked_port(self.service, port)
        found = self._watched.get(port)
        if found is None:
            addresses = [*self.backends(4), *self.backends(6)]
            host = next((host for host in self.hosts if not host.startswith("*.")), "")
            every = watch(self.name, self.service, host, addresses, port, self.certificate)
            found = self._watched[port] = tuple(every)
        return found

    def takes(self, address: IPAddress, port: int) -> bool:
        """Whether new flows may go to its backend there."""
        key = BackendKey(self.name, address, checked_port(self.service, port))
        return key not in self.down and not is_drained(self.service, address)

    def ranges(self) -> list[Prefix]:
        """Its prefixes of more than one address: fine as a source, nothing to send traffic to."""
        return [prefix for prefix in self.prefixes if not is_single(prefix)]


class Target(NamedTuple):
    """Destinations that one transit rule is for."""

    included: tuple[str, ...]
    excluded: tuple[str, ...] = ()
    port: int | None = None
    """The services' own; None: any."""
    locked: bool = False
    """They want a credential."""


@dataclass(frozen=True, slots=True, eq=False)
class Referents:
    """What a mapping's list of references stands for."""

    entries: tuple[Entry, ...]
    """Services named by themselves or through collections, each once, sorted by name."""
    names: tuple[str, ...]
    """The qualified names of `entries`."""
    everyone: bool
    """`all` is among the references."""
    external: bool
    """`external` is among the references."""
    unknown: tuple[str, ...]
    """References to services that do not exist."""
    empty: tuple[str, ...]
    """References to collections without a service."""
    _targets: dict[bool, tuple[Target, ...]] = field(default_factory=dict, repr=False)

    def targets(self, *, by_port: bool) -> tuple[Target, ...]:
        """The services as destinations: those that want a credential first, then by port if that matters.

        The same tuple for all mappings that name the same: a collection may have ten thousand members.
        """
        found = self._targets.get(by_port)
        if found is None:
            found = self._targets[by_port] = tuple(_group(self.entries, by_port))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Directory:
    """The services of one cluster."""

    cluster: Cluster
    entries: MappingABC[str, Entry]
    """By plain name, in the snapshot's order."""
    collections: MappingABC[str, tuple[str, ...]]
    """`collection:NAME` to the plain names of its services."""
    names: tuple[str, ...]
    """The qualified names of all services: whom `external` excludes."""
    locked: tuple[str, ...]
    """The qualified names of those that want a credential."""
    hosts: MappingABC[str, tuple[str, ...]]
    """Host names to the plain names of the services that have them."""
    _known: dict[tuple[str, ...], Referents] = field(default_factory=dict, repr=False)

    def resolve(self, references: tuple[str, ...]) -> Referents:
        """What references stand for; the same object for the same references, since large lists recur."""
        found = self._known.get(references)
        if found is None:
            found = self._known[references] = self._resolve(references)
        return found

    def _resolve(self, references: tuple[str, ...]) -> Referents:
        plain = [name for name in references if name not in (ALL, EXTERNAL)]
        members = {name: self._members(name) for name in plain}
        named = sorted({member for names in members.values() for member in names})
        # Tuples by way of lists: most hold one item or none, and a generator costs more than that.
        entries = tuple([self.entries[name] for name in named])
        missing = [name for name in plain if not members[name]]
        return Referents(
            entries=entries,
            names=tuple([entry.name for entry in entries]),
            everyone=ALL in references,
            external=EXTERNAL in references,
            unknown=tuple([name for name in missing if not name.startswith(COLLECTION_PREFIX)]),
            empty=tuple([name for name in missing if name.startswith(COLLECTION_PREFIX)]),
        )

    def audiences(self, referents: Referents) -> tuple[Audience, ...]:
        """Referents as whom rules are for, one for each rule.

        `external` beside services is two rules: one would have to exclude a service and match it too, for an
        address that is in a named service and in an unnamed one.
        """
        if referents.everyone:
            return ((EVERYONE, ()),)
        external = ((EVERYONE, self.names),) if referents.external else ()
        named = ((referents.names, ()),) if referents.names or not referents.external else ()
        return (*external, *named)

    def named_by(self, referents: Referents) -> tuple[str, ...]:
        """Every service that the audiences name."""
        return () if referents.everyone else self.names if referents.external else referents.names

    def _members(self, reference: str) -> tuple[str, ...]:
        if reference.startswith(COLLECTION_PREFIX):
            return self.collections.get(reference, ())
        return (reference,) if reference in self.entries else ()


def empty_directory(cluster: str) -> Directory:
    """What there is before the first compilation."""
    return Directory(Cluster(cluster), {}, {}, (), (), {})


def build_directory(
    cluster: Cluster,
    hosts: HostTable,
    moved: AbstractSet[str],
    before: Directory,
    lingering: HostTable = _NO_HOSTS,
    down: DownTable = _NONE_DOWN,
    turned: AbstractSet[str] = frozenset(),
) -> Directory:
    """The directory of `cluster`: `before` itself, or its parts, wherever nothing changed.

    `lingering` is what host names resolved to until lately, `moved` are those for which either is something
    else than when `before` was built. `turned` are the services of which other backends are `down` than then.
    """
    turned = turned & set(before.names) if turned else turned
    if cluster.services is before.cluster.services and not turned:
        touched = {name for host in moved & before.hosts.keys() for name in before.hosts[host]}
        return _readdress(before, touched, hosts, lingering, down) if touched else before
    entries: dict[str, Entry] = {}
    for service in cluster.services:
        old = before.entries.get(service.name)
        same = old is not None and (old.service is service or old.service == service)
        if old is None or not same or not moved.isdisjoint(old.hosts):
            old = _build_entry(cluster.name, service, hosts, lingering, down)
        elif turned and old.name in turned:
            old = replace(old, down=_down(old.name, service, down))
        entries[service.name] = old
    names = tuple([entry.name for entry in entries.values()])
    locked = tuple([entry.name for entry in entries.values() if entry.service.auth is not Auth.NONE])
    return Directory(
        cluster=cluster,
        entries=entries,
        collections=_collections(entries.values()),
        names=before.names if names == before.names else names,
        locked=before.locked if locked == before.locked else locked,
        hosts=_by_host(entries),
    )


def _readdress(
    before: Directory, touched: Iterable[str], hosts: HostTable, lingering: HostTable, down: DownTable
) -> Directory:
    """The same services, some of whose host names resolve to something else: a client waits for this."""
    name = before.cluster.name
    entries = {
        each: _build_entry(name, before.entries[each].service, hosts, lingering, down) for each in touched
    }
    return replace(before, entries={**before.entries, **entries}, _known={})


def _by_host(entries: MappingABC[str, Entry]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for name, entry in entries.items():
        for host in entry.hosts:
            found.setdefault(host, []).append(name)
    return {host: tuple(names) for host, names in found.items()}


@dataclass(frozen=True, slots=True)
class Delta:
    """Which references mean something else in one directory than in another."""

    members: frozenset[str]
    """They stand for other services."""
    demands: frozenset[str]
    """They stand for other services, or for services with another port or method of authentication."""
    contents: frozenset[str]
    """They stand for other services, or for services that are no longer the same objects."""


def compare(old: Directory, new: Directory) -> Delta:
    """What changed from `old` to `new`, in terms of the references that mappings make."""
    if old is new:
        return Delta(frozenset(), frozenset(), frozenset())
    if old.cluster.services is new.cluster.services:
        # Ten thousand services of which a name has moved: only contents can differ.
        moved = {name for name, entry in new.entries.items() if old.entries[name] is not entry}
        groups = [each for each, names in new.collections.items() if not moved.isdisjoint(names)]
        return Delta(frozenset(), frozenset(), frozenset((*moved, *groups)))
    names = old.entries.keys() | new.entries.keys()
    replaced = {name for name in names if old.entries.get(name) is not new.entries.get(name)}
    members = set(old.entries.keys() ^ new.entries.keys())
    demands = members | {name for name in replaced - members if _demand(old, name) != _demand(new, name)}
    contents = set(replaced)
    for reference in old.collections.keys() | new.collections.keys():
        before, after = old.collections.get(reference, ()), new.collections.get(reference, ())
        if before != after:
            members.add(reference)
        if before != after or not demands.isdisjoint(after):
            demands.add(reference)
        if before != after or not replaced.isdisjoint(after):
            contents.add(reference)
    if old.names is not new.names:
        members.add(EXTERNAL)
        demands.add(EXTERNAL)
    if old.locked is not new.locked:
        demands.add(ALL)
    return Delta(frozenset(members), frozenset(demands), frozenset(contents))


def _demand(directory: Directory, name: str) -> tuple[int | None, Auth]:
    service = directory.entries[name].service
    return service.port, service.auth


def _group(entries: Iterable[Entry], by_port: bool) -> Iterator[Target]:
    groups: dict[tuple[bool, int], list[str]] = {}
    for entry in entries:
        free, port = entry.service.auth is Auth.NONE, entry.service.port if by_port else None
        groups.setdefault((free, port or 0), []).append(entry.name)
    for (free, number), names in sorted(groups.items()):
        yield Target(tuple(names), port=number or None, locked=not free)


def _build_entry(
    cluster: str, service: Service, table: HostTable, lingering: HostTable, down: DownTable
) -> Entry:
    hosts = tuple(address.name for address in service.addresses if isinstance(address, HostName))
    fixed = [address for address in service.addresses if not isinstance(address, HostName)]
    held = {*fixed, *_prefixes(hosts, table)}
    left = frozenset(_prefixes(hosts, lingering) - held)
    prefixes = tuple(sorted(held | left, key=address_order))
    name = qualify(cluster, service.name)
    return Entry(name, service, hosts, prefixes, left, _down(name, service, down))


def _down(name: str, service: Service, down: DownTable) -> frozenset[BackendKey]:
    """What checks found counts for as long as there are checks."""
    return down.get(name, frozenset()) if is_checked(service) else frozenset()


def _prefixes(hosts: Iterable[str], table: HostTable) -> set[Prefix]:
    return {ip_network(address) for host in hosts for address in table.get(host, ())}


def _collections(entries: Iterable[Entry]) -> dict[str, tuple[str, ...]]:
    members: dict[str, list[str]] = {}
    for entry in entries:
        if entry.service.collection is not None:
            members.setdefault(COLLECTION_PREFIX + entry.service.collection, []).append(entry.service.name)
    return {reference: tuple(names) for reference, names in members.items()}
