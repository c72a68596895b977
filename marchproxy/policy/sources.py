"""Which services an address belongs to."""

from collections.abc import Mapping as MappingABC
from collections.abc import Sequence

from marchproxy.model.address import IPAddress, Prefix


class SourceIndex:
    """Prefixes of services, found by address: one dictionary per IP version and prefix length in use.

    An address belongs to every service one of whose prefixes contains it, so there is no longest match. A
    lookup costs one step per length in use, whatever the number of prefixes.
    """

    def __init__(self, sources: MappingABC[str, Sequence[Prefix]]) -> None:
        tables: dict[tuple[int, int], dict[int, list[str]]] = {}
        for service, prefixes in sources.items():
            for prefix in prefixes:
                table = tables.setdefault((prefix.version, prefix.prefixlen), {})
                table.setdefault(_leading_bits(prefix.network_address, prefix.prefixlen), []).append(service)
        self._tables: dict[int, list[tuple[int, dict[int, list[str]]]]] = {4: [], 6: []}
        for (version, length), table in sorted(tables.items()):
            self._tables[version].append((length, table))

    def services(self, address: IPAddress) -> frozenset[str]:
        """The services that `address` belongs to."""
        return self.holders(address, address.max_prefixlen)

    def holders(self, address: IPAddress, longest: int) -> frozenset[str]:
        """The services with a prefix of at most `longest` bits that contains `address`.

        With a prefix's own address and length: the services that contain the whole prefix.
        """
        number, width = int(address), address.max_prefixlen
        found: list[str] = []
        for length, table in self._tables[address.version]:
            if length > longest:
                break
            found += table.get(number >> (width - length), ())
        return frozenset(found)


def _leading_bits(address: IPAddress, count: int) -> int:
    return int(address) >> (address.max_prefixlen - count)
