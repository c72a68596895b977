"""How near tables and source ports are to their ends: counted while the sweep walks over all flows anyway."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.dataplane.records import TableFill

WARN = 0.8
"""Share in use from which on there is a warning. A claim tries 24 ports: with 80 % taken one in two hundred
fails, with 90 % one in twelve."""
_SAMPLE = 1024
"""Ports of a range that are looked at: an estimate within 2 %, and no count for each of a million flows."""
_PROTOCOLS = {layouts.TCP: "tcp", layouts.UDP: "udp", layouts.ICMP: "icmp", layouts.ICMPV6: "icmp"}
_DESTINATION, _REWRITTEN = slice(16, 32), slice(16, 32)
"""In a packed key the address that an answer arrives at; in an entry the one it goes on to."""


@dataclass(frozen=True, slots=True)
class PortUse:
    """The source ports of one of the appliance's addresses towards the busiest address and port behind it."""

    address: str
    towards: str
    """Such as `192.0.2.1:443/tcp`."""
    used: int
    """By established flows, estimated: others give theirs up when ports run short."""
    limit: int

    @property
    def fill(self) -> TableFill:
        """As a table: the label is only the address, so that a metric has few series."""
        return TableFill(f"ports of {self.address}", self.used, self.limit)


class Census:
    """What one walk over the flow tables found."""

    def __init__(self, ports: NatPorts) -> None:
        self.established = 0
        """Entries in the established table."""
        self.opening = 0
        """Entries in the table of flows that are being opened or have ended."""
        self.half_open = 0
        """Those of them that have not ended."""
        self.begun = 0
        """Conversations among them, none of TCP, whose beginning was told."""
        self.started = time.monotonic()
        self.spliced: set[int] = set()
        """Places in `splices` that flows name."""
        self._ports = ports
        self._step = max(1, ports.count // _SAMPLE)
        self._claimed: Counter[bytes] = Counter()

    def see_reply(self, raw_key: bytes, raw: bytes) -> None:
        """Count a flow by its packed reply entry, which holds the source port towards its backend."""
        port = raw_key[34] << 8 | raw_key[35]
        # A reply that goes on to where it arrived is of a flow without NAT, which has its client's own port.
        # Mixed first: hosts prefer ports of one parity for connections, of which a plain stride sees all or
        # none.
        if (port * 40503 >> 4 & 0xFFF) % self._step == 0 and raw_key[_DESTINATION] != raw[_REWRITTEN]:
            self._claimed[raw_key[:34] + raw_key[36:37]] += 1

    def port_use(self) -> list[PortUse]:
        """For each address of the appliance that flows leave with, by address."""
        busiest: dict[bytes, tuple[int, bytes]] = {}
        for claim, count in self._claimed.items():
            own = claim[_DESTINATION]
            busiest[own] = max(busiest.get(own, (0, b"")), (count, claim))
        return [self._port_use(claim, count) for _, (count, claim) in sorted(busiest.items())]

    def _port_use(self, claim: bytes, count: int) -> PortUse:
        backend, port = layouts.read_address(claim[:16]), layouts.read_port(claim[32:34])
        text = f"[{backend}]:{port}" if backend.version == 6 else f"{backend}:{port}"
        own = str(layouts.read_address(claim[_DESTINATION]))
        protocol = _PROTOCOLS.get(claim[34], str(claim[34]))
        used = min(count * self._step, self._ports.count)
        return PortUse(own, f"{text}/{protocol}", used, self._ports.count)


class Pressure:
    """The last census against what there is room for."""

    def __init__(self, flows: int, opening: int) -> None:
        """`flows` and `opening` are the entries that the two tables hold at most."""
        self._flows = flows
        self._opening = opening
        self.fill: tuple[TableFill, ...] = ()
        self.problems: tuple[str, ...] = ()
        """Both are replaced as a whole, so that any thread may read them."""
        self.update(Census(NatPorts()))

    def update(self, census: Census) -> None:
        """Take a new census."""
        use = census.port_use()
        self.fill = (
            TableFill("flows", census.established, self._flows),
            TableFill("opening", census.opening, self._opening),
            *(each.fill for each in use),
        )
        self.problems = tuple(self._warnings(census, use))

    def _warnings(self, census: Census, use: list[PortUse]) -> Iterator[str]:
        if census.established >= self._flows - 1:
            yield (
                f"the flow table is full ({self._flows} entries): established flows go on,"
                " new ones are refused (FLOW_TABLE_FULL)"
            )
        elif census.established >= WARN * self._flows:
            yield f"the flow table is filling up: {census.established} of {self._flows} entries"
        if census.half_open >= WARN * self._opening:
            yield (
                f"{census.half_open} entries of half-open flows in a table of {self._opening}, perhaps a"
                " flood: established flows are in another table"
            )
        for each in use:
            if each.used >= WARN * each.limit:
                yield (
                    f"source ports of {each.address} towards {each.towards} run short:"
                    f" about {each.used} of {each.limit} in use, then new flows are refused (NO_NAT_PORT)"
                )
