"""Names over time: new, moved, failing, lingering, forgotten, remembered. Lookups are a table here."""

import asyncio
import time
from collections.abc import Sequence
from ipaddress import ip_address
from math import inf
from pathlib import Path
from typing import Any

import pytest

from marchproxy.dataplane.names import held, memory
from marchproxy.dataplane.names import resolver as module
from marchproxy.dataplane.names.found import Failure, Found, LookupFailed
from marchproxy.dataplane.names.resolver import Resolver
from marchproxy.dataplane.names.system import SystemUpstreams
from marchproxy.model.address import IPAddress
from marchproxy.model.appliance import Settings
from tests.dataplane.loops import PATIENCE, looped, until
from tests.dataplane.names.dns_server import dns_server


class Directory:
    """What the names are, and which of them nobody answers for now."""

    def __init__(self, **entries: Sequence[str]) -> None:
        self.entries = dict(entries)
        self.speaks = asyncio.Event()
        self.asked: list[str] = []
        self.failure = Failure.NXDOMAIN
        self.is_local = False

    async def find(self, name: str) -> Found:
        self.asked.append(name)
        if name == "slow":
            await self.speaks.wait()
        if name not in self.entries:
            raise LookupFailed(self.failure)
        return Found(tuple(map(ip_address, self.entries[name])), 0.005, is_local=self.is_local)


def make(**options: Any) -> Resolver:
    """A resolver that knows nothing of the machine's own addresses."""
    return Resolver(**{"own": lambda _: False} | options)


def shown(resolver: Resolver) -> dict[str, list[str]]:
    return {name: [str(address) for address in found] for name, found in resolver.view.current.items()}


def lingering(resolver: Resolver) -> dict[str, list[str]]:
    return {name: [str(address) for address in found] for name, found in resolver.view.lingering.items()}


def messages(resolver: Resolver) -> list[str]:
    return [problem.message for problem in resolver.problems()]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK", 0.005)
    monkeypatch.setattr(module, "SAVE_EVERY", 0.0)
    monkeypatch.setattr("marchproxy.dataplane.names.following.FIRST_RETRY", 0.005)
    monkeypatch.setattr("marchproxy.dataplane.names.following.LAST_RETRY", 0.005)


@looped
async def test_new_names_are_waited_for() -> None:
    directory = Directory(db=["192.0.2.2", "2001:db8::1", "192.0.2.1", "192.0.2.2"])
    resolver = make(find=directory.find)
    await resolver.watch(frozenset({"db"}), wait=10)
    assert shown(resolver) == {"db": ["192.0.2.1", "192.0.2.2", "2001:db8::1"]}
    assert resolver.problems() == []
    (state,) = resolver.states()
    assert (state.name, state.state, state.error, len(state.addresses)) == ("db", "resolved", "", 3)
    await resolver.close()


@looped
async def test_a_name_that_fails_keeps_its_last_good_addresses_and_says_since_when() -> None:
    directory = Directory(db=["192.0.2.1"])
    resolver = make(find=directory.find, shortest=0.005)
    await resolver.watch(frozenset({"db", "gone"}), wait=10)
    (problem,) = messages(resolver)
    assert problem.startswith("gone does not resolve: the name does not exist, since 2")
    assert problem.endswith("; nothing is allowed by it")
    address = directory.entries.pop("db")
    await until(lambda: len(resolver.problems()) == 2)
    assert shown(resolver) == {"db": ["192.0.2.1"]}
    assert messages(resolver)[0].endswith("; its last good addresses stay in use")
    states = {state.name: state for state in resolver.states()}
    assert (states["db"].state, states["db"].error) == ("failing", "the name does not exist")
    since = states["db"].since
    asked = len(directory.asked)
    await until(lambda: len(directory.asked) > asked + 3)
    assert {state.name: state for state in resolver.states()}["db"].since == since
    directory.entries |= {"db": address, "gone": ["192.0.2.9"]}
    await until(lambda: not resolver.problems())
    assert shown(resolver) == {"db": ["192.0.2.1"], "gone": ["192.0.2.9"]}
    await resolver.close()


