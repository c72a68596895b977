"""splices: places are given out once, and come back when no flow names them."""

import time

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.splices import ENTERING, Side, Splice, Splices
from marchproxy.dataplane.kernel.tunnels import HeldTunnel, Tunnel, TunnelTable
from tests.dataplane.kernel.fakes import FakeArray, FakeMap

SIDE = Side(sequence=1, timestamp=2, announced=3, expected=4, least=5, most=6)
LATER = ENTERING + 1
OTHER = Side(sequence=11, timestamp=12, announced=13, expected=14, least=15, most=16)


class Table:
    """The kernel's maps, and whoever gives out places in them."""

    def __init__(self, places: int = 4) -> None:
        self.map = FakeArray("splices", value_size=layouts.SPLICE.size, max_entries=places)
        self.tunnels = FakeMap("tunnels", value_size=layouts.TUNNEL.size)
        self.restart()

    def restart(self) -> None:
        """Another daemon takes over the maps."""
        self.splices = Splices({"splices": self.map, "tunnels": self.tunnels})

    def take(self, flow: int) -> int | None:
        return self.splices.place(Splice(flow, SIDE, OTHER))

    def id_at(self, place: int) -> int:
        raw = self.map.get(layouts.U32.pack(place))
        assert raw is not None
        return int(layouts.SPLICE.struct.unpack(raw)[0])


@pytest.fixture
def table() -> Table:
    return Table()


def test_a_splice_is_packed_by_side() -> None:
    fields = dict(
        zip(
            layouts.SPLICE.fields,
            layouts.SPLICE.struct.unpack(Splice(7, SIDE, OTHER, draining=True).pack()),
            strict=True,
        )
    )
    assert fields == {
        "id": 7,
        "sequence": layouts.U32_PAIR.pack(1, 11),
        "timestamp": layouts.U32_PAIR.pack(2, 12),
        "announced": bytes((3, 13)),
        "expected": bytes((4, 14)),
        "least": layouts.U32_PAIR.pack(5, 15),
        "most": layouts.U32_PAIR.pack(6, 16),
        "flags": layouts.SPLICE_DRAINING,
    }


def test_no_place_is_given_out_twice_and_the_first_is_nobodys(table: Table) -> None:
    assert [table.take(flow) for flow in (1, 2, 3, 4)] == [1, 2, 3, None]
    assert [table.id_at(place) for place in (0, 1, 2, 3)] == [0, 1, 2, 3]


def test_a_place_that_comes_back_is_used_last(table: Table) -> None:
    assert table.take(1) == 1
    table.splices.give_back(1)
    assert table.id_at(1) == 0
    assert [table.take(flow) for flow in (2, 3, 4)] == [2, 3, 1]


def test_all_places_are_given_out_again_when_they_have_come_back(table: Table) -> None:
    for _ in range(2):
        places = [table.take(flow) for flow in (1, 2, 3)]
        assert sorted(filter(None, places)) == [1, 2, 3]
        assert table.take(4) is None
        for place in (2, 1, 3):
            table.splices.give_back(place)
    assert [table.take(flow) for flow in (1, 2, 3)] == [2, 1, 3]


def test_a_place_that_an_earlier_daemon_took_is_used_once_it_is_free(table: Table) -> None:
    table.take(1)
    table.restart()
    table.splices.settle([], time.monotonic() + LATER)
    assert [table.take(flow) for flow in (2, 3, 4, 5)] == [2, 3, 1, None]


def test_another_daemon_leaves_taken_places_alone_until_a_sweep_says_they_are_free(table: Table) -> None:
    table.take(1)
    table.take(2)
    table.restart()
    assert table.take(3) == 3
    table.splices.settle([2], time.monotonic() + LATER)
    # The third was taken before the walk, and not seen either.
    assert [table.id_at(place) for place in (1, 2, 3)] == [0, 2, 0]


def test_what_drained_when_the_daemon_died_drains_no_more(table: Table) -> None:
    place = table.splices.place(Splice(8, SIDE, OTHER, draining=True))
    other = table.take(7)
    assert place
    assert other
    before = table.map.get(layouts.U32.pack(other))
    table.restart()
    assert table.map.get(layouts.U32.pack(place)) == Splice(8, SIDE, OTHER).pack()
    assert table.map.get(layouts.U32.pack(other)) == before


def test_what_was_taken_while_the_flows_were_walked_stays(table: Table) -> None:
    """Its flow may have been entered behind the walk, even if the place was taken just before."""
    table.take(1)
    table.splices.settle([], time.monotonic())
    assert table.id_at(1) == 1


def test_who_opened_a_flow_is_forgotten_with_its_place(table: Table) -> None:
    tunnels = TunnelTable(table.tunnels)
    place = table.take(9)
    tunnels.put(HeldTunnel(9, bytes(40), Tunnel("default/clients")))
    assert place is not None
    table.splices.settle([place], time.monotonic() + LATER)
    assert tunnels.get(9)
    table.splices.settle([], time.monotonic() + LATER)
    assert tunnels.get(9) is None


@pytest.mark.parametrize("held", [False, True])
def test_the_end_of_draining_says_whether_acknowledgements_were_held_back(table: Table, held: bool) -> None:
    splice = Splice(1, SIDE, OTHER, draining=True)
    place = table.splices.place(splice)
    assert place is not None
    key = layouts.U32.pack(place)
    if held:
        *head, flags = layouts.SPLICE.struct.unpack(splice.pack())
        table.map.set(key, layouts.SPLICE.struct.pack(*head, flags | layouts.SPLICE_HELD))
    assert table.splices.end_draining(place, splice) is held
    raw = table.map.get(key)
    assert raw is not None
    assert layouts.SPLICE.pick("flags").unpack(raw) == (0,)
