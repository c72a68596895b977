"""Kernel structs as the records of the data plane."""

import socket

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.clock import KernelClock
from marchproxy.dataplane.kernel.layouts import FlowEntry, FlowKey
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.tunnels import Tunnel, TunnelTable
from marchproxy.dataplane.records import (
    Decision,
    Event,
    EventKind,
    Flow,
    FlowState,
    Traffic,
    make_decision,
    make_event,
    make_flow,
    make_traffic,
)
from marchproxy.model.reason import Reason, Tier, Verdict

_PROTOCOLS = {layouts.TCP: "tcp", layouts.UDP: "udp", 1: "icmp", 58: "icmp"}
_EVENTS = {
    layouts.EVENT_START: (EventKind.FLOW_START, Verdict.ALLOW, FlowState.ESTABLISHED),
    layouts.EVENT_END: (EventKind.FLOW_END, Verdict.ALLOW, FlowState.CLOSED),
    layouts.EVENT_DENIED: (EventKind.DENIED, Verdict.DENY, None),
    layouts.EVENT_AUDITED: (EventKind.AUDITED, Verdict.AUDIT, None),
}
"""What an event is, what was decided, and how its flow is; None: there is none."""
_TIERS = {each.value: each for each in Tier}
_REASONS = {each.value: each for each in Reason}
_STATES = {
    layouts.STATE_OPENING: FlowState.OPENING,
    layouts.STATE_ANSWERED: FlowState.OPENING,
    layouts.STATE_ESTABLISHED: FlowState.ESTABLISHED,
    layouts.STATE_CLOSED: FlowState.CLOSED,
}


_NOBODY = Tunnel()


def protocol_name(number: int) -> str:
    """`tcp`, `udp`, `icmp`, or the IANA number as text."""
    return _PROTOCOLS.get(number, str(number))


def flow_state(entry: FlowEntry, protocol: int) -> FlowState:
    """Where a conversation is, as either of its directions tells it."""
    if protocol == layouts.UDP and entry.state == layouts.STATE_ANSWERED:
        return FlowState.ESTABLISHED
    if entry.state == layouts.STATE_ESTABLISHED and entry.flags & layouts.FLAGS_CLOSING:
        return FlowState.CLOSING
    return _STATES.get(entry.state, FlowState.OPENING)


class RecordReader:
    """Decodes with one clock reading, so make one for each batch.

    `names` gives mappings their names, `tunnels` tells who opened the flows that user space handed off.
    """

    def __init__(self, names: MappingNames, tunnels: TunnelTable) -> None:
        self._names = names
        self._tunnels = tunnels
        self._clock = KernelClock()
        self._interfaces: dict[int, str] = {0: ""}

    def flow(
        self, key: FlowKey, entry: FlowEntry, reply: FlowEntry, reason: Reason = Reason.FORWARDED
    ) -> Flow:
        """A live flow, or with another `reason` one that ends now. `entry` is client to backend."""
        lives = reason is Reason.FORWARDED
        spliced = bool(entry.flags & layouts.FLAG_SPLICED)
        tunnel = self._tunnel(entry.id, spliced)
        decision = Decision(
            time=self._clock.wall(entry.started if lives else self._clock.monotonic),
            id=entry.id,
            source=layouts.read_address(key.source),
            source_port=layouts.read_port(key.source_port),
            destination=layouts.read_address(key.destination),
            destination_port=layouts.read_port(key.destination_port),
            protocol=protocol_name(key.protocol),
            tier=Tier(max(entry.tier, reply.tier)),
            verdict=Verdict.ALLOW,
            reason=Reason.HANDED_OFF if lives and spliced else reason,
            mapping=self._names.name(entry.mapping),
            revision=entry.revision,
            source_service=tunnel.service,
            name=tunnel.name,
            interface=self._interface(reply.ifindex),
        )
        return Flow(
            decision=decision,
            backend=layouts.read_address(entry.destination),
            backend_port=layouts.read_port(entry.destination_port),
            state=flow_state(entry, key.protocol) if lives else FlowState.CLOSED,
            started=self._clock.wall(entry.started),
            last_seen=self._clock.wall(max(entry.last_seen, reply.last_seen)),
            sent=Traffic(entry.packets, entry.octets),
            received=Traffic(reply.packets, reply.octets),
        )

    def event(self, raw: bytes) -> Event:
        """An event of the ring."""
        (
            time,
            id,
            started,
            sent_packets,
            received_packets,
            sent_bytes,
            received_bytes,
            source,
            destination,
            source_port,
            destination_port,
            protocol,
            backend,
            backend_port,
            kind,
            reason,
            mapping,
            revision,
            ifindex,
            attempts,
            tier,
            spliced,
        ) = layouts.EVENT_PARTS.unpack(raw)
        tunnel = self._tunnel(id, spliced) if spliced else _NOBODY
        told, verdict, state = _EVENTS[kind]
        when = self._clock.wall(time)
        decision = make_decision(
            when,
            id,
            layouts.read_address(source),
            int.from_bytes(source_port),
            layouts.read_address(destination),
            int.from_bytes(destination_port),
            protocol_name(protocol),
            _TIERS[tier],
            verdict,
            _REASONS[reason],
            self._names.name(mapping),
            revision,
            tunnel.service,
            "",
            tunnel.name,
            self._interface(ifindex),
            attempts or 1,
        )
        if state is None:
            return make_event(told, decision)
        flow = make_flow(
            decision,
            layouts.read_address(backend),
            int.from_bytes(backend_port),
            state,
            self._clock.wall(started),
            when,
            make_traffic(sent_packets, sent_bytes),
            make_traffic(received_packets, received_bytes),
        )
        return make_event(told, decision, flow)

    def _tunnel(self, id: int, spliced: bool) -> Tunnel:
        held = self._tunnels.get(id) if spliced else None
        return held.tunnel if held else _NOBODY

    def _interface(self, ifindex: int) -> str:
        """Its name; empty where it is gone."""
        if ifindex not in self._interfaces:
            try:
                self._interfaces[ifindex] = socket.if_indextoname(ifindex)
            except OSError:
                self._interfaces[ifindex] = ""
        return self._interfaces[ifindex]
