"""Live flows added up: by service, by either address, or by mapping."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from ipaddress import ip_address
from typing import Self

from marchproxy.dataplane.records import Decision, Flow


class Grouping(StrEnum):
    """What flows are added up by."""

    SERVICE = "service"
    """A flow counts for the service on either side."""
    SOURCE = "source"
    DESTINATION = "destination"
    """What the client asked for."""
    MAPPING = "mapping"


type GroupKey = str | bytes
"""A name, or a packed address: a million of them are not to be written out."""


class Sum:
    """Flows with what they have carried, both ways together."""

    __slots__ = ("bytes", "flows", "packets")

    def __init__(self, flows: int = 0, packets: int = 0, bytes: int = 0) -> None:
        self.flows = flows
        self.packets = packets
        self.bytes = bytes

    def add(self, other: "Sum") -> None:
        """Add the flows of another sum."""
        self.flows += other.flows
        self.packets += other.packets
        self.bytes += other.bytes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sum) and (self.flows, self.packets, self.bytes) == (
            other.flows,
            other.packets,
            other.bytes,
        )

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Sum({self.flows}, {self.packets}, {self.bytes})"


class FlowTotals(dict[GroupKey, Sum]):
    """A sum for each key. One that is missing is made when it is asked for."""

    cost = 0.0
    """Seconds of a processor that it took to walk over the flows."""

    def __missing__(self, key: GroupKey) -> Sum:
        made = self[key] = Sum()
        return made

    @classmethod
    def of(cls, flows: Iterable[Flow], by: Grouping) -> Self:
        """Those of records whose services are known."""
        made = cls()
        for flow in flows:
            made.take(flow, by)
        return made

    @classmethod
    def of_groups[G](cls, groups: Mapping[G, Sum], keys_of: Callable[[G], Iterable[GroupKey]]) -> Self:
        """Those of sums that were made by something else: each counts for every one of its keys."""
        made = cls()
        for group, each in groups.items():
            for key in keys_of(group):
                made[key].add(each)
        return made

    def take(self, flow: Flow, by: Grouping) -> None:
        """Add one flow."""
        for key in keys(flow.decision, by):
            held = self[key]
            held.flows += 1
            held.packets += flow.sent.packets + flow.received.packets
            held.bytes += flow.sent.bytes + flow.received.bytes

    def add(self, other: "FlowTotals") -> None:
        """Add what another part of the data plane has."""
        for key, each in other.items():
            self[key].add(each)


def keys(decision: Decision, by: Grouping) -> Iterator[GroupKey]:
    """What a flow or a refusal counts for. A stranger's service is the empty one, where there is none on
    either side.
    """
    if by is Grouping.SOURCE:
        yield decision.source.packed
    elif by is Grouping.DESTINATION:
        yield decision.destination.packed
    elif by is Grouping.MAPPING:
        yield decision.mapping
    else:
        yield from sides(decision.source_service, decision.destination_service)


def sides(source: str, destination: str) -> tuple[str, ...]:
    """The services of a flow, each once."""
    if not source or not destination or source == destination:
        return (source or destination,)
    return source, destination


def shown(key: GroupKey) -> str:
    """A key as people read it."""
    return key if isinstance(key, str) else str(ip_address(key))
