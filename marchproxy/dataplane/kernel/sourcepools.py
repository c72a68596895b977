"""What the programs are told of our own addresses: those that errors come from, and those that masquerade."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.addresses import OwnAddresses, interface_addresses
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.model.address import IPAddress
from marchproxy.model.entities import Interface

_NOBODY = OwnAddresses()
_FAMILIES = (4, 6)


@dataclass(frozen=True, slots=True)
class SourceTables:
    """Entries of the two maps, by interface number."""

    own: Mapping[int, bytes] = field(default_factory=dict)
    pools: Mapping[int, bytes] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


class SourcePools:
    """Keeps `own_addresses` and `nat_pools` equal to interfaces and addresses. For one thread."""

    def __init__(self, own: Map, pools: Map) -> None:
        self._maps = (own, pools)
        self._asked: Mapping[int, Interface] = {}
        self.problems: tuple[str, ...] = ()
        """Replaced as a whole, so that any thread may read it."""

    def follow(self, interfaces: Mapping[int, Interface], *, moved: bool) -> None:
        """Tell of these, by number; asks the kernel only if they are others, or addresses may have `moved`.

        Raises `KernelError`.
        """
        if not moved and interfaces == self._asked:
            return
        wanted = source_tables(interfaces, interface_addresses())
        for table, entries in zip(self._maps, (wanted.own, wanted.pools), strict=True):
            packed = {layouts.U32.pack(ifindex): entry for ifindex, entry in entries.items()}
            table.update_many([(key, entry) for key, entry in packed.items() if table.get(key) != entry])
            # Last: between the two an interface masquerades with its old addresses, never with none.
            table.delete_many([key for key in table.keys() if key not in packed])  # noqa: SIM118
        self._asked, self.problems = dict(interfaces), wanted.problems


def source_tables(interfaces: Mapping[int, Interface], addresses: Mapping[int, OwnAddresses]) -> SourceTables:
    """What the programs are to be told, for interfaces and all addresses of this host by number."""
    problems: list[str] = []
    pools = {}
    for ifindex, interface in interfaces.items():
        if interface.masquerade:
            chosen = {
                version: _masquerade(interface, addresses.get(ifindex, _NOBODY), version)
                for version in _FAMILIES
            }
            problems += _complaints(interface, chosen)
            pools[ifindex] = _pack_pool(chosen)
    own = {
        ifindex: b"".join(_pack(_first(ifindex, addresses, version)) for version in _FAMILIES)
        for ifindex in interfaces
    }
    return SourceTables(own, pools, tuple(problems))


def _masquerade(interface: Interface, own: OwnAddresses, version: int) -> list[IPAddress]:
    """Those that the operator names, or the interface's own primary one."""
    named = [ip_address(text) for text in interface.nat_addresses]
    return [each for each in named if each.version == version] or list(own.of(version)[:1])


def _complaints(interface: Interface, chosen: Mapping[int, list[IPAddress]]) -> Iterator[str]:
    if not any(chosen.values()):
        yield (
            f"{interface.name}: it masquerades, and has no address:"
            " what would leave by it is refused (NO_NAT_PORT)"
        )
    for version, found in chosen.items():
        if len(found) > layouts.NAT_ADDRESSES:
            yield (
                f"{interface.name}: of {len(found)} IPv{version} addresses to masquerade with,"
                f" the first {layouts.NAT_ADDRESSES} are used"
            )


def _pack_pool(chosen: Mapping[int, list[IPAddress]]) -> bytes:
    size = layouts.NAT_ADDRESSES
    kept = [chosen[version][:size] for version in _FAMILIES]
    packed = [b"".join(map(layouts.pack_address, each)).ljust(16 * size, b"\0") for each in kept]
    return layouts.NAT_POOL.struct.pack(*packed, *map(len, kept))


def _first(ifindex: int, addresses: Mapping[int, OwnAddresses], version: int) -> IPAddress | None:
    """The interface's own first address, or where it has none any interface's (RFC 1812 section 4.3.2.4)."""
    others: Iterable[int] = sorted(addresses, key=lambda other: (other != ifindex, other))
    return next((found[0] for other in others if (found := addresses[other].of(version))), None)


def _pack(address: IPAddress | None) -> bytes:
    return layouts.pack_address(address) if address else bytes(16)
