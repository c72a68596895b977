"""Floods and full tables: newcomers may suffer, established flows may not."""

import struct
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.flows import FlowTable, Timeouts
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.dataplane.records import Event
from marchproxy.model.reason import Reason
from tests.bpf.bed import INSIDE, SIZES, Bed, Tier, flow_key
from tests.bpf.packets import Tcp, Udp, checksum
from tests.bpf.policies import OPEN
from tests.bpf.talk import Talk, check_frame, from_client
from tests.policy.build import plan

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")

SYN = from_client(Tcp(40000, 80))
FLOOD = 5 * SIZES["opening"]


@pytest.fixture(autouse=True)
def policy(bed: Bed) -> None:
    bed.apply(plan(*OPEN))
    bed.settings.prepare(NatPorts())


def spoofed(number: int, template: bytes) -> bytes:
    """The template's SYN from one of 2^24 invented clients. TCP's checksum is the backend's to check."""
    frame = bytearray(template)
    struct.pack_into("!HI", frame, 24, 0, 0x64000000 | number * 2654435761 % 2**24)
    struct.pack_into("!H", frame, 24, checksum(bytes(frame[14:34])))
    return bytes(frame)


def flood(bed: Bed, tier: Tier, count: int) -> dict[Reason, tuple[int, int]]:
    """Spoofed SYNs; what became of them."""
    bed.counters.difference()
    runner, ifindex, template = bed.runners[tier], bed.ifindex[INSIDE], SYN.build()
    for number in range(count):
        runner.run(spoofed(number, template), ifindex)
    return bed.counters.difference()


def test_flood_of_half_open_flows_leaves_established_ones_alone(bed: Bed, tier: Tier) -> None:
    talks = [
        Talk.established(bed, tier, SYN),
        Talk.established(bed, tier, from_client(Udp(40000, 80))),
        Talk.established(bed, tier, from_client(Tcp(40000, 80), "fd01::2", "fd01::1")),
    ]
    established = dict(bed.maps["flows"].items())
    reasons = flood(bed, tier, FLOOD)
    assert sum(packets for packets, _ in reasons.values()) == FLOOD
    assert reasons.keys() <= {Reason.FORWARDED, Reason.HANDED_UP}
    assert dict(bed.maps["flows"].items()) == established
    assert bed.count("opening") <= SIZES["opening"]
    for talk in talks:
        flags = {"transport__flags": "A"} if isinstance(talk.asks.transport, Tcp) else {}
        # A flood that took a second leaves ways out to be looked up again, by the neighbour table.
        talk.ask(**flags)
        talk.answer(**flags)
        check_frame(talk.ask(**flags).frame, talk.asked(**flags))
        check_frame(talk.answer(**flags).frame, talk.answered(**flags))
    Talk.established(bed, tier, SYN.but(transport__source=50000)).ask(transport__flags="A")


def test_answered_flows_that_a_flood_pushes_out_are_counted(bed: Bed, tier: Tier) -> None:
    """Each has an end that is told, or is counted as one without."""
    question, count = from_client(Udp(40000, 80)), SIZES["opening"]
    for number in range(count):
        client = ip_address("10.1.128.0") + number
        Talk.open(bed, tier, question.but(source=client)).answer()
    ends: list[Event] = []
    # By now all are silent for long.
    table = FlowTable(bed.maps, MappingNames(bed.maps["mapping_names"]), Timeouts(udp=0))
    table.expire(ends.append)
    table.expire(ends.append)
    assert table.unended >= count - SIZES["opening"] // 2
    assert len(ends) + table.unended == count


def test_flow_whose_other_half_was_evicted_is_opened_anew(bed: Bed, tier: Tier) -> None:
    talk = Talk.open(bed, tier, SYN)
    bed.maps["opening"].delete(flow_key(talk.answers))
    again = Talk.established(bed, tier, SYN)
    check_frame(again.ask(transport__flags="A").frame, again.asked(transport__flags="A"))


def test_full_flow_table_refuses_new_flows_and_keeps_the_established(bed: Bed, tier: Tier) -> None:
    talk = Talk.established(bed, tier, SYN)
    room = SIZES["flows"] - bed.count("flows")
    filler = layouts.FLOW.struct.pack(*layouts.read_flow(bytes(layouts.FLOW.size)))
    bed.maps["flows"].update_many(
        [(number.to_bytes(4).ljust(layouts.FLOW_KEY.size, b"\1"), filler) for number in range(room)]
    )
    newcomer = Talk.open(bed, tier, SYN.but(transport__source=50000))
    newcomer.answer(transport__flags="SA", transport__sequence=5000)
    before = dict(bed.maps["flows"].items())
    refused = newcomer.ask(transport__flags="A", transport__acknowledgement=5001)
    assert refused.reason is Reason.FLOW_TABLE_FULL
    assert dict(bed.maps["flows"].items()) == before, "both directions or none"
    flow = bed.flow(newcomer.asks)
    assert flow is not None
    assert flow.state == layouts.STATE_ANSWERED
    check_frame(talk.ask(transport__flags="A").frame, talk.asked(transport__flags="A"))
    check_frame(talk.answer(transport__flags="PA").frame, talk.answered(transport__flags="PA"))
    fillers = [key for key in before if key.endswith(b"\1\1")]
    bed.maps["flows"].delete(fillers[0])
    # One free place is not enough for a flow of two directions.
    again = newcomer.ask(transport__flags="A", transport__acknowledgement=5001)
    assert again.reason is Reason.FLOW_TABLE_FULL
    bed.maps["flows"].delete(fillers[1])
    newcomer.ask(transport__flags="A", transport__acknowledgement=5001)
    assert bed.is_established(newcomer.asks)
