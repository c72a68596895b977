"""Events that come out of the wire as they went in."""

import pickle
from dataclasses import replace
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.records import (
    Decision,
    Event,
    EventKind,
    Exchanged,
    Flow,
    FlowState,
    Traffic,
)
from marchproxy.dataplane.workers.eventwire import pack, unpack
from marchproxy.model.reason import Reason, Tier, Verdict

DECISION = Decision(
    time=1.5,
    id=1 << 60,
    source=ip_address("10.1.0.2"),
    source_port=40_000,
    destination=ip_address("fd02::2"),
    destination_port=443,
    protocol="tcp",
    tier=Tier.SOCKETS,
    verdict=Verdict.ALLOW,
    reason=Reason.FORWARDED,
    mapping="default/web",
    revision=7,
    source_service="default/lan",
    destination_service="default/web",
    name="www.example",
    interface="inside0",
    count=3,
)
FLOW = Flow(
    *(DECISION, ip_address("10.2.0.2"), 8443, FlowState.CLOSED, 1.0, 2.0),
    sent=Traffic(1, 2),
    received=Traffic(3, 4),
)
EXCHANGED = Exchanged(
    method="GET",
    path="/a",
    version="1.1",
    tls="TLSv1.3",
    status=200,
    backend="10.2.0.2:8443",
    service="web",
    route="h.example/a",
    request_id="id",
    traceparent="",
    sent=3,
    attempts=1,
    connected=0.1,
    received=5,
    waited=0.1,
    took=0.2,
)


@pytest.mark.parametrize(
    "event",
    [
        Event(EventKind.DENIED, replace(DECISION, verdict=Verdict.DENY, reason=Reason.NO_MAPPING)),
        Event(EventKind.FLOW_START, DECISION, FLOW),
        Event(EventKind.FLOW_END, replace(DECISION, reason=Reason.IDLE), FLOW),
        Event(EventKind.REQUEST, DECISION, exchanged=EXCHANGED),
    ],
    ids=["denied", "start", "end-of-another-decision", "request"],
)
def test_there_and_back(event: Event) -> None:
    packed = pack(event)
    assert unpack(pickle.loads(pickle.dumps(packed))) == event  # noqa: S301
    assert b"marchproxy" not in pickle.dumps(packed)


def test_a_flow_s_own_decision_is_told_once() -> None:
    assert pack(Event(EventKind.FLOW_END, DECISION, FLOW))[2][0] is None
    there = unpack(pack(Event(EventKind.FLOW_END, DECISION, FLOW)))
    assert there.flow is not None
    assert there.flow.decision is there.decision
