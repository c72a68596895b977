"""YAML as far as configuration needs it."""

from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.cli.errors import InvalidFile
from marchproxy.cli.yamldoc import MAX_DEPTH, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("# only a remark", None),
        ("a:", {"a": None}),
        ("a: ~", {"a": None}),
        ("a: null", {"a": None}),
        ("a: true\nb: false", {"a": True, "b": False}),
        ("a: no\nb: on\nc: Yes", {"a": "no", "b": "on", "c": "Yes"}),
        ("a: 80\nb: -1", {"a": 80, "b": -1}),
        ("a: '80'\nb: \"true\"", {"a": "80", "b": "true"}),
        ("a: ! 80", {"a": "80"}),
        ("a: 0x10\nb: 1_000\nc: 22:22\nd: 1.5", {"a": "0x10", "b": "1_000", "c": "22:22", "d": "1.5"}),
        ("a: 2031-01-01T00:00:00Z", {"a": "2031-01-01T00:00:00Z"}),
        ("a: fd00::1\nb: 10.0.0.0/8", {"a": "fd00::1", "b": "10.0.0.0/8"}),
        ("a: [1, [2], {b: c}]", {"a": [1, [2], {"b": "c"}]}),
        ("- a\n- b: 1\n  c: 2", ["a", {"b": 1, "c": 2}]),
        ("a: |\n  x\n  y\n", {"a": "x\ny\n"}),
        ("---\na: 1\n...\n", {"a": 1}),
        ("a: " + "9" * 30, {"a": "9" * 30}),
    ],
)
def test_values(text: str, value: Any) -> None:
    assert read_yaml(text) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' is given twice"),
        ("a:\n  - {b: 1, b: 2}", "line 2: the key 'b' is given twice"),
        ("a: &x 1\nb: *x", "line 1: aliases"),
        ("a: *x", "line 1: aliases"),
        ("a: !!python/object:os.system {}", "line 1: the tag"),
        ("a: !!binary aGk=", "line 1: the tag"),
        ("1: a", "line 1: a key is not text"),
        ("? [a]\n: b", "line 1: a key is not text"),
        ("a: 1\n---\nb: 2", "line 2: a second document"),
        ("a: [1, 2\n", "line 2: "),
        ("a: b: c", "line 1: "),
        ("a:\n\tb: c", "line 2: "),
        ("a: *:80", "line 1: "),
        ("a: \x00", "control characters"),
    ],
)
def test_what_is_refused_is_named_by_line(text: str, says: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        read_yaml(text)
    assert says in caught.value.message


@pytest.mark.parametrize("piece", ["[", "{a: ", "- ", "a: [", "? "])
def test_depth_is_limited_where_pyyaml_crashes(piece: str) -> None:
    with pytest.raises(InvalidFile):
        read_yaml(piece * 100_000)


def test_the_deepest_that_is_read() -> None:
    assert read_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None
    with pytest.raises(InvalidFile, match=f"deeper than {MAX_DEPTH}"):
        read_yaml("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))


def test_a_billion_laughs_are_none() -> None:
    lines = ["a0: &a0 [lol, lol]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))]
    with pytest.raises(InvalidFile, match="line 1: aliases"):
        read_yaml("\n".join(lines))


texts = st.text(st.characters(codec="utf-8", categories=("L", "M", "N", "P", "S", "Zs")), max_size=20)
documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(documents)
def test_what_export_writes_is_read_back(document: Any) -> None:
    text = yaml.dump(document, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True)
    assert read_yaml(text) == document


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(InvalidFile):
        read_yaml(text)
