"""ports: a port's class has the bits of the rules whose lists contain it, and of no others."""

from hypothesis import given
from hypothesis import strategies as st

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.classes import WORD, Dimension
from marchproxy.dataplane.kernel.entries import Tables, tagged
from marchproxy.dataplane.kernel.ports import Matches, PortAudiences
from marchproxy.model.ports import PortRange
from marchproxy.policy.plan import Match

LOWEST, HIGHEST = 1, 12
"""Few enough ports that ranges meet."""
PORTS = (0, *range(LOWEST, HIGHEST + 2), 65535)
INDEXES = (
    {(6, port): port for port in PORTS} | {(17, port): 65536 + port for port in PORTS} | {(1, 0): 131072}
)


@st.composite
def ranges(draw: st.DrawFn) -> tuple[PortRange, ...]:
    ends = draw(st.lists(st.tuples(st.integers(LOWEST, HIGHEST), st.integers(0, 4)), max_size=3))
    return tuple(sorted(PortRange(first, min(first + more, HIGHEST)) for first, more in ends))


def lists() -> st.SearchStrategy[Matches]:
    with_ports = st.builds(Match, st.sampled_from((6, 17)), ranges())
    return st.lists(with_ports | st.just(Match(1)), min_size=1, max_size=3).map(tuple)


def matching(tables: Tables, index: int) -> set[int]:
    """The rules whose ports contain that of an index, by the tables."""
    number = tagged(tables.port_classes[index], Dimension.PORT)
    return {
        word * WORD + bit
        for (held, word), mask in tables.transit_bits.entries.items()
        if held == number
        for bit in range(WORD)
        if mask >> bit & 1
    }


def contains(matches: Matches, protocol: int, port: int) -> bool:
    return any(
        match.protocol == protocol and (not match.ports or any(port in held for held in match.ports))
        for match in matches
    )


@given(st.lists(st.dictionaries(st.integers(0, 3).map(lambda number: number * 63), lists()), max_size=4))
def test_a_port_s_rules_are_those_whose_lists_contain_it(plans: list[dict[int, Matches]]) -> None:
    tables = Tables()
    ports = PortAudiences(tables)
    held: dict[int, Matches] = {}
    for plan in plans:
        for number in held:
            ports.leave(number)
        held = plan
        for number, matches in plan.items():
            ports.join(number, matches)
        ports.settle()
        for (protocol, port), index in INDEXES.items():
            wanted = {number for number, matches in plan.items() if contains(matches, protocol, port)}
            assert matching(tables, index) == wanted
    if not held:
        assert not tables.transit_bits.entries


def test_a_rule_with_ports_that_others_have_moves_no_class() -> None:
    tables = Tables()
    ports = PortAudiences(tables)
    web = (Match(6, (PortRange(80, 80), PortRange(443, 443))),)
    ports.join(0, web)
    ports.settle()
    before = tables.port_classes
    assert [index for index in range(layouts.PORT_CLASSES) if before[index]] == [80, 443]
    ports.join(1, web)
    ports.settle()
    assert tables.port_classes is before
    assert matching(tables, 443) == {0, 1}
