from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.model.errors import InvalidValue
from marchproxy.model.names import (
    cluster_of,
    parse_interface_name,
    parse_name,
    parse_qualified,
    parse_reference,
    parse_references,
    parse_service_name,
    qualify,
)
from tests.model.strategies import NAMES, REFERENCES

BAD_NAMES = ["", "-a", ".a", "a b", "a/b", "a,b", "a:b", "é", "a\0", "x" * 64]


@given(NAMES)
def test_names_stay_as_they_are(name: str) -> None:
    assert parse_name(f" {name}\n") == name


@pytest.mark.parametrize("text", BAD_NAMES)
def test_refuses_names_that_a_list_or_a_path_could_not_hold(text: str) -> None:
    with pytest.raises(InvalidValue, match="name"):
        parse_name(text)


@pytest.mark.parametrize("text", ["all", "external", "ALL", "External", *BAD_NAMES])
def test_a_service_is_not_called_like_everyone(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_service_name(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("web", "web"), (" ALL ", "all"), ("External", "external"), ("collection:web", "collection:web")],
)
def test_references(text: str, expected: str) -> None:
    assert parse_reference(text, field="sources") == expected


@pytest.mark.parametrize("text", ["", "collection:", "collection:a b", "Collection:web", "a:b"])
def test_refuses_references_to_nothing(text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_reference(text, field="sources")
    assert caught.value.field == "sources"


@given(REFERENCES)
def test_references_stay_as_they_are(text: str) -> None:
    assert parse_reference(text, field="sources") == text


def test_lists_of_references_fold_and_sort() -> None:
    assert parse_references("b, a,b,ALL", field="from") == ("a", "all", "b")
    with pytest.raises(InvalidValue):
        parse_references("a,,b", field="from")


@pytest.mark.parametrize("name", ["eth0", "br-lan", "wan.7", "veth@1", "x" * 15])
def test_interface_names_that_the_kernel_takes(name: str) -> None:
    assert parse_interface_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a:b", "a b", "eth0 ", "x" * 16, "é" * 8, "a\0b", "a\x1b[2J"]
)
def test_interface_names_that_the_kernel_or_a_terminal_would_not_take(name: str) -> None:
    with pytest.raises(InvalidValue, match="interface"):
        parse_interface_name(name)


@given(st.text())
def test_no_text_is_too_strange_to_be_refused_properly(text: str) -> None:
    for parse in (parse_name, parse_service_name, parse_interface_name):
        with suppress(InvalidValue):
            assert parse(parse(text)) == parse(text)


@pytest.mark.parametrize(
    ("cluster", "name", "qualified"), [("default", "web", "web"), ("lab", "web", "lab/web")]
)
def test_only_other_clusters_are_named(cluster: str, name: str, qualified: str) -> None:
    assert qualify(cluster, name) == qualified
    assert cluster_of(qualified) == cluster


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("web", "web"), ("default/web", "web"), (" lab/web ", "lab/web"), ("lab/default", "lab/default")],
)
def test_names_across_clusters(text: str, canonical: str) -> None:
    assert parse_qualified(text, field="services") == canonical


@pytest.mark.parametrize("text", ["", "/web", "lab/", "a/b/c", "lab/all", "external", "a b", "collection:x"])
def test_what_is_no_name_across_clusters(text: str) -> None:
    with pytest.raises(InvalidValue, match="services"):
        parse_qualified(text, field="services")
