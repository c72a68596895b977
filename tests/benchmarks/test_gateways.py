"""Gateways: the same policy for both."""

from benchmarks.bed import PORTS
from benchmarks.gateways import RULES, MarchProxyGateway, NftablesGateway, pairs
from marchproxy.model.snapshot import read_snapshot


def without_bed[T](kind: type[T]) -> T:
    """As it is before it is set up; nothing here touches the machine."""
    made = kind.__new__(kind)
    made.server = "10.2.0.2"  # type: ignore[attr-defined]  # what the bed would have told
    return made


def test_pairs_do_not_overlap() -> None:
    every = list(pairs())
    assert (
        len(every)
        == len({client for client, _, _ in every})
        == len({server for _, server, _ in every})
        == RULES
    )


def test_both_allow_what_the_workloads_ask_for() -> None:
    configuration = without_bed(MarchProxyGateway)._configuration()
    (cluster,) = read_snapshot(configuration).clusters
    assert len(cluster.mappings) == RULES + 2
    by_name = {mapping.name: mapping for mapping in cluster.mappings}
    rules = without_bed(NftablesGateway)._rules()
    for port in PORTS:
        assert any(port.number in allowed for allowed in by_name[f"bench-{port.transport}"].ports)
        assert f"10.1.0.0/24 . 10.2.0.2 . {port.number}" in rules
    assert rules.count(" . ") >= 2 * RULES