@looped
async def test_a_name_that_moves_is_followed_and_its_old_address_lingers() -> None:
    directory = Directory(db=["192.0.2.1"])
    resolver = make(find=directory.find, shortest=0.005)
    await resolver.watch(frozenset({"db"}), wait=10)
    before = resolver.view
    directory.entries["db"] = ["192.0.2.7"]
    await until(lambda: shown(resolver) == {"db": ["192.0.2.7"]})
    assert lingering(resolver) == {"db": ["192.0.2.1"]}
    assert resolver.view.version > before.version
    await resolver.close()


@looped
async def test_an_address_in_use_lingers_until_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "LINGER", 0.01)
    monkeypatch.setattr(module, "POSTPONED", 0.005)
    used = {ip_address("192.0.2.1")}
    questions: list[frozenset[IPAddress]] = []

    async def in_use(addresses: frozenset[IPAddress]) -> frozenset[IPAddress]:
        questions.append(addresses)
        return addresses & used

    directory = Directory(db=["192.0.2.1", "192.0.2.2"])
    resolver = make(find=directory.find, in_use=in_use, shortest=0.005)
    await resolver.watch(frozenset({"db"}), wait=10)
    directory.entries["db"] = ["192.0.2.3"]
    await until(lambda: lingering(resolver) == {"db": ["192.0.2.1"]}, "the unused address to go")
    asked = len(questions)
    await until(lambda: len(questions) > asked + 2)
    assert lingering(resolver) == {"db": ["192.0.2.1"]}
    used.clear()
    await until(lambda: lingering(resolver) == {})
    await resolver.close()


@looped
async def test_names_no_longer_watched_are_not_asked_again() -> None:
    directory = Directory(one=["192.0.2.1"], two=["192.0.2.2"])
    resolver = make(find=directory.find, shortest=0.005)
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
    resolver = make(find=directory.find)
    await resolver.watch(frozenset({"slow", "db"}), wait=1.0)
    assert shown(resolver) == {"db": ["192.0.2.1"]}
    assert {state.name: state.state for state in resolver.states()} == {"db": "resolved", "slow": "waiting"}
    directory.speaks.set()
    await until(lambda: "slow" in shown(resolver))
    await resolver.close()


@looped
async def test_a_lookup_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    resolver = make(find=Directory().find)
    await resolver.watch(frozenset({"slow"}), wait=10)
    (state,) = resolver.states()
    assert (state.state, state.error) == ("failing", "the resolver does not answer")
    await resolver.close()


@looped
async def test_thousands_of_names_are_asked_for_a_few_at_a_time() -> None:
    running = most = 0

    async def find(name: str) -> Found:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return Found((ip_address("192.0.2.1"),), 60)

    resolver = make(find=find)
    await resolver.watch(frozenset(f"h{number}.example.com" for number in range(5000)), wait=15)
    assert len(resolver.view.current) == 5000
    assert most <= module.AT_ONCE
    await resolver.close()


@looped
async def test_addresses_that_point_inside_are_refused_until_they_are_allowed() -> None:
    directory = Directory(db=["10.0.0.7", "192.0.2.1"], lan=["10.0.0.8"])
    resolver = make(find=directory.find, shortest=0.005)
    await resolver.watch(frozenset({"db", "lan"}), wait=10)
    assert shown(resolver) == {"db": ["192.0.2.1"]}
    said = "\n".join(messages(resolver))
    assert "lan does not resolve: its addresses are refused" in said
    assert "db may not resolve to inside addresses: 10.0.0.7 is a private address" in said
    resolver.configure(Settings(private_answers=("lan",)))
    await until(lambda: shown(resolver) == {"db": ["192.0.2.1"], "lan": ["10.0.0.8"]})
    assert "lan" not in "\n".join(messages(resolver))
    resolver.configure(Settings())
    assert shown(resolver) == {"db": ["192.0.2.1"]}
    await resolver.close()


