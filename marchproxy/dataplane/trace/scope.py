"""What of a network namespace is the appliance's, as the programs in `bpf/trace/` are told it.

Addresses of services and places where it listens say it of what strangers send, too, and of what was never
let in; flows in the kernel's tables, and what the daemon itself opens, are found while they pass.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from typing import Any

from marchproxy.dataplane.naming import prefixes_of
from marchproxy.model.address import IPAddress, Prefix
from marchproxy.model.appliance import ListenerKind
from marchproxy.model.protocol import Transport
from marchproxy.model.snapshot import Snapshot

type Place = tuple[IPAddress | None, int, int]
"""Address (None: each of this host's), port and the protocol's number."""

_SPOKEN = {
    ListenerKind.DNS: (Transport.UDP, Transport.TCP),
    ListenerKind.EXPLICIT: (Transport.TCP,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Told is whatever one of these concerns."""

    services: frozenset[Prefix] = frozenset()
    """One of them has either end."""
    places: frozenset[Place] = frozenset()
    """Either end is there."""
    own: frozenset[IPAddress] = frozenset()
    """The addresses of this host, for places without an address."""
    interfaces: frozenset[str] = frozenset()
    """Where the data plane sits: what is dropped there by it, or has no addresses to judge by."""
    pins: Path | None = None
    """The folder with the maps of the flows; None: there are none."""
    daemon: int = 0
    """The process that, with its children, opens connections for the appliance; 0: none runs."""

    def document(self) -> Mapping[str, Any]:
        """For the child that fills the maps."""
        return {
            "services": [(str(each.network_address), each.prefixlen) for each in self.services],
            "places": [
                (str(address) if address else "", port, protocol) for address, port, protocol in self.places
            ],
            "own": [str(address) for address in self.own],
            "interfaces": sorted(self.interfaces),
        }


def of_appliance(
    snapshot: Snapshot,
    resolved: Mapping[str, Iterable[IPAddress]],
    backends: Iterable[tuple[IPAddress, int]],
    own: Iterable[IPAddress],
    *,
    pins: Path | None,
    daemon: int,
) -> Scope:
    """All that is the appliance's.

    `resolved` is what host names stand for, `backends` are those of connections that are open already.
    """
    services = (service for cluster in snapshot.clusters for service in cluster.services)
    prefixes = chain.from_iterable(prefixes_of(service, resolved) for service in services)
    connected = ((address, port, Transport.TCP.number) for address, port in backends)
    return Scope(
        # The whole of the internet is no sign of anything.
        services=frozenset(prefix for prefix in prefixes if prefix.prefixlen),
        places=frozenset(chain(_listeners(snapshot), connected)),
        own=frozenset(own),
        interfaces=frozenset(interface.name for interface in snapshot.interfaces),
        pins=pins,
        daemon=daemon,
    )


def _listeners(snapshot: Snapshot) -> Iterator[Place]:
    for listener in snapshot.listeners:
        for transport in _SPOKEN[listener.kind]:
            yield _anywhere(listener.bind.address), listener.bind.port, transport.number
    for cluster in snapshot.clusters:
        for mapping in cluster.mappings:
            if mapping.listen is None:
                continue
            address = _anywhere(mapping.listen.address)
            transports = {each.transport for each in mapping.protocols}
            numbers = [each.number for each in transports if each is not None]
            for number, port in product(numbers, mapping.listen.ports):
                yield address, port, number


def _anywhere(address: IPAddress | None) -> IPAddress | None:
    return None if address is None or address.is_unspecified else address
