"""Events as workers tell of them: plain values, of which there may be tens of thousands a second.

Pickle takes ten times as long for the records themselves: each class, enumeration and address costs it a call
of Python, on both sides.
"""

from dataclasses import fields
from ipaddress import IPv4Address, IPv6Address
from operator import attrgetter
from typing import Any

from marchproxy.dataplane.records import Decision, Event, EventKind, Exchanged, Flow, FlowState, Traffic
from marchproxy.model.address import IPAddress
from marchproxy.model.reason import Reason, Tier, Verdict

type Packed = tuple[Any, ...]
"""Numbers, text and tuples of these."""

_DECIDED = attrgetter(*(each.name for each in fields(Decision)))
_EXCHANGED = attrgetter(*(each.name for each in fields(Exchanged)))
_SOURCE, _DESTINATION, _TIER, _VERDICT, _REASON = (
    [each.name for each in fields(Decision)].index(name)
    for name in ("source", "destination", "tier", "verdict", "reason")
)


def pack(event: Event) -> Packed:
    """What `unpack` makes an event of again."""
    flow, exchanged = event.flow, event.exchanged
    return (
        event.kind.value,
        _decided(event.decision),
        None if flow is None else _flow(flow, event.decision),
        None if exchanged is None else _EXCHANGED(exchanged),
    )


def unpack(packed: Packed) -> Event:
    """The event."""
    kind, decided, flow, exchanged = packed
    decision = _decision(decided)
    return Event(
        EventKind(kind),
        decision,
        None if flow is None else _flow_of(flow, decision),
        None if exchanged is None else Exchanged(*exchanged),
    )


def _decided(decision: Decision) -> Packed:
    values = list(_DECIDED(decision))
    values[_SOURCE] = _address(decision.source)
    values[_DESTINATION] = _address(decision.destination)
    values[_TIER] = decision.tier.value
    values[_VERDICT] = decision.verdict.value
    values[_REASON] = int(decision.reason)
    return tuple(values)


def _decision(packed: Packed) -> Decision:
    values = list(packed)
    values[_SOURCE] = _address_of(values[_SOURCE])
    values[_DESTINATION] = _address_of(values[_DESTINATION])
    values[_TIER] = Tier(values[_TIER])
    values[_VERDICT] = Verdict(values[_VERDICT])
    values[_REASON] = Reason(values[_REASON])
    return Decision(*values)


def _flow(flow: Flow, told: Decision) -> Packed:
    """`told` is the decision of its event, which is mostly the flow's own."""
    decided = None if flow.decision is told else _decided(flow.decision)
    sent, received = flow.sent, flow.received
    carried = sent.packets, sent.bytes, received.packets, received.bytes
    backend = _address(flow.backend)
    return decided, backend, flow.backend_port, flow.state.value, flow.started, flow.last_seen, *carried


def _flow_of(packed: Packed, told: Decision) -> Flow:
    decided, backend, port, state, started, seen, *carried = packed
    decision = told if decided is None else _decision(decided)
    sent, received = Traffic(*carried[:2]), Traffic(*carried[2:])
    return Flow(decision, _address_of(backend), port, FlowState(state), started, seen, sent, received)


def _address(address: IPAddress) -> bytes:
    return address.packed


def _address_of(packed: bytes) -> IPAddress:
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)
