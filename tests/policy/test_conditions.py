"""What requests meet: what an allow is sure of, and what a deny takes for possible."""

import pytest

from marchproxy.policy.conditions import Conditions, Plain

type Fields = tuple[tuple[str, str], ...]


def wanted(methods: str = "", headers: str = "", query: str = "") -> Conditions:
    parts = [text.split("|") if text else [] for text in (methods, headers, query)]
    found = Conditions.of(*parts)
    assert found is not None
    return found


def both(conditions: Conditions, asked: Plain) -> tuple[bool, bool]:
    """Whether an allow takes the request, and whether a deny does."""
    return not conditions.unmet(asked, denies=False), not conditions.unmet(asked, denies=True)


def test_no_conditions_are_none() -> None:
    assert Conditions.of((), (), ()) is None


@pytest.mark.parametrize(
    ("method", "fields", "target", "met"),
    [
        ("DELETE", (), "/", (True, True)),
        ("GET", (), "/", (False, False)),
        ("delete", (), "/", (False, True)),
        ("POST", (("x-http-method-override", "DELETE"),), "/", (False, True)),
        ("POST", (("x_http_method_override", "delete"),), "/", (False, True)),
        ("POST", (("x-method-override", "PUT, DELETE"),), "/", (False, True)),
        ("POST", (), "/?_method=DELETE", (False, True)),
        ("POST", (), "/?a=1;%5Fmethod=dele%54e", (False, True)),
        ("DELETE", (("x-http-method-override", "GET"),), "/", (False, True)),
    ],
)
def test_methods(method: str, fields: Fields, target: str, met: tuple[bool, bool]) -> None:
    assert both(wanted("DELETE"), Plain(method, target, fields)) == met


def test_get_stands_for_head() -> None:
    assert both(wanted("GET"), Plain("HEAD")) == (True, True)
    assert both(wanted("HEAD"), Plain("GET")) == (False, False)


@pytest.mark.parametrize(
    ("fields", "met"),
    [
        ((("x-env", "beta"),), (True, True)),
        ((("x-env", "Beta"),), (False, True)),
        ((("x_env", "beta"),), (False, True)),
        ((("x-env", "beta"), ("x-env", "prod")), (False, True)),
        ((("x-env", "prod"), ("x-env", "beta")), (False, True)),
        ((("x-env", "beta"), ("x_env", "prod")), (False, True)),
        ((("x-env", "prod, beta"),), (False, True)),
        ((("x-env", "prod"),), (False, False)),
        ((), (False, False)),
    ],
)
def test_values_of_headers(fields: Fields, met: tuple[bool, bool]) -> None:
    assert both(wanted(headers="x-env: beta"), Plain(fields=fields)) == met


@pytest.mark.parametrize(
    ("fields", "present", "absent"),
    [
        ((("x-env", ""),), (True, True), (False, False)),
        ((("x_env", ""),), (False, True), (False, True)),
        ((), (False, False), (True, True)),
    ],
)
def test_presence_of_headers(fields: Fields, present: tuple[bool, bool], absent: tuple[bool, bool]) -> None:
    assert both(wanted(headers="x-env"), Plain(fields=fields)) == present
    assert both(wanted(headers="!x-env"), Plain(fields=fields)) == absent


@pytest.mark.parametrize(
    ("query", "met"),
    [
        ("v=2", (True, True)),
        ("a=1&v=2", (True, True)),
        ("%76=%32", (True, True)),
        ("V=2", (False, True)),
        ("v=1&v=2", (False, True)),
        ("v=2&v=1", (False, True)),
        ("v=2&V=1", (False, True)),
        ("a=1;v=2", (False, True)),
        ("v=2;v=1", (False, True)),
        ("%2576=2", (False, True)),
        ("v=%2532", (False, True)),
        ("a=1%26v=2", (False, True)),
        ("v%00x=2", (False, True)),
        ("v[]=2", (False, True)),
        ("v=2#", (False, False)),
        ("vv=2", (False, False)),
        ("v=22", (False, False)),
        ("", (False, False)),
    ],
)
def test_values_of_parameters(query: str, met: tuple[bool, bool]) -> None:
    assert both(wanted(query="v=2"), Plain(target=f"/x?{query}")) == met


def test_values_may_have_what_is_escaped() -> None:
    assert both(wanted(query="q=a+b %"), Plain(target="/?q=a%2Bb+%25")) == (True, True)


def test_presence_of_parameters() -> None:
    for query, present, absent in (
        ("debug", (True, True), (False, False)),
        ("debug=", (True, True), (False, False)),
        ("DEBUG=1", (False, True), (False, True)),
        ("", (False, False), (True, True)),
    ):
        assert both(wanted(query="debug"), Plain(target=f"/?{query}")) == present
        assert both(wanted(query="!debug"), Plain(target=f"/?{query}")) == absent


def test_all_have_to_be_met_and_those_that_are_not_are_named() -> None:
    conditions = wanted("GET|POST", "x-env: beta|!x-old", "v=2")
    assert conditions.count == 4
    assert conditions.unmet(Plain("PUT", "/?v=1", (("x-old", "1"),)), denies=False) == (
        "method",
        "header x-env",
        "header x-old",
        "query v",
    )
    assert conditions.words() == [
        "method GET or HEAD or POST",
        "header x-env: beta",
        "no header x-old",
        "query v=2",
    ]
