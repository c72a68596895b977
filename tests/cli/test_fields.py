"""Flags that carry an entity's fields."""

from collections.abc import Callable
from dataclasses import MISSING, fields

import pytest

from marchproxy.cli import interface, mapping, service
from marchproxy.cli.fields import Field, Fields, amend, grace, number, on_off, seconds
from marchproxy.model.entities import Interface, Mapping, Service
from marchproxy.model.errors import InvalidValue


@pytest.mark.parametrize(
    ("table", "entity"),
    [(service.FIELDS, Service), (mapping.FIELDS, Mapping), (interface.FIELDS, Interface)],
)
def test_every_field_of_the_model_has_a_flag(table: Fields, entity: type) -> None:
    # What `--to shop=90` says is the mapping's weights.
    assert {field.name for field in table} == {field.name for field in fields(entity)} - {"name", "weights"}


@pytest.mark.parametrize(
    ("add", "entity"), [(service.app, Service), (mapping.app, Mapping), (interface.app, Interface)]
)
def test_required_flags_are_the_fields_without_a_default(add: object, entity: type) -> None:
    required = {field.name for field in fields(entity) if field.default is MISSING} - {"name"}
    (command,) = [item for item in add.registered_commands if item.name == "add"]  # type: ignore[attr-defined]
    assert command.cls is not None
    # A redirect needs no destination; without one, `mapping add` says so itself.
    assert command.cls.required == required - {"destinations"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a"], ["a"]),
        (["a,b", "c"], ["a", "b", "c"]),
        ([" a , b "], ["a", "b"]),
        ([""], []),
        (["", "a"], ["a"]),
        (["a,"], ["a", ""]),
    ],
)
def test_split(values: list[str], expected: list[str]) -> None:
    assert Field("tags", "--tag", "T", "help", many=True).split(values) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("007", 7),
        ("", ""),
        ("-1", "-1"),
        ("5.0", "5.0"),
        ("٣", "٣"),
        ("9" * 18, int("9" * 18)),
        ("9" * 20, "9" * 20),
    ],
)
def test_number(text: str, value: int | str) -> None:
    assert number(text) == value


@pytest.mark.parametrize(("text", "value"), [("on", True), ("OFF", False), ("", ""), (" on ", True)])
def test_on_off(text: str, value: bool | str) -> None:
    assert on_off(text) == value


@pytest.mark.parametrize(("text", "value"), [("30", 30), ("30s", 30), ("2h", 7200), ("", "")])
def test_seconds(text: str, value: int | str) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize(("read", "text"), [(on_off, "yes"), (seconds, "soon"), (seconds, "-1s")])
def test_what_is_neither_is_refused(read: Callable[[str], object], text: str) -> None:
    with pytest.raises(InvalidValue):
        read(text)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"b": 2}, {"a": 1, "b": 2}),
        ({"a": 2}, {"a": 2}),
        ({"a": ""}, {}),
        ({"a": []}, {}),
        ({"a": False}, {"a": False}),
        ({"a": 0}, {"a": 0}),
    ],
)
def test_amend(changes: dict[str, object], expected: dict[str, object]) -> None:
    assert amend({"a": 1}, changes) == expected


def test_amend_keeps_an_empty_name_for_the_model_to_refuse() -> None:
    assert amend({"name": ""}, {"a": 1}) == {"name": "", "a": 1}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("grace:10m", "grace:600"),
        ("grace 10m", "grace:600"),
        ("Grace:30", "Grace:30"),
        ("keep", "keep"),
        ("cut", "cut"),
        ("", ""),
        ("later:5m", "later:5m"),
    ],
)
def test_a_grace_is_in_seconds(text: str, wanted: str) -> None:
    assert grace(text) == wanted


@pytest.mark.parametrize("text", ["grace:", "grace:soon", "grace 5 m 3"])
def test_what_is_no_grace(text: str) -> None:
    with pytest.raises(InvalidValue):
        grace(text)
