"""What flows have carried, added up by mapping and by service: those that have ended, and those that live."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self


class Side(StrEnum):
    """Where a service is in a flow."""

    SOURCE = "source"
    DESTINATION = "destination"


@dataclass(slots=True)
class Load:
    """Flows, and the packets and bytes of both directions. Below 0: of something that is to be left out."""

    flows: int = 0
    sent_packets: int = 0
    """By clients."""
    sent_bytes: int = 0
    received_packets: int = 0
    """By clients."""
    received_bytes: int = 0

    def __neg__(self) -> Self:
        return type(self)(
            -self.flows, -self.sent_packets, -self.sent_bytes, -self.received_packets, -self.received_bytes
        )

    def add(self, other: "Load") -> None:
        """Add the flows of another one."""
        self.flows += other.flows
        self.sent_packets += other.sent_packets
        self.sent_bytes += other.sent_bytes
        self.received_packets += other.received_packets
        self.received_bytes += other.received_bytes

    def reach(self, other: "Load") -> None:
        """Become as large as another one, where that is larger."""
        self.flows = max(self.flows, other.flows)
        self.sent_packets = max(self.sent_packets, other.sent_packets)
        self.sent_bytes = max(self.sent_bytes, other.sent_bytes)
        self.received_packets = max(self.received_packets, other.received_packets)
        self.received_bytes = max(self.received_bytes, other.received_bytes)


@dataclass(slots=True)
class Carried:
    """Sums under names that an operator has given, so there is an end to them."""

    mappings: dict[str, Load] = field(default_factory=dict)
    """By qualified name; empty: audit let through what no mapping allows."""
    services: dict[tuple[str, Side], Load] = field(default_factory=dict)
    """By qualified name and side. A flow counts for the service on either side, strangers have none."""
    cost: float = 0.0
    """Seconds of a processor that it took to find out."""

    def take(self, mapping: str, source: str, destination: str, load: Load) -> None:
        """Add flows between two services, either of which may be empty."""
        _of(self.mappings, mapping).add(load)
        if source:
            _of(self.services, (source, Side.SOURCE)).add(load)
        if destination:
            _of(self.services, (destination, Side.DESTINATION)).add(load)

    def add(self, other: "Carried") -> None:
        """Add what another part has."""
        for name, load in other.mappings.items():
            _of(self.mappings, name).add(load)
        for key, load in other.services.items():
            _of(self.services, key).add(load)
        self.cost += other.cost

    def leave_out(self, other: "Carried") -> None:
        """Take away what is not to count."""
        for name, load in other.mappings.items():
            _of(self.mappings, name).add(-load)
        for key, load in other.services.items():
            _of(self.services, key).add(-load)

    def reach(self, other: "Carried") -> None:
        """Become as large as `other` wherever that is larger. What it does not know stays."""
        for name, load in other.mappings.items():
            _of(self.mappings, name).reach(load)
        for key, load in other.services.items():
            _of(self.services, key).reach(load)

    def copy(self) -> "Carried":
        """One that does not change when this one does."""
        made = Carried()
        made.add(self)
        return made


def _of[K](sums: dict[K, Load], key: K) -> Load:
    found = sums.get(key)
    if found is None:
        found = sums[key] = Load()
    return found
