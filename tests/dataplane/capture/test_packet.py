"""packet: what is said beside a packet's bytes."""

from dataclasses import replace

from marchproxy.dataplane.capture.packet import CaptureKind
from marchproxy.model.reason import Reason
from tests.dataplane.capture.invented import FORWARDED, REFUSED


def test_a_flows_packet_names_flow_and_direction() -> None:
    assert FORWARDED.comment == "reason=FORWARDED mapping=shop flow=7 direction=request taken=came tier=tc"
    reply = replace(FORWARDED, reply=True, kind=CaptureKind.LEFT, resolved=False, segments=3)
    assert reply.comment == (
        "reason=FORWARDED mapping=shop flow=7 direction=reply taken=left tier=tc segments=3"
        " link-addresses=unresolved"
    )


def test_a_refused_packet_has_neither() -> None:
    assert REFUSED.comment == "reason=NO_MAPPING taken=denied tier=xdp"
    assert "mapping=no" in replace(REFUSED, reason=Reason.DENY_MAPPING, mapping="no").comment
