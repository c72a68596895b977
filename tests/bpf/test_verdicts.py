"""The same verdict from the reference, the TC program and the XDP program."""

from ipaddress import ip_address

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.model.endpoint import Endpoint
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason
from marchproxy.policy.evaluate import evaluate
from tests.bpf.bed import Action, Bed, Tier
from tests.bpf.packets import Packet, Tcp, Udp
from tests.bpf.policies import QUESTIONS, Question
from tests.bpf.talk import from_client

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")
ROWS = pytest.mark.parametrize("row", QUESTIONS, ids=str)


def first_packet(row: Question) -> Packet:
    """What opens the flow of a row."""
    ports = (40000, row.endpoint.port)
    transport = Tcp(*ports) if row.transport is Transport.TCP else Udp(*ports, b"question")
    return from_client(transport, row.client, str(row.endpoint.address))


@ROWS
def test_reference(row: Question) -> None:
    answer = evaluate(row.plan(), row.query)
    assert answer.reason is row.reason
    backends = answer.pool.backends if answer.pool and row.reason is Reason.FORWARDED else ()
    assert {str(Endpoint(backend.address, backend.port)) for backend in backends} == set(row.backends)


@ROWS
def test_kernel(row: Question, bed: Bed, tier: Tier) -> None:
    bed.apply(row.plan())
    asked = first_packet(row)
    outcome = bed.send(tier, asked)
    # Sockets of the host ask for credentials.
    reason = Reason.PASSED_TO_HOST if row.reason is Reason.AUTH_MISSING else row.reason
    assert outcome.reason is reason
    if row.reason is Reason.FORWARDED:
        assert outcome.action is Action.REDIRECT
        flow = bed.flow(asked)
        assert flow is not None
        place = Endpoint(layouts.read_address(flow.destination), layouts.read_port(flow.destination_port))
        assert str(place) in row.backends
        assert bed.count("opening") == 2
    elif reason is Reason.PASSED_TO_HOST:
        assert (outcome.action, outcome.frame) == (Action.PASS, asked.build())
        assert bed.count("opening") == 0
    else:
        assert outcome.action is Action.REDIRECT, "refused, quickly"
        assert bed.count("opening") == 0


def test_every_row_of_the_table_is_there() -> None:
    assert {row.reason for row in QUESTIONS} == {
        Reason.FORWARDED,
        Reason.PASSED_TO_HOST,
        Reason.NO_MAPPING,
        Reason.DENY_MAPPING,
        Reason.NO_BACKEND,
        Reason.AUTH_MISSING,
        Reason.NOT_CARRIED,
    }
    assert {ip_address(row.client).version for row in QUESTIONS} == {4, 6}