@looped
async def test_what_the_hosts_file_says_is_the_operators_word() -> None:
    directory = Directory(db=["10.0.0.7"])
    directory.is_local = True
    resolver = make(find=directory.find)
    await resolver.watch(frozenset({"db"}), wait=10)
    assert (shown(resolver), resolver.problems()) == ({"db": ["10.0.0.7"]}, [])
    await resolver.close()


@looped
async def test_wildcards_are_learned_and_not_asked_for() -> None:
    directory = Directory()
    resolver = make(find=directory.find)
    await resolver.watch(frozenset({"*.example.com"}), wait=10)
    assert resolver.learn("www.example.org", [ip_address("192.0.2.1")], 60) == 0
    version = resolver.learn("www.example.com", [ip_address("192.0.2.1")], 60)
    assert version == resolver.view.version > 0
    assert shown(resolver) == {"*.example.com": ["192.0.2.1"]}
    assert directory.asked == []
    (state,) = resolver.states()
    assert state.state == "learning"
    assert 50 < (state.addresses[0].left or 0) <= 60
    await resolver.close()


@looped
async def test_a_wildcard_without_room_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "MOST", 2)
    resolver = make(find=Directory().find)
    await resolver.watch(frozenset({"*.example.com"}), wait=0)
    resolver.learn("www.example.com", [ip_address(f"192.0.2.{number}") for number in range(1, 5)], 60)
    (problem,) = messages(resolver)
    assert problem.startswith("*.example.com has")
    assert len(shown(resolver)["*.example.com"]) == 2
    await resolver.close()


@looped
async def test_answers_outlive_a_restart_with_the_resolver_down(tmp_path: Path) -> None:
    file = tmp_path / "names.json"
    names = frozenset({"db", "*.example.com"})
    first = make(find=Directory(db=["192.0.2.1"]).find, kept_in=file)
    await first.watch(names, wait=10)
    first.learn("www.example.com", [ip_address("192.0.2.9")], 600)
    await until(file.exists)
    await first.close()
    empty = Directory()
    empty.failure = Failure.TIMEOUT
    second = make(find=empty.find, kept_in=file)
    await second.watch(names, wait=10)
    assert shown(second) == {"db": ["192.0.2.1"], "*.example.com": ["192.0.2.9"]}
    await until(lambda: bool(second.problems()))
    assert shown(second)["db"] == ["192.0.2.1"]
    await second.close()


@looped
async def test_what_may_no_longer_be_an_address_is_not_remembered(tmp_path: Path) -> None:
    file = tmp_path / "names.json"
    rows = [(ip_address(text), inf, inf) for text in ("10.0.0.1", "192.0.2.1")]
    memory.write(file, {"db": rows, "other": rows}, time.time())
    empty = Directory()
    resolver = make(find=empty.find, kept_in=file)
    await resolver.watch(frozenset({"db"}), wait=0)
    assert shown(resolver) == {"db": ["192.0.2.1"]}
    await resolver.close()


@looped
async def test_a_file_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    resolver = make(find=Directory(db=["192.0.2.1"]).find, kept_in=tmp_path / "gone" / "names.json")
    await resolver.watch(frozenset({"db"}), wait=10)
    await until(lambda: bool(resolver.problems()))
    assert messages(resolver)[0].startswith("answers are not kept for the next start: ")
    await resolver.close()


@looped
async def test_closing_does_not_wait_for_an_answer() -> None:
    resolver = make(find=Directory().find)
    await resolver.watch(frozenset({"slow"}), wait=0.01)
    async with asyncio.timeout(PATIENCE):
        await resolver.close()


