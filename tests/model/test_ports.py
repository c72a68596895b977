from itertools import pairwise

import pytest
from hypothesis import given

from marchproxy.model.errors import InvalidValue
from marchproxy.model.ports import PortRange, Ports, format_ports, parse_port, parse_ports, single_port
from tests.model.strategies import ports


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("443", "443"),
        ("443,8000-8100", "443,8000-8100"),
        ("8000-8100, 443", "443,8000-8100"),
        ("22,443,8000-8100", "22,443,8000-8100"),
        ("80,80,80-80", "80"),
        ("1-3,2-5", "1-5"),
        ("443,444,445", "443-445"),
        ("1-65535", "1-65535"),
        (" 80 , 90 - 95 ", "80,90-95"),
    ],
)
def test_equal_sets_are_equal_values(text: str, canonical: str) -> None:
    assert format_ports(parse_ports(text)) == canonical
    assert parse_ports(canonical) == parse_ports(text)


@given(ports())
def test_a_set_holds_what_its_text_names_and_nothing_else(text: str) -> None:
    named = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        named |= set(range(int(first), int(last or first) + 1))
    parsed = parse_ports(text)
    assert sum(item.last - item.first + 1 for item in parsed) == len(named)
    assert all(item.first in named and item.last in named for item in parsed)
    assert all(earlier.last + 1 < later.first for earlier, later in pairwise(parsed))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "65536",
        "-5",
        "1-",
        "80,",
        ",80",
        "90-80",
        "1-2-3",
        "http",
        "8.5",
        "٣",
        "+80",
        "1_000",
        "9" * 5000,
    ],
)
def test_refuses_what_is_no_port(text: str) -> None:
    with pytest.raises(InvalidValue, match="ports"):
        parse_ports(text)


def test_a_range_the_wrong_way_round_is_turned_in_the_hint() -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_ports("443,8100-8000")
    assert caught.value.value == "8100-8000"
    assert "8000-8100" in caught.value.hint


@pytest.mark.parametrize("value", [True, None, 0, 65536, "", 80.0, "80.0", []])
def test_one_port_is_a_whole_number_in_range(value: object) -> None:
    with pytest.raises(InvalidValue, match="port"):
        parse_port(value)  # type: ignore[arg-type]


def test_one_port_from_text_or_number() -> None:
    assert (parse_port(" 443 "), parse_port(1), parse_port(65535), parse_port("0080")) == (443, 1, 65535, 80)


@pytest.mark.parametrize(
    ("held", "only"), [((), None), ((PortRange(80, 80),), 80), ((PortRange(80, 81),), None)]
)
def test_the_only_port_of_a_set(held: Ports, only: int | None) -> None:
    assert single_port(held) == only
    assert single_port((*held, PortRange(90, 90), PortRange(95, 95))) is None


def test_both_ends_belong_to_a_range() -> None:
    assert [port in PortRange(80, 82) for port in (79, 80, 82, 83)] == [False, True, True, False]


def test_a_range_is_each_of_its_ports() -> None:
    assert (list(PortRange(80, 82)), len(PortRange(80, 82)), len(PortRange(80, 80))) == ([80, 81, 82], 3, 1)
