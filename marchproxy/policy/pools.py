"""Which backends serve a mapping at its listen address, and the pools that hold them."""

from collections import Counter
from collections.abc import Mapping as MappingABC
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import gcd, lcm
from weakref import WeakValueDictionary

from marchproxy.model.address import IPAddress
from marchproxy.model.entities import Balance, Mapping, Service
from marchproxy.model.ports import format_ports, single_port
from marchproxy.model.protocol import Protocol
from marchproxy.policy.checks import Watched, is_drained
from marchproxy.policy.directory import Entry, Referents
from marchproxy.policy.maglev import build_table, turns_table
from marchproxy.policy.plan import Backend, Plan, Pool

type Members = tuple[tuple[Entry, int], ...]
"""Services and the port that each is asked on, sorted by name."""
type Shares = tuple[tuple[str, int], ...]
"""By qualified service name."""
type _Key = tuple[int, bool, Members, Shares]
_MOST = 1000
"""Weight of the heaviest backend where shares are not otherwise written in small numbers."""


def compared(plan: Plan) -> Sequence[Backend]:
    """The backends that new flows go to by fewest connections, each once."""
    pools = {
        id(rule.pool): rule.pool
        for listener in plan.carried
        for rule in listener.rules
        if rule.balance is Balance.LEAST_CONNECTIONS and rule.pool
    }
    found = (backend for pool in pools.values() for backend in pool.backends)
    return list({(each.service, each.address, each.port): each for each in found}.values())


@dataclass(frozen=True, slots=True)
class PoolCache:
    """Every set of backends once, so that rules share pools and a Maglev table is computed once.

    Weak, and the one thing that successive compilations share: a pool lives as long as a plan uses it.
    Entries count by identity in the key, so what a changed service contributed to is never found again.
    """

    _pools: WeakValueDictionary[_Key, Pool] = field(default_factory=WeakValueDictionary)

    def pool(
        self, members: Members, version: int, balance: Balance = Balance.MAGLEV, shares: Shares = ()
    ) -> Pool | None:
        """The pool of the members' addresses of IP version 4 or 6; None if there are none."""
        members = tuple([member for member in members if member[0].backends(version)])
        if not members:
            return None
        key = (version, balance is Balance.ROUND_ROBIN, members, shares)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = _build_pool(members, version, balance, dict(shares))
        return pool


@dataclass(frozen=True, slots=True)
class Choice:
    """The destinations of a mapping, seen as backends."""

    members: Members = ()
    shares: Shares = ()
    """What part of new flows each of them gets; empty: by the weights of services."""
    problems: tuple[str, ...] = ()
    """What cannot be a backend and why, as ends of a sentence about the mapping."""

    @property
    def watched(self) -> tuple[tuple[Watched, ...], ...]:
        """What health checks are to look after, by service and port."""
        return tuple([found for entry, port in self.members if (found := entry.watched(port))])

    @property
    def drained(self) -> bool:
        """Whether the operator has drained every backend there is."""
        every = [
            (entry, address) for entry, _ in self.members for v in (4, 6) for address in entry.backends(v)
        ]
        return bool(every) and all(is_drained(entry.service, address) for entry, address in every)

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
    named = {entry.service.name: entry.name for entry in destinations.entries}
    split = (each.split("=") for each in mapping.weights)
    shares = tuple([(named[name], int(share)) for name, share in split if name in named])
    return Choice(tuple(members), shares, tuple(problems))


def may_keep_port(mapping: Mapping, destinations: Referents) -> bool:
    """Whether the port that a client asks for may matter for where `choose_backends` sends it."""
    if single_port(mapping.ports) is not None:
        return False
    return any(entry.service.port is None for entry in destinations.entries)


def _backend_port(mapping: Mapping, service: Service, listen_port: int) -> int | None:
    """The mapping's only port, else the service's, else the one listened on; None: not a port it allows."""
    asked = single_port(mapping.ports)
    if asked is not None:
        return asked
    port = service.port or listen_port
    return port if not mapping.ports or any(port in ports for ports in mapping.ports) else None


def _build_pool(members: Members, version: int, balance: Balance, shares: MappingABC[str, int]) -> Pool:
    every = [(entry, address, port) for entry, port in members for address in entry.backends(version)]
    weights = _weights([entry for entry, _, _ in every], shares)
    sorted_members = sorted(
        (
            (
                _backend(entry, address, port, weights[entry.name] or 1),
                entry,
                entry.takes(address, port) and weights[entry.name] > 0,
            )
            for entry, address, port in every
        ),
        key=lambda member: (int(member[0].address), member[0].port, member[0].service),
    )
    backends = tuple([backend for backend, _, _ in sorted_members])
    taking = [index for index, (_, _, takes) in enumerate(sorted_members) if takes]
    # A service keeps its share when some of its backends are down: the others take theirs.
    weights = _weights([sorted_members[index][1] for index in taking], shares)
    build = turns_table if balance is Balance.ROUND_ROBIN else build_table
    table = build(
        [_weighted_key(backends[index], weights[sorted_members[index][1].name]) for index in taking]
    )
    idle = tuple([backend for backend, _, takes in sorted_members if not takes])
    return Pool(backends, tuple([taking[place] for place in table]), idle)


def _weights(entries: Sequence[Entry], shares: MappingABC[str, int]) -> dict[str, int]:
    """What each backend of a service weighs, given the service of every backend."""
    if not shares:
        return {entry.name: entry.service.weight for entry in entries}
    counts = Counter(entry.name for entry in entries)
    common = lcm(*counts.values())
    weights = {name: shares.get(name, 0) * common // count for name, count in counts.items()}
    divisor = gcd(*weights.values()) or 1
    weights = {name: weight // divisor for name, weight in weights.items()}
    heaviest = max(weights.values(), default=0)
    if heaviest > _MOST:
        scaled = {name: round(_MOST * weight / heaviest) for name, weight in weights.items()}
        weights = {name: max(scaled[name], 1) if weight else 0 for name, weight in weights.items()}
    return weights


def _backend(entry: Entry, address: IPAddress, port: int, weight: int) -> Backend:
    own = entry.service
    return Backend(
        *(address, port, entry.name, weight),
        tls=(entry.hosts[0] if entry.hosts else str(address)) if own.tls else "",
        tls_ca=own.tls_ca,
        tls_cert=entry.certificate,
        http2=own.protocol is Protocol.GRPC,
    )


def _weighted_key(backend: Backend, weight: int) -> tuple[bytes, int]:
    """A key for the table. Two services may name the same address and port, hence the name in it."""
    return backend.address.packed + backend.port.to_bytes(2) + backend.service.encode(), weight
