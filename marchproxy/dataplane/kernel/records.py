"""Kernel structs as the records of the data plane."""

import socket

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.clock import KernelClock
from marchproxy.dataplane.kernel.layouts import EventRecord, FlowEntry, FlowKey
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.tunnels import Tunnel, TunnelTable
from marchproxy.dataplane.records import Decision, Event, EventKind, Flow, FlowState, Traffic
from marchproxy.model.reason import Reason, Tier, Verdict

_PROTOCOLS = {layouts.TCP: "tcp", layouts.UDP: "udp", 1: "icmp", 58: "icmp"}
_EVENT_KINDS = {
    layouts.EVENT_START: EventKind.FLOW_START,
    layouts.EVENT_END: EventKind.FLOW_END,
    layouts.EVENT_DENIED: EventKind.DENIED,
    layouts.EVENT_AUDITED: EventKind.AUDITED,
}
_VERDICTS = {layouts.EVENT_DENIED: Verdict.DENY, layouts.EVENT_AUDITED: Verdict.AUDIT}
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
        record = layouts.read_event(raw)
        kind = _EVENT_KINDS[record.kind]
        decision = self._decision(record, layouts.read_key(record.key))
        if record.kind in _VERDICTS:
            return Event(kind, decision)
        sent_packets, received_packets = layouts.U64_PAIR.unpack(record.packets)
        sent_bytes, received_bytes = layouts.U64_PAIR.unpack(record.octets)
        ended = kind is EventKind.FLOW_END
        flow = Flow(
            decision=decision,
            backend=layouts.read_address(record.backend),
            backend_port=layouts.read_port(record.backend_port),
            state=FlowState.CLOSED if ended else FlowState.ESTABLISHED,
            started=self._clock.wall(record.started),
            last_seen=decision.time,
            sent=Traffic(sent_packets, sent_bytes),
            received=Traffic(received_packets, received_bytes),
        )
        return Event(kind, decision, flow)

    def _decision(self, record: EventRecord, key: FlowKey) -> Decision:
        tunnel = self._tunnel(record.id, bool(record.spliced))
        return Decision(
            time=self._clock.wall(record.time),
            id=record.id,
            source=layouts.read_address(key.source),
            source_port=layouts.read_port(key.source_port),
            destination=layouts.read_address(key.destination),
            destination_port=layouts.read_port(key.destination_port),
            protocol=protocol_name(key.protocol),
            tier=Tier(record.tier),
            verdict=_VERDICTS.get(record.kind, Verdict.ALLOW),
            reason=Reason(record.reason),
            mapping=self._names.name(record.mapping),
            revision=record.revision,
            source_service=tunnel.service,
            name=tunnel.name,
            interface=self._interface(record.ifindex),
            count=record.attempts or 1,
        )

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
