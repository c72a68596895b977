"""Host names over time: new, moved, failing, forgotten. The resolver is a table in these tests."""

import asyncio
import socket
import threading
from collections.abc import Sequence
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.names import Resolver, look_up
from marchproxy.model.address import IPAddress
from tests.dataplane.loops import looped, until


class Directory:
    """What the names are, and which of them nobody answers for now."""

    def __init__(self, **entries: Sequence[str]) -> None:
        self.entries = dict(entries)
        self.silent = threading.Event()
        self.silent.set()
        self.asked: list[str] = []

    def __call__(self, name: str) -> list[IPAddress]:
        self.asked.append(name)
        if name == "slow":
            self.silent.wait(10)
        if name not in self.entries:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [ip_address(text) for text in self.entries[name]]


def shown(resolver: Resolver) -> dict[str, list[str]]:
    return {name: [str(address) for address in found] for name, found in resolver.addresses.items()}


@looped
async def test_new_names_are_waited_for() -> None:
    directory = Directory(db=["192.0.2.2", "2001:db8::1", "192.0.2.1", "192.0.2.2"])
    resolver = Resolver(lookup=directory)
    await resolver.watch(frozenset({"db"}), wait=10)
    assert shown(resolver) == {"db": ["192.0.2.1", "192.0.2.2", "2001:db8::1"]}
    assert resolver.problems() == []
    await resolver.close()


@looped
async def test_a_name_that_fails_keeps_its_last_good_addresses_and_says_so() -> None:
    directory = Directory(db=["192.0.2.1"])
    resolver = Resolver(lookup=directory, interval=0.005)
    await resolver.watch(frozenset({"db", "gone"}), wait=10)
    assert [str(problem) for problem in resolver.problems()] == [
        "names: gone does not resolve: Name or service not known"
    ]
    address = directory.entries.pop("db")
    await until(lambda: len(resolver.problems()) == 2)
    assert shown(resolver) == {"db": ["192.0.2.1"]}
    assert "db does not resolve: Name or service not known; its last 1 addresses stay in use" in [
        problem.message for problem in resolver.problems()
    ]
    directory.entries |= {"db": address, "gone": ["192.0.2.9"]}
    await until(lambda: not resolver.problems())
    assert shown(resolver) == {"db": ["192.0.2.1"], "gone": ["192.0.2.9"]}
    await resolver.close()


@looped
async def test_a_name_that_moves_is_followed() -> None:
    directory = Directory(db=["192.0.2.1"])
    resolver = Resolver(lookup=directory, interval=0.005)
    await resolver.watch(frozenset({"db"}), wait=10)
    directory.entries["db"] = ["192.0.2.7"]
    await until(lambda: shown(resolver) == {"db": ["192.0.2.7"]})
    await resolver.close()


@looped
async def test_names_no_longer_watched_are_not_asked_again() -> None:
    directory = Directory(one=["192.0.2.1"], two=["192.0.2.2"])
    resolver = Resolver(lookup=directory, interval=0.005)
    await resolver.watch(frozenset({"one", "two"}), wait=10)
    await resolver.watch(frozenset({"two"}), wait=10)
    assert shown(resolver) == {"two": ["192.0.2.2"]}
    directory.asked.clear()
    await until(lambda: len(directory.asked) > 3)
    assert set(directory.asked) == {"two"}
    await resolver.close()


@looped
async def test_a_silent_resolver_holds_nobody_up() -> None:
    directory = Directory(slow=["192.0.2.3"], db=["192.0.2.1"])
    directory.silent.clear()
    resolver = Resolver(lookup=directory)
    await resolver.watch(frozenset({"slow", "db"}), wait=0.05)
    assert shown(resolver) == {"db": ["192.0.2.1"]}
    directory.silent.set()
    await until(lambda: "slow" in shown(resolver))
    await resolver.close()


@looped
async def test_closing_does_not_wait_for_an_answer() -> None:
    directory = Directory()
    directory.silent.clear()
    resolver = Resolver(lookup=directory)
    await resolver.watch(frozenset({"slow"}), wait=0.01)
    async with asyncio.timeout(2):
        await resolver.close()
    directory.silent.set()


def test_the_hosts_own_resolver_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ip_address("127.0.0.1") in set(look_up("localhost"))

    def answers(*_: object, **__: object) -> list[object]:
        texts = ("fe80::1%eth0", "::ffff:192.0.2.1", "2001:db8::1")
        return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (text, 0, 0, 0)) for text in texts]

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    assert [str(address) for address in look_up("any")] == ["192.0.2.1", "2001:db8::1"]
