"""What first packets cost: every packet that is measured opens a flow, by the mapping that it is for."""

import pytest

from benchmarks.classify import PORTS, SIZES, lay_ways, markdown, opening, openings, policy, prepare
from marchproxy.model.reason import Reason
from rig import Rig
from tests.bpf.bed import Bed, inside
from tests.policy.build import plan


def test_a_policy_has_a_mapping_between_two_services_for_each_number() -> None:
    made = plan(*policy(30))
    assert len(made.transit) == 30
    assert len(made.sources) == 60
    assert all(rule.reason is Reason.FORWARDED for rule in made.transit)


def test_the_table_has_a_column_for_each_size() -> None:
    figures = {("tc", what, count): 100.0 for what in ("first packet", "established flow") for count in SIZES}
    facts = {"date": "2026-01-01", "kernel": "6.18", "processor": "2 x EPYC"}
    assert markdown(figures, facts).splitlines() == [  # type: ignore[arg-type]  # the keys' literals are widened
        "| nanoseconds a packet | 10 mappings | 1,000 mappings | 10,000 mappings |",
        "|---|---|---|---|",
        "| first packet, TC | 100 | 100 | 100 |",
        "| established flow, TC | 100 | 100 | 100 |",
        "",
        "2026-01-01, kernel 6.18, 2 x EPYC.",
    ]


@pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")
def test_what_is_measured_is_forwarded() -> None:
    with Rig() as rig, inside(rig.middle):
        bed = Bed(rig)
        lay_ways(bed)
        prepare(bed, 30)
        for number in range(len(PORTS)):
            assert bed.send("tc", opening(number, 40000 + number)).reason is Reason.FORWARDED
        for frame in openings(30, 20):
            assert bed.send("tc", frame).reason is Reason.FORWARDED
