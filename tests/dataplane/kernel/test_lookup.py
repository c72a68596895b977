"""lookup: one socket receives for many addresses and ports, and for nothing else."""

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path

import pytest

from marchproxy.dataplane.kernel import lookup
from marchproxy.dataplane.kernel.errors import KernelError, NotSupported
from marchproxy.dataplane.kernel.lookup import Lookup, take_out
from marchproxy.dataplane.proxy.sockets import open_listener
from marchproxy.policy.plan import Listener
from tests.dataplane.kernel.support import ip
from tests.dataplane.loops import PATIENCE
from tests.dataplane.plans import listener, rule

pytestmark = pytest.mark.requires("root", "bpf", "bpffs", "netns", "sk_lookup", "ipv6")

PORTS = range(9000, 9500)


@pytest.fixture
def folder(bpffs: Path) -> Path:
    return bpffs / "lookup"


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def shared(folder: Path, namespace: None, opened: ExitStack) -> Lookup:
    made = Lookup(folder)
    opened.callback(made.close)
    assert made.ready()
    return made


def at(address: str, ports: Sequence[int] = PORTS) -> list[Listener]:
    return [listener(port, rule(), address=address) for port in ports]


def listening(opened: ExitStack, address: str, port: int = PORTS[0]) -> socket.socket:
    sock = open_listener(listener(port, rule(), address=address))
    opened.callback(sock.close)
    sock.settimeout(PATIENCE)
    return sock


def asked(sock: socket.socket, address: str, port: int) -> tuple[str, int]:
    """What a connection to there, accepted by `sock`, says was asked for."""
    with socket.create_connection((address, port), timeout=PATIENCE), sock.accept()[0] as accepted:
        host, there = accepted.getsockname()[:2]
        return host, there


