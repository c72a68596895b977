"""A table whose rows come again and again, mostly the same ones with other numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.widgets import DataTable

from marchproxy.tui.words import Row

type Cell = Text | str


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its title, what stands in it, and from which width of the table on it is shown."""

    title: str
    cell: Callable[[Row], Cell]
    above: int = 0
    """Columns of the terminal that the table must have."""
    sort: str = ""
    """How the daemon calls this order; empty: there is none."""
    right: bool = False

    def draw(self, row: Row) -> Text:
        """The cell as text; control characters of strangers have been made harmless by `cell`."""
        cell = self.cell(row)
        text = cell if isinstance(cell, Text) else Text(cell, no_wrap=True)
        if self.right:
            text.justify = "right"
        return text


class LiveTable(DataTable[Text]):
    """Keeps cursor and scroll position by the key of the row while rows come and go.

    Only cells that differ are drawn again, so that a slow line carries no more than what changed.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("shift+left", "scroll_left", "Scroll left", show=False),
        Binding("shift+right", "scroll_right", "Scroll right", show=False),
    ]

    def __init__(
        self, columns: Sequence[Column], key: Callable[[Row], str], *, id: str | None = None
    ) -> None:
        super().__init__(cursor_type="row", zebra_stripes=False, id=id)
        self._all = columns
        self._key = key
        self._shown: Sequence[Column] = ()
        self._keys: list[str] = []
        self._cells: list[list[Text]] = []
        self._records: list[Row] = []

    @property
    def record(self) -> Row | None:
        """The row under the cursor."""
        return self._records[self.cursor_row] if 0 <= self.cursor_row < len(self._records) else None

    @property
    def records(self) -> Sequence[Row]:
        """All that is shown."""
        return self._records

    def show(self, rows: Sequence[Row]) -> None:
        """Show these rows in this order."""
        # Two rows of one key cannot be told apart; the first stands for both.
        known: dict[str, Row] = {}
        for row in rows:
            known.setdefault(self._key(row), row)
        keys, rows = list(known), list(known.values())
        cells = [[column.draw(row) for column in self._columns()] for row in rows]
        self._records = rows
        if keys == self._keys:
            self._amend(cells)
        else:
            self._replace(keys, cells)

    def on_resize(self) -> None:
        """Columns that have room now come, others go."""
        if self._columns_for(self.size.width) != self._shown:
            self._keys = []
            self.show(self._records)

    def order_at(self, position: int) -> str:
        """How the daemon calls the order of the column at `position`; empty: there is none."""
        return self._shown[position].sort

    def _columns_for(self, width: int) -> Sequence[Column]:
        return [column for column in self._all if width >= column.above]

    def _columns(self) -> Sequence[Column]:
        wanted = self._columns_for(self.size.width or 80)
        if wanted != self._shown:
            self.clear(columns=True)
            for column in wanted:
                self.add_column(
                    Text(column.title, justify="right" if column.right else "left"), key=column.title
                )
            self._shown, self._keys, self._cells = wanted, [], []
        return self._shown

    def _amend(self, cells: list[list[Text]]) -> None:
        for key, fresh, known in zip(self._keys, cells, self._cells, strict=True):
            for column, now, before in zip(self._shown, fresh, known, strict=True):
                if now != before:
                    self.update_cell(key, column.title, now, update_width=len(now) > len(before))
        self._cells = cells

    def _replace(self, keys: list[str], cells: list[list[Text]]) -> None:
        held = self._keys[self.cursor_row] if 0 <= self.cursor_row < len(self._keys) else None
        place, scrolled = self.cursor_row, self.scroll_y
        self.clear()
        for key, line in zip(keys, cells, strict=True):
            self.add_row(*line, key=key)
        self._keys, self._cells = keys, cells
        if keys:
            self.move_cursor(
                row=keys.index(held) if held in keys else min(place, len(keys) - 1), scroll=False
            )
            self.scroll_to(y=scrolled, animate=False)
