"""Aligned columns of text. Drawn here and not with rich, which would double the start-up of `list`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from marchproxy.client.words import cell

type Row = Mapping[str, Any]
type Cell = str | Callable[[Row], object]
"""A key of the row, or a function of the row."""
type Columns = Mapping[str, Cell]
"""Title to cell, from left to right."""

_GAP = "  "


def draw(rows: Sequence[Row], columns: Columns, width: int | None = None) -> list[str]:
    """A title line and a line per row. Whole numbers align right; lines are cut at `width`, if given."""
    values = [[_value(row, source) for source in columns.values()] for row in rows]
    texts = [list(columns), *([cell(value) for value in line] for line in values)]
    widths = [max(map(columns_of, column)) for column in zip(*texts, strict=True)]
    numeric = [_is_numeric([line[i] for line in values]) for i in range(len(columns))]
    return [_cut(_join(line, widths, numeric), width) for line in texts]


def columns_of(text: str) -> int:
    """Columns that a text takes on a terminal: wide East Asian characters take two, combining marks none."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(char) else 1 + (east_asian_width(char) in "WF") for char in text)


def _value(row: Row, source: Cell) -> object:
    return row.get(source) if isinstance(source, str) else source(row)


def _is_numeric(values: Sequence[object]) -> bool:
    given = [value for value in values if value is not None]
    return bool(given) and all(isinstance(value, int) and not isinstance(value, bool) for value in given)


def _join(line: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    padded = []
    for text, width, right in zip(line, widths, numeric, strict=True):
        filler = " " * (width - columns_of(text))
        padded.append(filler + text if right else text + filler)
    return _GAP.join(padded).rstrip()


def _cut(line: str, width: int | None) -> str:
    if width is None or columns_of(line) <= width:
        return line
    while columns_of(line) > width - 1:
        line = line[:-1]
    return line + "…"
