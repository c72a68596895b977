"""What somebody asks about live flows: which of them, in which order, and which page of the answer."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from marchproxy.dataplane.records import Decision, Flow
from marchproxy.model.address import IPAddress, Prefix
from marchproxy.model.reason import Reason


@dataclass(frozen=True, slots=True)
class FlowFilter:
    """Conditions that must all hold. One that is left empty holds for everything."""

    source: Prefix | None = None
    destination: Prefix | None = None
    port: int = 0
    """On either side."""
    protocol: str = ""
    mapping: str = ""
    """`cluster/name` or `name`, as `service`."""
    service: str = ""
    """On either side."""
    reason: Reason | None = None
    text: str = ""
    """Part of an address, a service, the mapping, the name or the reason, in small letters."""

    def __bool__(self) -> bool:
        return self != EVERYTHING

    def matches(self, decision: Decision, backend: IPAddress | None = None) -> bool:
        """Whether all conditions hold for a record whose services are known."""
        return (
            (not self.protocol or decision.protocol == self.protocol)
            and (not self.port or self.port in (decision.source_port, decision.destination_port))
            and (self.reason is None or decision.reason is self.reason)
            and (not self.mapping or is_named(decision.mapping, self.mapping))
            and (self.source is None or decision.source in self.source)
            and (self.destination is None or decision.destination in self.destination)
            and (not self.service or self._names_service(decision))
            and (not self.text or any(map(self.has_text, _texts(decision, backend))))
        )

    def has_text(self, text: object) -> bool:
        """Whether `text` of this is part of that."""
        return self.text in str(text).lower()

    def _names_service(self, decision: Decision) -> bool:
        services = decision.source_service, decision.destination_service
        return any(is_named(service, self.service) for service in services)


EVERYTHING = FlowFilter()


def _texts(decision: Decision, backend: IPAddress | None) -> Iterable[object]:
    yield from (decision.mapping, decision.source_service, decision.destination_service, decision.name)
    yield from (decision.source, decision.destination, decision.reason.name)
    if backend is not None:
        yield backend


def is_named(qualified: str, text: str) -> bool:
    """Whether `cluster/name` is meant by `text`: by itself, or by `name`."""
    return bool(qualified) and text in (qualified, qualified.partition("/")[2])


class SortKey(StrEnum):
    """What flows can be sorted by."""

    STARTED = "started"
    LAST_SEEN = "last_seen"
    BYTES = "bytes"
    """Both ways together, as `packets`."""
    PACKETS = "packets"
    SOURCE = "source"
    """Address, then port; IPv4 before IPv6."""
    DESTINATION = "destination"
    MAPPING = "mapping"


@dataclass(frozen=True, slots=True)
class FlowOrder:
    """An order of flows."""

    key: SortKey
    descending: bool = False


@dataclass(frozen=True, slots=True)
class FlowQuestion:
    """Of the flows that `wanted` holds for `count` after the first `first`, in order (None: as found)."""

    wanted: FlowFilter = EVERYTHING
    order: FlowOrder | None = None
    first: int = 0
    count: int = 1_000


@dataclass(frozen=True, slots=True)
class FlowPage:
    """The answer, its flows with their services."""

    total: int
    """Flows that matched, on this page or not."""
    flows: Sequence[Flow]


def page_of(flows: Iterable[Flow], question: FlowQuestion) -> FlowPage:
    """The answer where all flows are at hand, services included."""
    wanted = question.wanted
    found = [flow for flow in flows if not wanted or wanted.matches(flow.decision, flow.backend)]
    _sort(found, question.order)
    return FlowPage(len(found), found[question.first : question.first + question.count])


def before(question: FlowQuestion, others: int) -> FlowQuestion:
    """What to ask one part for, to `join` its answer with that many flows of another part.

    A flow that has `n` before it in its own part has between `n` and `n + others` before it in the whole.
    """
    if question.order is None:
        return question
    skipped = max(0, question.first - others)
    return replace(question, first=skipped, count=question.first + question.count - skipped)


def join(question: FlowQuestion, part: FlowPage, others: Sequence[Flow]) -> FlowPage:
    """One answer out of that of a part, which was asked for `before(question, len(others))`, and `others`.

    These are all flows beside it that match. Without an order they come behind the part.
    """
    total = part.total + len(others)
    if question.order is None:
        begin = max(0, question.first - part.total)
        return FlowPage(total, [*part.flows, *others[begin:]][: question.count])
    found = [*part.flows, *others]
    _sort(found, question.order)
    begin = min(question.first, len(others))
    return FlowPage(total, found[begin : begin + question.count])


def _sort(flows: list[Flow], order: FlowOrder | None) -> None:
    if order is not None:
        flows.sort(key=_KEYS[order.key], reverse=order.descending)


def _place(address: IPAddress, port: int) -> tuple[int, int, int]:
    return address.version, int(address), port


_KEYS: dict[SortKey, Callable[[Flow], Any]] = {
    SortKey.STARTED: lambda flow: flow.started,
    SortKey.LAST_SEEN: lambda flow: flow.last_seen,
    SortKey.BYTES: lambda flow: flow.sent.bytes + flow.received.bytes,
    SortKey.PACKETS: lambda flow: flow.sent.packets + flow.received.packets,
    SortKey.SOURCE: lambda flow: _place(flow.decision.source, flow.decision.source_port),
    SortKey.DESTINATION: lambda flow: _place(flow.decision.destination, flow.decision.destination_port),
    SortKey.MAPPING: lambda flow: flow.decision.mapping,
}
