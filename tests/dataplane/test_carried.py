"""What was carried, added up."""

from marchproxy.dataplane.carried import Carried, Load, Side

ONE, TWO = Load(1, 2, 300, 4, 500), Load(2, 4, 600, 8, 1000)


def carried(*names: tuple[str, str, str]) -> Carried:
    made = Carried()
    for each in names:
        made.take(*each, ONE)
    return made


def test_a_flow_counts_once_for_its_mapping_and_for_the_service_on_either_side() -> None:
    found = carried(("c/m", "c/a", "c/b"), ("c/m", "c/b", "c/a"))
    assert found.mappings == {"c/m": TWO}
    assert found.services == {
        (name, side): ONE for name in ("c/a", "c/b") for side in (Side.SOURCE, Side.DESTINATION)
    }


def test_strangers_are_no_service_and_one_may_talk_to_itself() -> None:
    assert carried(("c/m", "", "c/b")).services == {("c/b", Side.DESTINATION): ONE}
    assert carried(("c/m", "", "")).services == {}
    assert carried(("c/m", "c/a", "c/a")).services == {
        ("c/a", Side.SOURCE): ONE,
        ("c/a", Side.DESTINATION): ONE,
    }


def test_parts_are_added_and_left_out() -> None:
    found = carried(("c/m", "c/a", "c/b"))
    kept = found.copy()
    other = carried(("c/m", "c/a", ""), ("c/n", "", "c/b"))
    other.cost = 0.5
    found.add(other)
    assert found.mappings == {"c/m": TWO, "c/n": ONE}
    assert found.services == {("c/a", Side.SOURCE): TWO, ("c/b", Side.DESTINATION): TWO}
    assert found.cost == 0.5
    assert kept == carried(("c/m", "c/a", "c/b")), "a copy does not change with what it is of"
    found.leave_out(other)
    assert found.mappings == {"c/m": ONE, "c/n": Load()}
    found.leave_out(carried(("c/new", "", "")))
    assert found.mappings["c/new"] == -ONE == Load(-1, -2, -300, -4, -500)


def test_each_number_reaches_what_was_seen_of_it() -> None:
    found = carried(("c/m", "c/a", "c/b"))
    seen = Carried({"c/m": Load(0, 9, 100, 9, 100), "c/n": ONE}, {("c/b", Side.SOURCE): ONE})
    found.reach(seen)
    assert found.mappings == {"c/m": Load(1, 9, 300, 9, 500), "c/n": ONE}
    assert found.services[("c/b", Side.SOURCE)] == ONE
    found.reach(Carried({"c/m": -ONE, "c/o": -ONE}))
    assert found.mappings == {"c/m": Load(1, 9, 300, 9, 500), "c/n": ONE, "c/o": Load()}
