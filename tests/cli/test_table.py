"""Tables."""

from typing import Any

from marchproxy.cli.table import columns_of, draw

ROWS: list[dict[str, Any]] = [
    {"name": "a", "count": 5, "text": "x"},
    {"name": "long-name", "count": 1200, "text": ""},
]
COLUMNS = {"NAME": "name", "COUNT": "count", "TEXT": "text"}


def test_text_aligns_left_and_numbers_right() -> None:
    assert draw(ROWS, COLUMNS) == [
        "NAME       COUNT  TEXT",
        "a              5  x",
        "long-name   1200  -",
    ]


def test_a_number_that_is_missing_leaves_the_column_numeric() -> None:
    rows = [*ROWS, {"name": "b", "count": None}]
    assert draw(rows, COLUMNS)[3] == "b              -  -"


def test_no_rows_leave_the_titles() -> None:
    assert draw([], COLUMNS) == ["NAME  COUNT  TEXT"]


def test_a_column_can_be_computed() -> None:
    assert draw(ROWS, {"TWICE": lambda row: row["count"] * 2}) == ["TWICE", "   10", " 2400"]


def test_lines_are_cut_at_the_width() -> None:
    assert draw(ROWS, COLUMNS, 12) == ["NAME       …", "a          …", "long-name  …"]
    assert all(columns_of(line) <= 9 for line in draw([{"name": "漢字漢字漢字"}], {"NAME": "name"}, 9))


def test_wide_characters_take_two_columns() -> None:
    lines = draw(
        [{"name": "漢字", "text": "x"}, {"name": "e\u0301", "text": "y"}], {"NAME": "name", "TEXT": "text"}
    )
    assert lines == ["NAME  TEXT", "漢字  x", "e\u0301     y"]
