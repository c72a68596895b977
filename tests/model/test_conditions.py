"""What operators write about requests."""

import pytest

from marchproxy.model.conditions import (
    Condition,
    header_condition,
    parse_header_condition,
    parse_method,
    parse_query_condition,
    query_condition,
)
from marchproxy.model.errors import InvalidValue


def test_methods_are_in_upper_case() -> None:
    assert parse_method(" get ", field="methods") == "GET"


@pytest.mark.parametrize("text", ["", "GE T", "connect", "TRACE", "1GET", "GÉT", "A" * 40])
def test_what_is_no_method_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_method(text, field="methods")


@pytest.mark.parametrize(
    ("text", "canonical", "condition"),
    [
        ("X-Env:  beta ", "x-env: beta", Condition("x-env", "beta")),
        ("X-Time: 12:30, later", "x-time: 12:30, later", Condition("x-time", "12:30, later")),
        ("X-Env", "x-env", Condition("x-env")),
        (" !X-Env", "!x-env", Condition("x-env", None, absent=True)),
    ],
)
def test_headers(text: str, canonical: str, condition: Condition) -> None:
    assert parse_header_condition(text, field="headers") == canonical
    assert parse_header_condition(canonical, field="headers") == canonical
    assert header_condition(canonical) == condition


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "a b", "x:", "x: a\r\nb", "x: ü", "Host: a", "Connection", "content-length: 1", "te"),
        *("X-Forwarded-For: 1.2.3.4", "X_Forwarded_For", "Forwarded", "x-marchproxy-service: a", "!Host"),
    ],
)
def test_headers_that_nobody_may_look_at_are_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_header_condition(text, field="headers")


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("v=2", Condition("v", "2")),
        ("v=", Condition("v", "")),
        ("v=a=b", Condition("v", "a=b")),
        ("debug", Condition("debug")),
        ("!debug", Condition("debug", None, absent=True)),
    ],
)
def test_parameters(text: str, condition: Condition) -> None:
    assert parse_query_condition(text, field="query") == text
    assert query_condition(text) == condition


@pytest.mark.parametrize("text", ["", "=x", "!", "!a=b", "a&b", "a;b=1", "a\nb", "a[]=1"])
def test_what_is_no_parameter_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_query_condition(text, field="query")
