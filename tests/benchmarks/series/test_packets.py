"""Series of single packets: the flows that are written are those that packets find."""

import pytest

from benchmarks.packetpaths import Path, prepare
from benchmarks.series.packets import _of_flows, datagram, fill
from marchproxy.model.reason import Reason
from rig import Rig
from tests.bpf.bed import Bed, Tier, flow_key, inside

FAR = 60_000
"""A conversation of the second client."""


@pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")
@pytest.mark.parametrize("tier", ["tc", "xdp"])
def test_packets_find_their_flows_and_are_priced(tier: Tier) -> None:
    with Rig() as rig, inside(rig.middle):
        bed = Bed(rig, {"flows": 4096, "opening": 4096})
        first = datagram(0)
        prepare(bed, "xdp", Path("", Reason.FORWARDED, [], (first,)))
        model = bed.maps["flows"].get(flow_key(first))
        assert model is not None
        asked = [*range(200), FAR]
        fill(bed, model, asked)
        assert bed.count("flows") == 2 * len(asked) + 1
        bed.counters.difference()
        assert _of_flows(bed, tier, model, asked) > 0
        assert bed.counters.difference() == {Reason.FORWARDED: (len(asked), len(asked) * 46)}
        assert bed.send(tier, datagram(FAR)).reason is Reason.FORWARDED
