"""Changing the store, and telling the daemon."""

from collections.abc import Callable

import pytest

from marchproxy.cli import intent
from marchproxy.cli.errors import Declined, ExitCode, WrongUsage
from marchproxy.model.appliance import ApplianceListener, Block, BlockList, Limit, ListenerKind, Per
from marchproxy.model.change import Kind
from marchproxy.model.documents import Entity, read_service
from marchproxy.model.endpoint import parse_endpoint
from marchproxy.model.entities import Interface, Role
from marchproxy.model.errors import Conflict, NotFound
from marchproxy.model.snapshot import Cluster, Snapshot
from tests.cli.console import Answers, Console, Daemon

type Start = Callable[[Answers], Daemon]

WEB = read_service({"name": "web", "addresses": ["10.0.0.1"]})
HELD = Snapshot((Cluster("default", (WEB,)),))


def test_put_swap_and_drop() -> None:
    other = read_service({"name": "other", "addresses": ["10.0.0.2"]})
    both = intent.put(HELD, Kind.SERVICE, "default", other)
    assert intent.entities(both, Kind.SERVICE, "default") == (other, WEB)
    assert intent.find(both, Kind.SERVICE, "default", "web") is WEB
    changed = read_service({"name": "web", "addresses": ["10.0.0.9"]})
    assert intent.entities(intent.swap(HELD, Kind.SERVICE, "default", changed), Kind.SERVICE, "default") == (
        changed,
    )
    assert intent.drop(both, Kind.SERVICE, "default", "other") == HELD


def test_names_that_are_taken_or_missing() -> None:
    with pytest.raises(Conflict):
        intent.put(HELD, Kind.SERVICE, "default", WEB)
    with pytest.raises(NotFound) as caught:
        intent.find(HELD, Kind.SERVICE, "default", "wbe")
    assert caught.value.hint == "services: web"
    with pytest.raises(NotFound, match="cluster 'lab'"):
        intent.entities(HELD, Kind.MAPPING, "lab")
    with pytest.raises(NotFound) as caught:
        intent.find(HELD, Kind.INTERFACE, "", "eth0")
    assert caught.value.hint == "there are no interfaces yet"


def test_every_kind_of_the_appliance_is_put_swapped_and_dropped() -> None:
    """One way for all: what is named, in words, is the kind."""
    entities: tuple[Entity, ...] = (
        Block("192.0.2.1"),
        BlockList("bad", "0" * 64, 7),
        Limit("fast", Per.TOTAL, flows_per_second=9),
        ApplianceListener("dns@*:53", ListenerKind.DNS, parse_endpoint("*:53")),
        Interface("eth0", Role.INSIDE),
    )
    kinds = (Kind.BLOCK, Kind.BLOCK_LIST, Kind.LIMIT, Kind.LISTENER, Kind.INTERFACE)
    for kind, entity in zip(kinds, entities, strict=True):
        held = intent.put(Snapshot(), kind, "", entity)
        assert intent.entities(held, kind, "") == (entity,)
        assert intent.swap(held, kind, "", entity) == held
        assert intent.drop(held, kind, "", entity.name) == Snapshot()
        with pytest.raises(Conflict, match=f"{kind.label} '") as caught:
            intent.put(held, kind, "", entity)
        assert caught.value.hint == f"marchproxy {kind.label.split()[0]} list shows it"
        with pytest.raises(NotFound, match=f"{kind.label} 'other' does not exist"):
            intent.find(held, kind, "", "other")


def test_a_long_list_of_names_is_cut() -> None:
    many = tuple(read_service({"name": f"s{n:02}", "addresses": ["10.0.0.1"]}) for n in range(30))
    with pytest.raises(NotFound) as caught:
        intent.find(Snapshot((Cluster("default", many),)), Kind.SERVICE, "default", "x")
    assert caught.value.hint.endswith("s09 and 20 more")


def test_a_running_daemon_is_told(site: Console, daemon: Start) -> None:
    server = daemon({"POST /v1/reload": (200, {"revision": 3, "findings": []})})
    result = site.ok("service", "set", "web", "--port", "81", "-v")
    assert server.asked == [("POST /v1/reload", None)]
    assert result.err == "revision 3\nthe daemon has taken over revision 3\n"


def test_without_a_daemon_the_change_stands_and_is_no_failure(site: Console) -> None:
    result = site.ok("service", "set", "web", "--port", "81", "-v")
    assert "takes the revision over when it starts" in result.err


@pytest.mark.parametrize(
    "answer",
    [
        (409, {"error": {"name": "Conflict", "message": "address in use", "hint": "choose another"}}),
        b"garbage\r\n",
    ],
)
def test_a_daemon_that_refuses_makes_it_1_and_the_change_stands(
    site: Console, daemon: Start, answer: tuple[int, object] | bytes
) -> None:
    daemon({"POST /v1/reload": answer})
    result = site("service", "set", "web", "--port", "81")
    assert result.code == 1
    assert "revision 3\nwarning: stored, but not in force: " in result.err
    assert site.ok("service", "show", "web", "--output", "json").json["port"] == 81


def test_a_change_that_fails_tells_nobody(site: Console, daemon: Start) -> None:
    server = daemon({"POST /v1/reload": (200, {"revision": 3})})
    assert site("service", "set", "web", "--port", "0").code == 5
    assert server.asked == []


def test_confirm(console: Console) -> None:
    intent.confirm(console.environment(), "sure", True)
    with pytest.raises(WrongUsage, match="sure: this needs a yes"):
        intent.confirm(console.environment(stdin=b"y\n"), "sure", False)
    for answer in (b"y\n", b"YES \n"):
        intent.confirm(console.environment(stdin=answer, tty=True), "sure", False)
    for answer in (b"n\n", b"\n", b"", b"yep\n"):
        with pytest.raises(Declined):
            intent.confirm(console.environment(stdin=answer, tty=True), "sure", False)


def test_announce_without_a_daemon(console: Console) -> None:
    assert intent.announce(console.environment()) is ExitCode.DONE
