"""routewatch: everything that could lead a flow another way is heard."""

import errno
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from marchproxy.dataplane.kernel.routewatch import Changes, RouteWatch, message_types
from tests.dataplane.kernel.support import Wire, eventually, ip

pytestmark = pytest.mark.requires("root", "netns", "veth", "ipv6")


@pytest.fixture
def watch(wire: Wire) -> Iterator[RouteWatch]:
    ip("address", "add", "10.7.0.1/24", "dev", wire.near)
    ip("address", "add", "fd07::1/64", "dev", wire.near, "nodad")
    heard = RouteWatch()
    yield heard
    heard.close()


def hears(watch: RouteWatch, *, routes: bool) -> bool:
    """Whether the kind of change is heard soon."""

    def is_heard() -> bool:
        heard = watch.heard()
        return heard.routes if routes else heard.neighbours

    return eventually(is_heard)


@pytest.mark.parametrize(
    "command",
    [
        "link add fresh0 type veth peer name fresh1",
        "link set near0 down",
        "address add 10.8.0.1/24 dev near0",
        "address add fd08::1/64 dev near0 nodad",
        "route add 192.0.2.0/24 via 10.7.0.9",
        "route add 2001:db8::/32 via fd07::9",
        "rule add from 10.9.0.0/16 table 7",
        "-6 rule add from fd09::/16 table 7",
        "nexthop add id 7 via 10.7.0.9 dev near0",
    ],
)
def test_changes_of_routes(watch: RouteWatch, command: str) -> None:
    while watch.heard():
        pass
    ip(*command.split())
    assert hears(watch, routes=True)


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_forwarding_that_somebody_switches(watch: RouteWatch, family: str) -> None:
    setting = Path(f"/proc/sys/net/{family}/conf/near0/forwarding")
    while watch.heard():
        pass
    setting.write_text("0" if setting.read_text().strip() == "1" else "1")
    assert hears(watch, routes=True)


def test_changes_of_neighbours(watch: RouteWatch) -> None:
    ip("neighbour", "replace", "10.7.0.9", "lladdr", "02:00:00:00:00:09", "dev", "near0")
    assert hears(watch, routes=False)


def test_what_was_heard_is_told_once(watch: RouteWatch) -> None:
    ip("neighbour", "replace", "10.7.0.9", "lladdr", "02:00:00:00:00:09", "dev", "near0")
    assert hears(watch, routes=False)
    assert eventually(lambda: not watch.heard())


def test_what_the_kernel_had_to_drop_counts_as_everything(
    watch: RouteWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Overrun:
        def __init__(self) -> None:
            self.answers = [OSError(errno.ENOBUFS, "no buffer space"), BlockingIOError()]

        def recv(self, _: int) -> bytes:
            raise self.answers.pop(0)

    monkeypatch.setattr(watch, "_socket", Overrun())
    assert watch.heard() == Changes(routes=True, neighbours=True)
    monkeypatch.undo()


def test_a_flood_does_not_keep_it(watch: RouteWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless:
        def recv(self, _: int) -> bytes:
            return struct.pack("=IHHII", 16, 28, 0, 0, 0)

    monkeypatch.setattr(watch, "_socket", Endless())
    assert watch.heard() == Changes(neighbours=True)
    monkeypatch.undo()


def test_types_of_several_messages_in_a_datagram() -> None:
    first = struct.pack("=IHHII", 18, 24, 0, 0, 0) + b"ab" + bytes(2)
    assert list(message_types(first + struct.pack("=IHHII", 16, 28, 0, 0, 0))) == [24, 28]


@pytest.mark.parametrize("data", [b"", b"short", struct.pack("=IHHII", 3, 24, 0, 0, 0)])
def test_a_datagram_that_makes_no_sense_ends_the_reading(data: bytes) -> None:
    assert list(message_types(data)) == []


def test_a_socket_that_is_broken_is_an_error(namespace: None) -> None:
    broken = RouteWatch()
    broken.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        broken.heard()
