"""All names together: versions, wildcards, and the bound on everything."""

from ipaddress import ip_address

import pytest

from marchproxy.dataplane.names import table as module
from marchproxy.dataplane.names.held import LINGER
from marchproxy.dataplane.names.table import NameTable
from marchproxy.model.address import IPAddress

BOTH: frozenset[int] = frozenset()
NAMES = frozenset({"db.example.com", "*.example.com", "www.example.net"})


def a(*numbers: int) -> list[IPAddress]:
    return [ip_address(f"192.0.2.{number}") for number in numbers]


def table() -> NameTable:
    made = NameTable()
    assert made.keep(NAMES) == NAMES
    return made


def shown(made: NameTable) -> dict[str, list[int]]:
    return {name: [int(each) & 0xFF for each in found] for name, found in made.view.current.items()}


def test_a_view_stays_the_same_object_until_something_changes() -> None:
    made = table()
    before = made.view
    assert made.view is before
    assert made.answer("db.example.com", a(1), BOTH, 0)
    after = made.view
    assert after.version > before.version
    assert not made.answer("db.example.com", a(1), BOTH, 10)
    assert made.view is after
    assert before.current == {}


def test_a_client_teaches_the_name_and_every_wildcard_above_it() -> None:
    made = table()
    version = made.learn("db.example.com", a(7), 60, 0)
    assert shown(made) == {"db.example.com": [7], "*.example.com": [7]}
    assert version == made.view.version
    assert made.learn("a.b.example.com", a(8), 60, 0) == made.view.version
    assert shown(made) == {"db.example.com": [7], "*.example.com": [7, 8]}


def test_what_no_policy_asks_for_is_not_kept() -> None:
    made = table()
    before = made.view
    assert made.learn("example.com", a(7), 60, 0) == 0
    assert made.learn("www.example.org", a(7), 60, 0) == 0
    assert made.view is before


def test_known_addresses_do_not_make_a_new_version() -> None:
    made = table()
    first = made.learn("x.example.com", a(7), 60, 0)
    assert made.learn("y.example.com", a(7), 600, 0) == first
    assert made.view.version == first


def test_time_passes_for_those_that_are_due() -> None:
    made = table()
    made.learn("x.example.com", a(7), 60, 0)
    assert made.due(59) == []
    assert made.due(60) == ["*.example.com"]
    before = made.view
    assert not made.drop("*.example.com", 60)
    assert made.view is before
    # Its time is over, and nobody has said that it is no longer an address of such a name.
    assert (shown(made), made.view.lingering) == ({"*.example.com": [7]}, {})
    assert made.drop("*.example.com", 60 + LINGER)
    assert shown(made) == {}


def test_a_name_of_its_own_has_its_past_apart() -> None:
    made = table()
    made.learn("www.example.net", a(7), 60, 0)
    assert made.drop("www.example.net", 60)
    assert (shown(made), made.view.lingering) == ({}, {"www.example.net": tuple(a(7))})


def test_names_that_are_dropped_take_their_addresses_along() -> None:
    made = table()
    made.learn("x.example.com", a(7), 60, 0)
    version = made.view.version
    assert made.keep(frozenset({"db.example.com"})) == frozenset()
    assert (shown(made), list(made)) == ({}, ["db.example.com"])
    assert made.view.version > version
    assert made.learn("x.example.com", a(7), 60, 0) == 0


def test_all_names_together_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_TOGETHER", 4)
    made = table()
    made.learn("x.example.com", a(1, 2, 3), 60, 0)
    assert made.learn("y.example.com", a(4, 5), 60, 0) == 0
    assert made["*.example.com"].unlearned == 2
    # What is known is held for longer all the same.
    assert made.learn("y.example.com", a(3, 4), 600, 0) > 0
    assert made.due(60) == ["*.example.com"]
    made.drop("*.example.com", 60)
    assert shown(made) == {"*.example.com": [1, 2, 3]}
    made.keep(frozenset({"db.example.com"}))
    assert made.learn("db.example.com", a(1, 2, 3, 4), 60, 0) > 0


def test_addresses_of_an_earlier_daemon_show_at_once() -> None:
    made = table()
    made.restore("db.example.com", [(a(1)[0], 50.0, 90.0), (a(2)[0], -1.0, 40.0)], 10.0)
    assert (shown(made), made.view.lingering) == ({"db.example.com": [1]}, {"db.example.com": tuple(a(2))})
    assert "db.example.com" in made
