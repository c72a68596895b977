"""Whether a `FlowFilter` holds for a flow as the kernel has it: its own answer, without decoding."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from marchproxy.dataplane.flowquery import FlowFilter, is_named
from marchproxy.dataplane.kernel import halves, layouts
from marchproxy.dataplane.kernel.halves import Half
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.records import protocol_name
from marchproxy.dataplane.kernel.tunnels import Tunnel
from marchproxy.dataplane.naming import ServiceNames
from marchproxy.model.address import Prefix
from marchproxy.model.reason import Reason

_MOST = 200_000
"""Answers that are remembered; beyond them memory would be worth more than time."""
_NOBODY = Tunnel()


class PackedServices:
    """Services by packed addresses and numbers of mappings, each found out once. See `ServiceNames`."""

    def __init__(self, names: MappingNames, services: ServiceNames, tunnels: Mapping[int, Tunnel]) -> None:
        """`tunnels` are those that user space handed off, by the ids of their flows."""
        self.tunnels = tunnels
        self._names = names
        self._services = services
        self._sources: dict[tuple[bytes, int], str] = {}
        self._destinations: dict[tuple[bytes, int, bytes, bytes], str] = {}

    def source(self, raw_key: bytes, half: Half) -> str:
        """Whose flow it is."""
        return self.tunnel(half).service or self.claimed(halves.client(raw_key, half), half[halves.MAPPING])

    def tunnel(self, half: Half) -> Tunnel:
        """What is known of a flow that user space handed off; nothing of any other."""
        if not half[halves.FLAGS] & layouts.FLAG_SPLICED:
            return _NOBODY
        return self.tunnels.get(half[halves.ID], _NOBODY)

    def claimed(self, client: bytes, mapping: int) -> str:
        """The service of a client by its address."""
        key = client, mapping
        found = self._sources.get(key)
        if found is None:
            found = self._services.source(layouts.read_address(client), self._names.name(mapping))
            _remember(self._sources, key, found)
        return found

    def destination(self, raw_key: bytes, half: Half) -> str:
        """Whom it is to."""
        return self.reached(halves.asked(raw_key, half), half[halves.MAPPING], *halves.backend(raw_key, half))

    def reached(self, asked: bytes, mapping: int, backend: bytes, port: bytes) -> str:
        """The service that a flow is to."""
        key = asked, mapping, backend, port
        found = self._destinations.get(key)
        if found is None:
            ends = layouts.read_address(asked), layouts.read_address(backend)
            found = self._services.reached(
                ends[0], self._names.name(mapping), ends[1], layouts.read_port(port)
            )
            _remember(self._destinations, key, found)
        return found


class FlowMatch:
    """One filter, ready for a walk. Both ends of a flow are judged once for all that have the same."""

    def __init__(self, wanted: FlowFilter, names: MappingNames, services: PackedServices) -> None:
        self._wanted = wanted
        self._names = names
        self._services = services
        self._protocols = frozenset(
            number for number in range(256) if wanted.protocol in ("", protocol_name(number))
        )
        self._port = layouts.pack_port(wanted.port) if wanted.port else None
        self._source, self._destination = _within(wanted.source), _within(wanted.destination)
        self._mappings: dict[int, bool] = {}
        self._clients: dict[tuple[bytes, int], _Found] = {}
        self._goals: dict[tuple[bytes, int, bytes, bytes], _Found] = {}

    def holds(self, raw_key: bytes, half: Half) -> bool:
        """Whether all conditions hold for the flow of a client's half."""
        wanted = self._wanted
        return (
            raw_key[halves.KEY_PROTOCOL] in self._protocols
            and (
                self._port is None
                or self._port in (raw_key[halves.KEY_SOURCE_PORT], raw_key[halves.KEY_DESTINATION_PORT])
            )
            and (self._source is None or self._source(raw_key[halves.KEY_SOURCE]))
            and (self._destination is None or self._destination(raw_key[halves.KEY_DESTINATION]))
            and (wanted.reason is None or wanted.reason is _reason(half))
            and (not wanted.mapping or self._has_mapping(half[halves.MAPPING]))
            and (not (wanted.service or wanted.text) or self._has_names(raw_key, half))
        )

    def _has_mapping(self, number: int) -> bool:
        found = self._mappings.get(number)
        if found is None:
            found = self._mappings[number] = is_named(self._names.name(number), self._wanted.mapping)
        return found

    def _has_names(self, raw_key: bytes, half: Half) -> bool:
        wanted, mapping = self._wanted, half[halves.MAPPING]
        client = self._client(raw_key[halves.KEY_SOURCE], mapping)
        goal = self._goal(
            *(raw_key[halves.KEY_DESTINATION], mapping),
            *(half[halves.DESTINATION], half[halves.DESTINATION_PORT]),
        )
        named, told = client.named or goal.named, client.told or goal.told
        if half[halves.FLAGS] & layouts.FLAG_SPLICED:
            tunnel = self._services.tunnel(half)
            # Whose credential it was goes before whose address it is.
            own = self._find(tunnel.service) if tunnel.service else client
            named = own.named or goal.named
            told = own.told or client.address or goal.told or wanted.has_text(tunnel.name)
        return named and (not wanted.text or told or wanted.has_text(_reason(half).name))

    def _client(self, client: bytes, mapping: int) -> "_Found":
        key = client, mapping
        found = self._clients.get(key)
        if found is None:
            found = self._find(self._services.claimed(client, mapping), client)
            _remember(self._clients, key, found)
        return found

    def _goal(self, asked: bytes, mapping: int, backend: bytes, port: bytes) -> "_Found":
        key = asked, mapping, backend, port
        found = self._goals.get(key)
        if found is None:
            service = self._services.reached(asked, mapping, backend, port)
            found = self._find(service, asked, backend, mapping=self._names.name(mapping))
            _remember(self._goals, key, found)
        return found

    def _find(self, service: str, *addresses: bytes, mapping: str = "") -> "_Found":
        wanted = self._wanted
        named = not wanted.service or is_named(service, wanted.service)
        address = any(wanted.has_text(layouts.read_address(each)) for each in addresses)
        return _Found(named, address or wanted.has_text(service) or wanted.has_text(mapping), address)


class _Found(NamedTuple):
    """What was found at one end of a flow."""

    named: bool
    """The service that is asked for."""
    told: bool
    """The text that is asked for."""
    address: bool
    """It is part of an address."""


def _reason(half: Half) -> Reason:
    return Reason.HANDED_OFF if half[halves.FLAGS] & layouts.FLAG_SPLICED else Reason.FORWARDED


def _within(prefix: Prefix | None) -> Callable[[bytes], bool] | None:
    if prefix is None:
        return None
    shift = prefix.max_prefixlen - prefix.prefixlen
    start = int.from_bytes(layouts.pack_address(prefix.network_address)) >> shift
    if prefix.version == 4:
        return lambda raw: int.from_bytes(raw) >> shift == start
    return lambda raw: int.from_bytes(raw) >> shift == start and not layouts.is_v4(raw)


def _remember[K, V](known: dict[K, V], key: K, value: V) -> None:
    if len(known) >= _MOST:
        known.clear()
    known[key] = value
