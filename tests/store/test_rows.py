import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.model.change import ENTITIES, Kind
from marchproxy.model.documents import (
    Entity,
    read_entity,
    to_document,
)
from marchproxy.model.errors import InvalidValue
from marchproxy.store.rows import COLUMNS, Column, dump, read_rows, to_row
from tests.model.strategies import DOCUMENTS


def _round_trip(kind: Kind, entity: Entity) -> None:
    """As SQLite hands it out: booleans as pydal's letters, instants as text."""
    row = to_row(kind, to_document(entity))
    for column in COLUMNS[kind]:
        assert column(row[column.name]) == (row[column.name], None)
        if column.type == "boolean":
            row[column.name] = "T" if row[column.name] else "F"
        if column.type == "datetime" and row[column.name]:
            row[column.name] = row[column.name].isoformat(" ")
    assert read_rows(kind, [list(row.values())]) == (entity,)


@pytest.mark.parametrize("kind", COLUMNS)
@given(st.data())
def test_every_entity_survives_a_row(kind: Kind, data: st.DataObject) -> None:
    _round_trip(kind, read_entity(ENTITIES[kind], data.draw(DOCUMENTS[ENTITIES[kind]])))


@pytest.mark.parametrize("kind", COLUMNS)
def test_every_field_has_its_column(kind: Kind) -> None:
    names = [column.name for column in COLUMNS[kind]]
    assert names == [field.name for field in dataclasses.fields(ENTITIES[kind])]


def _column(kind: Kind, name: str) -> Column:
    return next(column for column in COLUMNS[kind] if column.name == name)


@pytest.mark.parametrize(
    ("kind", "name", "value", "judgement"),
    [
        (Kind.SERVICE, "name", "all", "name: 'all' is not valid"),
        (Kind.SERVICE, "addresses", '["10.0.0.5/24"]', "addresses: '10.0.0.5/24' is not valid"),
        (Kind.SERVICE, "addresses", None, "the JSON object must be"),
        (Kind.SERVICE, "addresses", "[]", "addresses: [] is not valid"),
        (Kind.SERVICE, "addresses", "10.0.0.1", "Extra data"),
        (Kind.SERVICE, "port", 0, "port: 0 is not valid"),
        (Kind.SERVICE, "weight", 257, "weight: 257 is not valid"),
        (Kind.SERVICE, "auth", "basic", "auth: 'basic' is not valid"),
        (Kind.MAPPING, "sources", '["a b"]', "sources: 'a b' is not valid"),
        (Kind.MAPPING, "priority", -1, "priority: -1 is not valid"),
        (Kind.MAPPING, "expires", "tomorrow", "Invalid isoformat string"),
        (Kind.INTERFACE, "role", None, "role has no value"),
    ],
)
def test_a_column_refuses_what_the_model_refuses(kind: Kind, name: str, value: Any, judgement: str) -> None:
    kept, said = _column(kind, name)(value)
    assert kept == value
    assert said is not None
    assert said.startswith(judgement)


@pytest.mark.parametrize(
    ("name", "value"), [("port", None), ("tags", "[]"), ("tls", False), ("description", "")]
)
def test_a_column_lets_its_default_in(name: str, value: Any) -> None:
    assert _column(Kind.SERVICE, name)(value) == (value, None)


def test_rows_come_back_in_the_order_of_their_names() -> None:
    documents = [{"name": name, "role": "inside"} for name in ("b", "C", "a")]
    rows = [list(to_row(Kind.INTERFACE, document).values()) for document in documents]
    assert [entity.name for entity in read_rows(Kind.INTERFACE, rows)] == ["C", "a", "b"]


@pytest.mark.parametrize(
    "row", [["eth0", "up", "auto"], ["eth0", None, None], ["eth0", b"inside", "auto"], ["eth0", "inside"]]
)
def test_a_row_that_the_model_cannot_read_is_an_error(row: list[Any]) -> None:
    with pytest.raises((InvalidValue, ValueError), match=r"role|shorter"):
        read_rows(Kind.INTERFACE, [row])


def test_json_in_columns_is_short_and_readable() -> None:
    assert dump({"b": ["größer"], "a": None}) == '{"a":null,"b":["größer"]}'
    assert json.loads(dump(["x"])) == ["x"]
