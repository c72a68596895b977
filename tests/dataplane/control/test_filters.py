"""Which records a query asks for."""

import pytest

from marchproxy.dataplane.control.filters import (
    read_filter,
    read_flag,
    read_grouping,
    read_limit,
    read_offset,
    read_order,
)
from marchproxy.dataplane.flowquery import FlowOrder, SortKey
from marchproxy.dataplane.toplists import TopOrder, TopQuestion
from marchproxy.model.errors import InvalidValue
from marchproxy.model.reason import Reason
from tests.dataplane.facts import decision

RECORD = decision("10.1.2.3", Reason.DENY_MAPPING, source_service="web", destination_service="shop/db")


@pytest.mark.parametrize(
    ("name", "text", "meant"),
    [
        ("source", "10.1.2.3", True),
        ("source", "10.1.0.0/16", True),
        ("source", "10.2.0.0/16", False),
        ("source", "2001:db8::/32", False),
        ("destination", "10.0.0.9", True),
        ("destination", "10.0.0.8", False),
        ("port", "443", True),
        ("port", "50000", True),
        ("port", "80", False),
        ("mapping", "m", True),
        ("mapping", "default", False),
        ("mapping", "other/m", False),
        ("service", "web", True),
        ("service", "shop/db", True),
        ("service", "other/db", False),
        ("reason", "DENY_MAPPING", True),
        ("reason", "deny_mapping", True),
        ("reason", "NO_MAPPING", False),
        ("protocol", "TCP", True),
        ("protocol", "udp", False),
        ("text", "10.1.2", True),
        ("text", "Shop", True),
        ("text", "deny_m", True),
        ("text", "mail.example.com", False),
    ],
)
def test_a_parameter_selects(name: str, text: str, meant: bool) -> None:
    assert read_filter({name: text}).matches(RECORD) is meant


def test_all_conditions_have_to_hold() -> None:
    assert read_filter({"port": "443", "service": "web"}).matches(RECORD)
    assert not read_filter({"port": "443", "service": "mail"}).matches(RECORD)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("source", "web"),
        ("source", "10.0.0.5/8"),
        ("destination", ""),
        ("port", "0"),
        ("port", "http"),
        ("reason", "BECAUSE"),
        ("sourc", "10.0.0.1"),
    ],
)
def test_what_cannot_be_meant_is_refused(name: str, text: str) -> None:
    with pytest.raises(InvalidValue):
        read_filter({name: text}, beside=frozenset({"limit"}))


def test_what_others_read_is_left_to_them() -> None:
    assert not read_filter({"limit": "5"}, beside=frozenset({"limit"}))


def test_the_limit_is_a_number_with_bounds() -> None:
    assert (read_limit({}), read_limit({"limit": "1"}), read_limit({"limit": "1000000"})) == (1000, 1, 10**6)
    for text in ("0", "-1", "1000001", "many", "", "9" * 5000, "\u0661"):
        with pytest.raises(InvalidValue):
            read_limit({"limit": text})


def test_the_offset_may_be_nothing() -> None:
    assert (read_offset({}), read_offset({"offset": "0"}), read_offset({"offset": "70"})) == (0, 0, 70)
    for text in ("-1", "1000001", ""):
        with pytest.raises(InvalidValue):
            read_offset({"offset": text})


def test_an_order_may_be_turned_round() -> None:
    assert read_order({}) is None
    assert read_order({"sort": "-bytes"}) == FlowOrder(SortKey.BYTES, descending=True)
    assert read_order({"sort": "last_seen"}) == FlowOrder(SortKey.LAST_SEEN)
    for text in ("", "-", "--bytes", "state"):
        with pytest.raises(InvalidValue, match="sort"):
            read_order({"sort": text})


def test_a_grouping_has_an_order() -> None:
    assert read_grouping({}) == (TopQuestion("service"), TopOrder.BYTES_PER_S)
    assert read_grouping({"by": "reason", "sort": "packets"}) == (TopQuestion("reason"), TopOrder.PACKETS)
    assert read_grouping({"by": "source", "denied": "1"})[0] == TopQuestion("source", denied=True)
    for query in ({"by": "port"}, {"sort": "-bytes"}):
        with pytest.raises(InvalidValue):
            read_grouping(query)


def test_a_flag_is_zero_or_one() -> None:
    assert (read_flag({}, "denied"), read_flag({"denied": "1"}, "denied")) == (False, True)
    with pytest.raises(InvalidValue):
        read_flag({"denied": "yes"}, "denied")
