"""records: what the kernel's structs say, in the words of the data plane."""

import socket
import time
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.records import RecordReader, flow_state, protocol_name
from marchproxy.dataplane.kernel.tunnels import TunnelTable
from marchproxy.dataplane.records import EventKind, FlowState, Traffic
from marchproxy.model.reason import Reason, Tier, Verdict
from tests.dataplane.kernel.conversations import SECOND, Conversation, now
from tests.dataplane.kernel.fakes import FakeMap

LOOPBACK = socket.if_nametoindex("lo")


@pytest.fixture
def reader() -> RecordReader:
    names = MappingNames(FakeMap("mapping_names", value_size=128))
    names.number("www")
    return RecordReader(names, TunnelTable(FakeMap("tunnels")))


def event(kind: int, **fields: object) -> bytes:
    made = Conversation()
    values = {
        "time": now(),
        "id": 7,
        "started": now() - 3 * SECOND,
        "packets": layouts.U64_PAIR.pack(3, 2),
        "bytes": layouts.U64_PAIR.pack(300, 200),
        "key": made.key,
        "backend": layouts.pack_address(ip_address("10.2.0.2")),
        "backend_port": layouts.pack_port(8080),
        "kind": kind,
        "reason": Reason.FORWARDED,
        "mapping": 1,
        "revision": 5,
        "ifindex": LOOPBACK,
        "attempts": 1,
        "tier": 1,
        "spliced": 0,
    }
    return layouts.EVENT.struct.pack(*(values | fields).values())


def test_a_flow(reader: RecordReader) -> None:
    made = Conversation(age=10, ifindex=LOOPBACK)
    flow = reader.flow(
        layouts.read_key(made.key), layouts.read_flow(made.entry), layouts.read_flow(made.reply)
    )
    decision = flow.decision
    assert (decision.source, decision.source_port) == (ip_address("10.0.0.1"), 40000)
    assert (decision.destination, decision.destination_port) == (ip_address("192.0.2.1"), 80)
    assert (decision.protocol, decision.tier, decision.verdict) == ("tcp", Tier.TC, Verdict.ALLOW)
    assert (decision.mapping, decision.revision, decision.id) == ("www", 5, 7)
    assert decision.interface == "lo"
    assert (flow.backend, flow.backend_port) == (ip_address("10.2.0.2"), 8080)
    assert (flow.sent, flow.received) == (Traffic(3, 300), Traffic(2, 200))
    assert flow.state is FlowState.ESTABLISHED
    assert abs(flow.last_seen - time.time()) < 5, "the younger of both directions"
    assert decision.time == flow.started
    assert 10 < flow.last_seen - flow.started < 12


def test_a_flow_that_ends_now(reader: RecordReader) -> None:
    made = Conversation(age=90, reply_age=60)
    key, entry, reply = (
        layouts.read_key(made.key),
        layouts.read_flow(made.entry),
        layouts.read_flow(made.reply),
    )
    flow = reader.flow(key, entry, reply, Reason.IDLE)
    assert (flow.state, flow.decision.reason) == (FlowState.CLOSED, Reason.IDLE)
    assert abs(flow.decision.time - time.time()) < 5
    assert 59 < flow.decision.time - flow.last_seen < 65


def test_an_ipv6_flow(reader: RecordReader) -> None:
    made = Conversation(client="2001:db8::5", listener="fd01::1", backend="fd02::2")
    flow = reader.flow(
        layouts.read_key(made.key), layouts.read_flow(made.entry), layouts.read_flow(made.reply)
    )
    assert (flow.decision.source, flow.backend) == (ip_address("2001:db8::5"), ip_address("fd02::2"))


@pytest.mark.parametrize(
    ("protocol", "state", "closing", "expected"),
    [
        (layouts.TCP, layouts.STATE_OPENING, 0, FlowState.OPENING),
        (layouts.TCP, layouts.STATE_ANSWERED, 0, FlowState.OPENING),
        (layouts.TCP, layouts.STATE_ESTABLISHED, 0, FlowState.ESTABLISHED),
        (layouts.TCP, layouts.STATE_ESTABLISHED, layouts.FLAG_FIN, FlowState.CLOSING),
        (layouts.TCP, layouts.STATE_ESTABLISHED, layouts.FLAG_PEER_FIN, FlowState.CLOSING),
        (layouts.TCP, layouts.STATE_CLOSED, layouts.FLAG_FIN, FlowState.CLOSED),
        (layouts.UDP, layouts.STATE_OPENING, 0, FlowState.OPENING),
        (layouts.UDP, layouts.STATE_ANSWERED, 0, FlowState.ESTABLISHED),
        (layouts.UDP, layouts.STATE_ESTABLISHED, 0, FlowState.ESTABLISHED),
        (layouts.TCP, 99, 0, FlowState.OPENING),
    ],
)
def test_states(protocol: int, state: int, closing: int, expected: FlowState) -> None:
    entry = layouts.read_flow(Conversation(protocol=protocol, state=state, closing=closing).entry)
    assert flow_state(entry, protocol) is expected


def test_the_start_of_a_flow(reader: RecordReader) -> None:
    read = reader.event(event(layouts.EVENT_START))
    assert read.kind is EventKind.FLOW_START
    assert read.flow is not None
    assert read.flow.state is FlowState.ESTABLISHED
    assert read.flow.decision is read.decision
    assert read.decision.interface == "lo"


def test_the_end_of_a_flow(reader: RecordReader) -> None:
    read = reader.event(event(layouts.EVENT_END, reason=Reason.RESET))
    assert read.kind is EventKind.FLOW_END
    assert read.decision.reason is Reason.RESET
    assert read.flow is not None
    assert (read.flow.state, read.flow.sent, read.flow.received) == (
        FlowState.CLOSED,
        Traffic(3, 300),
        Traffic(2, 200),
    )
    assert abs(read.flow.last_seen - read.flow.started - 3) < 0.1


def test_a_refusal(reader: RecordReader) -> None:
    read = reader.event(event(layouts.EVENT_DENIED, reason=Reason.NO_MAPPING, mapping=0, id=0))
    assert (read.kind, read.flow) == (EventKind.DENIED, None)
    assert (read.decision.verdict, read.decision.reason, read.decision.mapping) == (
        Verdict.DENY,
        Reason.NO_MAPPING,
        "",
    )


def test_what_audit_lets_through(reader: RecordReader) -> None:
    read = reader.event(event(layouts.EVENT_AUDITED, reason=Reason.NO_MAPPING, mapping=0, attempts=3))
    assert (read.kind, read.flow) == (EventKind.AUDITED, None)
    assert (read.decision.verdict, read.decision.reason) == (Verdict.AUDIT, Reason.NO_MAPPING)
    assert read.decision.count == 3


def test_an_interface_that_is_gone_has_no_name(reader: RecordReader) -> None:
    assert reader.event(event(layouts.EVENT_DENIED, ifindex=0x7FFFFFF0)).decision.interface == ""
    assert reader.event(event(layouts.EVENT_DENIED, ifindex=0)).decision.interface == ""


@pytest.mark.parametrize(("number", "name"), [(6, "tcp"), (17, "udp"), (1, "icmp"), (58, "icmp"), (47, "47")])
def test_protocols(number: int, name: str) -> None:
    assert protocol_name(number) == name
