"""entries: a table, and what each bank still lacks of it."""

from marchproxy.dataplane.kernel.entries import Table


def test_every_change_is_pending_in_both_banks() -> None:
    table: Table[str, int] = Table()
    table["a"] = 1
    table.update({"b": 2, "c": 3})
    del table["a"]
    table.remove(["b"])
    assert table.entries == {"c": 3}
    assert table.pending == ({"a", "b", "c"}, {"a", "b", "c"})


def test_banks_catch_up_on_their_own() -> None:
    table: Table[str, int] = Table()
    table["a"] = 1
    table.pending[0].clear()
    table["b"] = 2
    assert table.pending == ({"b"}, {"a", "b"})
