"""Blocks between real hosts: a source, a backend, a list that is replaced under load, an end by itself."""

import socket
from collections.abc import Iterator
from threading import Event, Thread

import pytest

from rig import Appliance, Rig, wait_for
from rig.traffic import TIMEOUT, Talk, ask_udp, fetch
from tests.namespace.conftest import define

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs")

VIP, WEB, ECHO = "10.1.0.1", 8080, 7007
BLOCKED, BACKEND = "10.1.0.2", "10.2.0.2"
PATIENCE = 0.4
"""Seconds that a client waits for an answer that should not come; one that comes takes a millisecond."""


@pytest.fixture(scope="module", params=["tc", "xdp", "sockets"])
def appliance(request: pytest.FixtureRequest, rig: Rig) -> Iterator[Appliance]:
    """The appliance of this module once in each tier."""
    tier = str(request.param)
    with Appliance(rig, name=f"block-{tier}") as built:
        define(built, mode="auto" if tier == "sockets" else tier)
        built.start(*(["--no-bpf"] if tier == "sockets" else []))
        yield built


@pytest.fixture(autouse=True)
def nothing_blocked(appliance: Appliance) -> Iterator[None]:
    yield
    for row in appliance.json("block", "list"):
        appliance.cli("block", "remove", row["name"], "--yes")


def answered(rig: Rig, address: str = VIP) -> bool:
    """Whether the client's datagram comes back soon: what it is asked for where it should not."""

    def ask() -> bool:
        try:
            return ask_udp(address, ECHO, b"?", timeout=PATIENCE) == b"?"
        except OSError:
            return False

    return rig.client.call(ask)


def get_through(rig: Rig, address: str = VIP) -> None:
    """The client's datagram comes back, however long that takes here."""
    assert rig.client.call(ask_udp, address, ECHO, b"?") == b"?"


def count(appliance: Appliance, reason: str) -> int:
    counters = appliance.json("status", check=False)["counters"]
    return int(counters.get(reason, {}).get("packets", 0))


@pytest.mark.parametrize(("blocked", "address"), [(BLOCKED, VIP), ("fd01::/64", "fd01::1")])
def test_blocked_client_gets_no_answer_and_is_shown(
    rig: Rig, appliance: Appliance, blocked: str, address: str
) -> None:
    get_through(rig, address)
    before = count(appliance, "BLOCKED_SOURCE")
    # The prefix around the client is that of the appliance itself.
    appliance.cli("block", "add", blocked, "--reason", "test", "--force")
    assert not answered(rig, address)
    assert count(appliance, "BLOCKED_SOURCE") > before

    def told() -> bool:
        rows = appliance.json("flows", "--denied", "--port", str(ECHO))
        return any((row["reason"], row["mapping"]) == ("BLOCKED_SOURCE", f"block:{blocked}") for row in rows)

    wait_for(told, "the refusal to be shown with what blocks")
    appliance.cli("block", "remove", blocked, "--yes")
    get_through(rig, address)


def test_flow_that_runs_is_cut(rig: Rig, appliance: Appliance) -> None:
    def live() -> list[object]:
        rows = appliance.json("flows", "--port", str(ECHO), "--protocol", "tcp")
        return [row for row in rows if row["state"] == "established"]

    talk = rig.client.call(Talk, VIP, ECHO)
    try:
        assert rig.client.call(talk.say, b"x") == b"x"
        assert len(live()) == 1
        appliance.cli("block", "add", BLOCKED)
        wait_for(lambda: not live(), "the flow to end")
    finally:
        talk.close()


def test_client_of_a_blocked_backend_is_refused_at_once(rig: Rig, appliance: Appliance) -> None:
    before = count(appliance, "BLOCKED_DESTINATION")
    appliance.cli("block", "import", "-", "--name", "backends", stdin=f"{BACKEND}\nfd02::2\n")
    with pytest.raises((ConnectionRefusedError, ConnectionResetError)):
        rig.client.call(fetch, VIP, WEB)
    assert count(appliance, "BLOCKED_DESTINATION") > before


def test_list_is_replaced_without_a_gap(rig: Rig, appliance: Appliance) -> None:
    stop, leaks = Event(), []

    def knock() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.002)
            while not stop.is_set():
                sock.sendto(b"?", (VIP, ECHO))
                try:
                    leaks.append(sock.recv(64))
                except TimeoutError:
                    continue

    def replace(turn: int) -> None:
        more = "".join(f"198.18.{turn}.{number}\n" for number in range(200))
        appliance.cli("block", "import", "-", "--name", "busy", stdin=f"{BLOCKED}\n{more}")

    replace(0)
    knocking = Thread(target=rig.client.call, args=(knock,))
    knocking.start()
    try:
        for turn in range(1, 6):
            replace(turn)
    finally:
        stop.set()
        knocking.join()
    assert leaks == []
    assert rig.clients[1].call(fetch, VIP, 8082)


def test_block_ends_by_itself(rig: Rig, appliance: Appliance) -> None:
    appliance.cli("block", "add", BLOCKED, "--ttl", "4s")
    assert not answered(rig)
    wait_for(lambda: answered(rig), "the block to end")


def test_nobody_locks_themselves_out(rig: Rig, appliance: Appliance) -> None:
    own = appliance.cli("block", "add", f"{VIP}/32", check=False)
    assert own.returncode == 4
    assert "an address of the appliance" in own.stderr
    with rig.middle.call(socket.create_server, (VIP, 22)) as server:
        appliance.cli("block", "add", "0.0.0.0/0", "--force")
        with rig.client.call(socket.create_connection, (VIP, 22), TIMEOUT), server.accept()[0]:
            assert not answered(rig)


def test_blocks_hold_while_the_daemon_is_killed_and_starts_again(rig: Rig, appliance: Appliance) -> None:
    sockets = appliance.json("status", check=False)["tier"] == "sockets"
    appliance.cli("block", "add", BLOCKED)
    appliance.cli("block", "import", "-", "--name", "more", stdin="198.18.0.0/15\n")
    appliance.kill9()
    assert not answered(rig)
    # Without the daemon the sockets tier carries nothing at all.
    assert sockets or rig.clients[1].call(fetch, VIP, 8082)
    appliance.start(*(["--no-bpf"] if sockets else []))
    assert not answered(rig)
    assert rig.clients[1].call(fetch, VIP, 8082)
