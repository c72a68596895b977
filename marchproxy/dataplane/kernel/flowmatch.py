"""Whether a `FlowFilter` holds for a flow as the kernel has it: its own answer, without decoding."""

from collections.abc import Callable, Mapping

from marchproxy.dataplane.flowquery import FlowFilter, is_named
from marchproxy.dataplane.kernel import layouts
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

    def source(self, client: bytes, mapping: int, id: int, flags: int) -> str:
        """Whose flow it is."""
        if flags & layouts.FLAG_SPLICED and (tunnel := self.tunnels.get(id, _NOBODY)).service:
            return tunnel.service
        key = client, mapping
        found = self._sources.get(key)
        if found is None:
            found = self._services.source(layouts.read_address(client), self._names.name(mapping))
            _remember(self._sources, key, found)
        return found

    def destination(self, asked: bytes, mapping: int, backend: bytes, port: bytes) -> str:
        """Whom it is to."""
        key = asked, mapping, backend, port
        found = self._destinations.get(key)
        if found is None:
            services, address = self._services, layouts.read_address(backend)
            found = services.destination(address, layouts.read_port(port))
            found = found or services.asked(layouts.read_address(asked), self._names.name(mapping))
            _remember(self._destinations, key, found)
        return found


class FlowMatch:
    """One filter, ready for a walk."""

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
        self._texts: dict[bytes, bool] = {}

    def holds(
        self,
        client: bytes,
        asked: bytes,
        client_port: bytes,
        asked_port: bytes,
        protocol: int,
        mapping: int,
        backend: bytes,
        backend_port: bytes,
        id: int,
        flags: int,
    ) -> bool:
        """Whether all conditions hold. `client` asked for `asked`, and is sent to `backend`."""
        wanted = self._wanted
        return (
            protocol in self._protocols
            and (self._port is None or self._port in (client_port, asked_port))
            and (self._source is None or self._source(client))
            and (self._destination is None or self._destination(asked))
            and (wanted.reason is None or wanted.reason is _reason(flags))
            and (not wanted.mapping or self._has_mapping(mapping))
            and (
                not wanted.service
                or is_named(self._services.source(client, mapping, id, flags), wanted.service)
                or is_named(self._services.destination(asked, mapping, backend, backend_port), wanted.service)
            )
            and (
                not wanted.text
                or self._has_address(client)
                or self._has_address(asked)
                or self._has_address(backend)
                or wanted.has_text(self._names.name(mapping))
                or wanted.has_text(_reason(flags).name)
                or wanted.has_text(self._services.source(client, mapping, id, flags))
                or wanted.has_text(self._services.destination(asked, mapping, backend, backend_port))
                or self._has_name(id, flags)
            )
        )

    def _has_mapping(self, number: int) -> bool:
        found = self._mappings.get(number)
        if found is None:
            found = self._mappings[number] = is_named(self._names.name(number), self._wanted.mapping)
        return found

    def _has_address(self, raw: bytes) -> bool:
        found = self._texts.get(raw)
        if found is None:
            found = self._wanted.has_text(layouts.read_address(raw))
            _remember(self._texts, raw, found)
        return found

    def _has_name(self, id: int, flags: int) -> bool:
        if not flags & layouts.FLAG_SPLICED:
            return False
        return self._wanted.has_text(self._services.tunnels.get(id, _NOBODY).name)


def _reason(flags: int) -> Reason:
    return Reason.HANDED_OFF if flags & layouts.FLAG_SPLICED else Reason.FORWARDED


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