@looped
async def test_real_servers_are_those_of_the_settings_and_one_problem_when_they_are_silent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    patience = tmp_path / "resolv.conf"
    patience.write_text("options timeout:1 attempts:1\n")
    monkeypatch.setattr(module, "SystemUpstreams", lambda: SystemUpstreams(patience))
    # Also after an answer: the server that comes back may be asked before it knows the names.
    for name in ("SILENT_RETRY", "LAST_RETRY"):
        monkeypatch.setattr(f"marchproxy.dataplane.names.following.{name}", 0.01)
    async with dns_server() as server:
        server.has("db.example.com", "192.0.2.1", ttl=0)
        server.has("www.example.com", "192.0.2.2", ttl=0)
        resolver = make(shortest=0.01)
        resolver.configure(Settings(resolvers=(str(server.endpoint),)))
        await resolver.watch(frozenset({"db.example.com", "www.example.com"}), wait=10)
        assert shown(resolver) == {"db.example.com": ["192.0.2.1"], "www.example.com": ["192.0.2.2"]}
    await until(lambda: bool(resolver.problems()))
    await until(lambda: all(state.state == "failing" for state in resolver.states()))
    assert messages(resolver) == [
        f"DNS server {server.endpoint}: the resolver cannot be reached; "
        "the last good addresses of names stay in use"
    ]
    async with dns_server(server.endpoint.port) as again:
        again.has("db.example.com", "192.0.2.3", ttl=0)
        again.has("www.example.com", "192.0.2.2", ttl=0)
        await until(lambda: shown(resolver).get("db.example.com") == ["192.0.2.3"])
        await until(lambda: not resolver.problems())
    await resolver.close()


@looped
async def test_what_nobody_thought_of_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    directory = Directory(db=["192.0.2.1"])
    broken = True

    async def find(name: str) -> Found:
        if broken:
            raise ZeroDivisionError("odd")
        return await directory.find(name)

    resolver = make(find=find, shortest=0.005)
    await resolver.watch(frozenset({"db"}), wait=10)
    assert resolver.states()[0].error == "the resolver's answer cannot be read"
    assert "ZeroDivisionError: odd" in caplog.text
    broken = False
    await until(lambda: shown(resolver) == {"db": ["192.0.2.1"]})
    await resolver.close()


@looped
async def test_a_tier_that_cannot_say_what_is_in_use_keeps_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(held, "LINGER", 0.01)
    failing = True

    async def in_use(addresses: frozenset[IPAddress]) -> frozenset[IPAddress]:
        if failing:
            raise OSError("no map")
        return frozenset()

    directory = Directory(db=["192.0.2.1"])
    resolver = make(find=directory.find, in_use=in_use, shortest=0.005)
    await resolver.watch(frozenset({"db"}), wait=10)
    directory.entries["db"] = ["192.0.2.2"]
    await until(lambda: bool(resolver.problems()))
    assert messages(resolver)[0].endswith("so old ones stay: OSError: no map")
    assert lingering(resolver) == {"db": ["192.0.2.1"]}
    failing = False
    await until(lambda: lingering(resolver) == {})
    await until(lambda: not resolver.problems())
    await resolver.close()


@looped
async def test_private_addresses_of_a_wildcard_outlive_a_restart_where_they_are_allowed(
    tmp_path: Path,
) -> None:
    file, names = tmp_path / "names.json", frozenset({"*.corp.example"})
    for allowed in ("db.corp.example", "*.corp.example"):
        settings = Settings(private_answers=(allowed,))
        first = make(find=Directory().find, kept_in=file)
        first.configure(settings)
        await first.watch(names, wait=0)
        first.learn("db.corp.example", [ip_address("10.0.0.7")], 600)
        await first.close()
        second = make(find=Directory().find, kept_in=file)
        second.configure(settings)
        await second.watch(names, wait=0)
        assert shown(second) == {"*.corp.example": ["10.0.0.7"]}
        second.configure(Settings())
        assert shown(second) == {}
        await second.close()