def is_refused(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_one_socket_serves_every_port_of_a_range(shared: Lookup, opened: ExitStack, address: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    sock = listening(opened, address)
    shared.settle([(sock, at(address))])
    assert len(os.listdir("/proc/self/fd")) == before + 1
    for port in PORTS:
        assert asked(sock, address, port) == (address, port)
    assert is_refused(address, PORTS[0] - 1)
    assert is_refused(address, PORTS[-1] + 1)


@pytest.mark.parametrize(("wildcard", "own"), [("0.0.0.0", "127.0.0.9"), ("::", "2001:db8::9")])
def test_a_single_address_comes_before_every_address(
    shared: Lookup, opened: ExitStack, wildcard: str, own: str
) -> None:
    ip("address", "add", own, "dev", "lo", *(() if ip_address(own).version == 4 else ("nodad",)))
    every, single = listening(opened, wildcard), listening(opened, own, 9100)
    shared.settle([(every, at(wildcard)), (single, at(own, range(9100, 9200)))])
    loopback = "127.0.0.1" if ip_address(own).version == 4 else "::1"
    assert asked(every, loopback, 9150) == (loopback, 9150)
    assert asked(every, own, 9250) == (own, 9250)
    assert asked(single, own, 9150) == (own, 9150)


def test_a_wildcard_is_of_one_family(shared: Lookup, opened: ExitStack) -> None:
    sock = listening(opened, "0.0.0.0")
    shared.settle([(sock, at("0.0.0.0"))])
    assert is_refused("::1", 9100)
    assert asked(sock, "127.0.0.1", 9100) == ("127.0.0.1", 9100)


def test_what_is_not_among_its_listeners_goes_where_it_always_went(shared: Lookup, opened: ExitStack) -> None:
    other = listening(opened, "127.0.0.1", 9600)
    shared.settle([(listening(opened, "127.0.0.1"), at("127.0.0.1"))])
    assert asked(other, "127.0.0.1", 9600) == ("127.0.0.1", 9600)


def test_listeners_come_go_and_move_between_sockets(shared: Lookup, opened: ExitStack) -> None:
    whole = listening(opened, "127.0.0.1")
    shared.settle([(whole, at("127.0.0.1"))])
    upper = listening(opened, "127.0.0.1", 9300)
    shared.settle([(whole, at("127.0.0.1", range(9000, 9100))), (upper, at("127.0.0.1", range(9300, 9600)))])
    assert asked(whole, "127.0.0.1", 9050) == ("127.0.0.1", 9050)
    assert is_refused("127.0.0.1", 9150)
    assert asked(upper, "127.0.0.1", 9350) == ("127.0.0.1", 9350)
    assert asked(upper, "127.0.0.1", 9550) == ("127.0.0.1", 9550)


def test_who_holds_the_socket_goes_on_receiving_without_the_daemon(
    shared: Lookup, folder: Path, opened: ExitStack
) -> None:
    sock = listening(opened, "127.0.0.1")
    shared.settle([(sock, at("127.0.0.1"))])
    held = opened.enter_context(socket.socket(fileno=os.dup(sock.fileno())))
    held.settimeout(PATIENCE)
    sock.close()
    shared.close()
    assert asked(held, "127.0.0.1", 9400) == ("127.0.0.1", 9400)
    following = Lookup(folder)
    opened.callback(following.close)
    assert following.ready()
    assert asked(held, "127.0.0.1", 9400) == ("127.0.0.1", 9400)
    following.settle([(held, at("127.0.0.1", range(9000, 9010)))])
    assert asked(held, "127.0.0.1", 9009) == ("127.0.0.1", 9009)
    assert is_refused("127.0.0.1", 9400)


def test_a_closed_socket_receives_nothing_and_the_next_one_takes_its_place(
    shared: Lookup, opened: ExitStack
) -> None:
    first = listening(opened, "127.0.0.1")
    shared.settle([(first, at("127.0.0.1"))])
    first.close()
    assert is_refused("127.0.0.1", 9200)
    second = listening(opened, "127.0.0.1")
    shared.settle([(second, at("127.0.0.1"))])
    assert asked(second, "127.0.0.1", 9200) == ("127.0.0.1", 9200)


def test_nothing_served_is_nothing_left_in_the_kernel(
    shared: Lookup, folder: Path, opened: ExitStack
) -> None:
    sock = listening(opened, "127.0.0.1")
    shared.settle([(sock, at("127.0.0.1"))])
    shared.settle([])
    assert not folder.exists()
    assert is_refused("127.0.0.1", 9200)
    assert asked(sock, "127.0.0.1", 9000) == ("127.0.0.1", 9000)
    assert shared.ready()
    shared.settle([(sock, at("127.0.0.1"))])
    assert asked(sock, "127.0.0.1", 9200) == ("127.0.0.1", 9200)


def test_taken_out_it_is_off_while_others_hold_it(shared: Lookup, folder: Path, opened: ExitStack) -> None:
    sock = listening(opened, "127.0.0.1")
    shared.settle([(sock, at("127.0.0.1"))])
    assert take_out(folder)
    assert is_refused("127.0.0.1", 9200)
    assert not take_out(folder)


def test_what_was_pinned_for_another_namespace_is_attached_anew(
    shared: Lookup, folder: Path, opened: ExitStack
) -> None:
    shared.settle([(listening(opened, "127.0.0.1"), at("127.0.0.1"))])
    shared.close()
    with open("/proc/thread-self/ns/net") as before:
        os.unshare(os.CLONE_NEWNET)
        try:
            ip("link", "set", "lo", "up")
            here = Lookup(folder)
            opened.callback(here.close)
            assert here.ready()
            sock = listening(opened, "127.0.0.1")
            here.settle([(sock, at("127.0.0.1"))])
            assert asked(sock, "127.0.0.1", 9200) == ("127.0.0.1", 9200)
        finally:
            os.setns(before.fileno(), os.CLONE_NEWNET)


def test_a_kernel_without_it_is_no_error(
    folder: Path, namespace: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise NotSupported("attach to the network namespace")

    monkeypatch.setattr(lookup, "_attach", refuse)
    assert not Lookup(folder).ready()


def test_what_somebody_has_to_put_right_is_one(folder: Path, namespace: None, tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="cannot read the BPF object"):
        Lookup(folder, tmp_path).ready()
