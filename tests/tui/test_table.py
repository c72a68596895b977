"""A table whose rows come again and again."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from textual.app import App, ComposeResult
from textual.pilot import Pilot

from marchproxy.tui.table import Column, LiveTable
from marchproxy.tui.words import Row

COLUMNS = (
    Column("NAME", lambda row: row["name"], sort="name"),
    Column("COUNT", lambda row: str(row["count"]), right=True),
    Column("WIDE", lambda row: "w", above=100),
)


class Bench(App[None]):
    def compose(self) -> ComposeResult:
        yield LiveTable(COLUMNS, lambda row: row["name"])


def rows(*names: str, count: int = 1) -> list[Row]:
    return [{"name": name, "count": count} for name in names]


def on_bench(
    play: Callable[[LiveTable, Pilot[None]], Awaitable[None]], size: tuple[int, int] = (80, 10)
) -> None:
    async def run() -> None:
        app: Any = Bench()
        async with app.run_test(size=size) as pilot:
            table = app.query_one(LiveTable)
            table.focus()
            await pilot.pause()
            await play(table, pilot)

    asyncio.run(run())


def cells(table: LiveTable) -> list[list[str]]:
    return [[cell.plain for cell in table.get_row_at(position)] for position in range(table.row_count)]


def test_only_cells_that_differ_change() -> None:
    async def play(table: LiveTable, pilot: Pilot[None]) -> None:
        table.show(rows("a", "b"))
        row = table.get_row_at(0)
        table.show(rows("a", "b", count=2))
        assert cells(table) == [["a", "2"], ["b", "2"]]
        assert table.get_row_at(0)[0] is row[0]

    on_bench(play)


def test_the_cursor_stays_on_its_row() -> None:
    async def play(table: LiveTable, pilot: Pilot[None]) -> None:
        table.show(rows("a", "b", "c"))
        table.move_cursor(row=1)
        assert table.record == {"name": "b", "count": 1}
        table.show(rows("x", "y", "b", "c"))
        assert table.record == {"name": "b", "count": 1}
        table.show(rows("x", "y"))
        assert table.record == {"name": "y", "count": 1}
        table.show([])
        assert not table.record

    on_bench(play)


def test_columns_come_and_go_with_the_room() -> None:
    async def play(table: LiveTable, pilot: Pilot[None]) -> None:
        table.show(rows("a"))
        assert cells(table) == [["a", "1"]]
        await pilot.resize_terminal(120, 10)
        await pilot.pause()
        assert cells(table) == [["a", "1", "w"]]
        assert table.order_at(0) == "name"
        assert table.order_at(2) == ""

    on_bench(play)


def test_markup_of_strangers_is_text() -> None:
    async def play(table: LiveTable, pilot: Pilot[None]) -> None:
        table.show(rows("[red]x[/red]"))
        assert cells(table)[0][0] == "[red]x[/red]"

    on_bench(play)


def test_rows_of_one_key_are_one_row() -> None:
    async def play(table: LiveTable, pilot: Pilot[None]) -> None:
        table.show([*rows("a", "b"), *rows("a", count=7)])
        assert cells(table) == [["a", "1"], ["b", "1"]]
        assert [row["name"] for row in table.records] == ["a", "b"]

    on_bench(play)
