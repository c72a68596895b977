"""What is established goes on, whatever happens to the daemon, the policy or the interfaces."""

import threading
from collections.abc import Callable, Iterator

import pytest

from rig import Appliance, Rig, wait_for
from rig.payload import digest
from rig.traffic import HTTP, Talk, fetch
from rig.waiting import PATIENCE

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs")

VIP = "10.1.0.1"
SIZE = 256 << 20


@pytest.fixture
def running(appliance: Appliance) -> Iterator[Appliance]:
    """The appliance, up again after each test."""
    yield appliance
    if appliance.daemon is None or not appliance.daemon.running:
        appliance.start()


def during_a_download(rig: Rig, disturb: Callable[[], None]) -> None:
    """Disturb in the middle of a transfer, and see it arrive whole."""
    begun, result = threading.Event(), []

    def transfer() -> None:
        with HTTP(VIP, 8080) as connection:
            result.append(connection.download(SIZE, lambda _: begun.set()))

    thread = threading.Thread(target=lambda: rig.client.call(transfer))
    thread.start()
    assert begun.wait(PATIENCE)
    disturb()
    thread.join(2 * PATIENCE)
    assert result == [digest(SIZE)]


def test_a_transfer_outlives_kill_9_and_the_next_start(rig: Rig, running: Appliance) -> None:
    def disturb() -> None:
        running.kill9()
        running.start()

    during_a_download(rig, disturb)


def test_without_a_daemon_policy_still_holds(rig: Rig, running: Appliance) -> None:
    running.kill9()
    assert b"server" in rig.client.call(fetch, VIP, 8080)
    with pytest.raises(ConnectionRefusedError):
        rig.client.call(fetch, VIP, 8083)


def test_a_change_of_policy_leaves_running_flows_alone(rig: Rig, running: Appliance) -> None:
    def disturb() -> None:
        running.cli("mapping", "set", "web", "--priority", "7")
        running.cli("service", "add", "extra", "--address", "192.0.2.1")
        running.cli("service", "remove", "extra", "--yes")

    during_a_download(rig, disturb)


def test_what_is_no_longer_allowed_ends(rig: Rig, running: Appliance) -> None:
    def talk() -> None:
        with Talk(VIP, 7007) as kept:
            assert kept.say(b"before") == b"before"
            running.cli("mapping", "set", "echo", "--action", "deny")
            with pytest.raises((ConnectionError, TimeoutError)):
                kept.say(b"after")

    try:
        rig.client.call(talk)
    finally:
        running.cli("mapping", "set", "echo", "--action", "allow")


def test_an_interface_that_vanishes_and_returns_is_attached_again(rig: Rig, running: Appliance) -> None:
    server = rig.servers[2]
    rig.middle.ip("link del outside2")
    wait_for(lambda: problem(running, "outside2"), "the loss to be noticed")
    rig.middle.ip(
        f"link add outside2 type veth peer name eth0 netns {server.name}",
        "address add 10.2.2.1/24 dev outside2",
        "link set outside2 up",
    )
    server.ip("address add 10.2.2.2/24 dev eth0", "link set eth0 up", "route add default via 10.2.2.1")
    wait_for(lambda: not problem(running, "outside2"), "the interface to be attached again")
    running.cli("service", "add", "third", "--address", "10.2.2.2", "--port", "80")
    running.cli(
        "mapping", "add", "third", "--from", "clients", "--to", "third", "--protocol", "tcp",
        "--listen", f"{VIP}:8084",
    )  # fmt: skip
    assert b"server 10.2.2.2" in rig.client.call(fetch, VIP, 8084)


def test_an_unresolved_neighbour_costs_no_connection(rig: Rig, running: Appliance) -> None:
    rig.middle.ip("neigh flush dev outside0")
    assert b"server 10.2.0.2" in rig.client.call(fetch, VIP, 8080)


def problem(appliance: Appliance, interface: str) -> str:
    """What `status` says is wrong with an interface."""
    status = appliance.json("status", check=False)
    return next(str(item["problem"]) for item in status["interfaces"] if item["name"] == interface)
