"""Which name an address was asked for by."""

from collections.abc import Iterable
from ipaddress import ip_address

import pytest

from marchproxy.dataplane import askednames
from marchproxy.dataplane.askednames import AskedNames
from marchproxy.model.address import IPAddress

ONE, TWO, THREE = (ip_address(f"192.0.2.{number}") for number in (1, 2, 3))


class Teacher:
    def __init__(self) -> None:
        self.taught: list[tuple[str, tuple[IPAddress, ...], float]] = []

    def refusal(self, name: str, address: IPAddress) -> str:
        return f"{name} may not be {address}"

    def learn(self, name: str, addresses: Iterable[IPAddress], ttl: float) -> int:
        self.taught.append((name, tuple(addresses), ttl))
        return 7


def test_it_passes_everything_on_and_remembers() -> None:
    teacher = Teacher()
    asked = AskedNames(teacher)
    assert asked.learn("api.example.com.", iter([ONE, TWO]), 30.0) == 7
    assert teacher.taught == [("api.example.com.", (ONE, TWO), 30.0)]
    assert (asked.name(ONE), asked.name(TWO), asked.name(THREE)) == ("api.example.com", "api.example.com", "")
    assert asked.refusal("a", ONE) == "a may not be 192.0.2.1"


def test_the_last_name_counts() -> None:
    asked = AskedNames(Teacher())
    asked.learn("old.example.com", [ONE], 1)
    asked.learn("new.example.com", [ONE], 1)
    assert asked.name(ONE) == "new.example.com"


def test_what_was_told_longest_ago_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(askednames, "KEPT", 2)
    asked = AskedNames(Teacher())
    for name, address in (("a", ONE), ("b", TWO), ("a", ONE), ("c", THREE)):
        asked.learn(name, [address], 1)
    assert (asked.name(ONE), asked.name(TWO), asked.name(THREE)) == ("a", "", "c")
