"""Which backends serve a mapping at its listen address, and the pools that hold them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from marchproxy.model.entities import Mapping, Service
from marchproxy.model.ports import format_ports, single_port
from marchproxy.policy.directory import Entry, Referents
from marchproxy.policy.maglev import build_table
from marchproxy.policy.plan import Backend, Pool

type Members = tuple[tuple[Entry, int], ...]
"""Services and the port that each is asked on, sorted by name."""


@dataclass(frozen=True, slots=True)
class PoolCache:
    """Every set of backends once, so that rules share pools and a Maglev table is computed once.

    Weak, and the one thing that successive compilations share: a pool lives as long as a plan uses it.
    Entries count by identity in the key, so what a changed service contributed to is never found again.
    """

    _pools: WeakValueDictionary[tuple[int, Members], Pool] = field(default_factory=WeakValueDictionary)

    def pool(self, members: Members, version: int) -> Pool | None:
        """The pool of the members' addresses of IP version 4 or 6; None if there are none."""
        members = tuple([member for member in members if member[0].backends(version)])
        if not members:
            return None
        pool = self._pools.get((version, members))
        if pool is None:
            pool = self._pools[version, members] = _build_pool(members, version)
        return pool


@dataclass(frozen=True, slots=True)
class Choice:
    """The destinations of a mapping, seen as backends."""

    members: Members = ()
    problems: tuple[str, ...] = ()
    """What cannot be a backend and why, as ends of a sentence about the mapping."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """Host names that may bring further backends."""
        return tuple(host for entry, _ in self.members for host in entry.hosts)


def choose_backends(mapping: Mapping, listen_port: int, destinations: Referents) -> Choice:
    """Sort the destinations of a listening mapping into what traffic can be sent to and what it cannot."""
    members: list[tuple[Entry, int]] = []
    problems = []
    if destinations.everyone or destinations.external:
        problems.append("cannot send traffic to all or external: a listener needs services as destinations")
    for entry in destinations.entries:
        port = _backend_port(mapping, entry.service, listen_port)
        problems += [f"cannot send traffic to {wide} of {entry.name}, a range" for wide in entry.ranges()]
        if port is None:
            problems.append(f"cannot use {entry.name}: its port is not among {format_ports(mapping.ports)}")
        else:
            members.append((entry, port))
    return Choice(tuple(members), tuple(problems))


def _backend_port(mapping: Mapping, service: Service, listen_port: int) -> int | None:
    """The mapping's only port, else the service's, else the one listened on; None: not a port it allows."""
    asked = single_port(mapping.ports)
    if asked is not None:
        return asked
    port = service.port or listen_port
    return port if not mapping.ports or any(port in ports for ports in mapping.ports) else None


def _build_pool(members: Members, version: int) -> Pool:
    backends = sorted(
        (
            Backend(address, port, entry.name, entry.service.weight)
            for entry, port in members
            for address in entry.backends(version)
        ),
        key=lambda backend: (int(backend.address), backend.port, backend.service),
    )
    return Pool(tuple(backends), build_table(_weighted_keys(backends)))


def _weighted_keys(backends: Sequence[Backend]) -> list[tuple[bytes, int]]:
    """Keys for the table. Two services may name the same address and port, hence the name in it."""
    return [
        (backend.address.packed + backend.port.to_bytes(2) + backend.service.encode(), backend.weight)
        for backend in backends
    ]
