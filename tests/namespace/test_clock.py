"""A wall clock that jumps: credentials are judged by it, and nothing else that runs is disturbed."""

import glob
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig import Appliance, Rig, wait_for
from rig.appliance import READY_TIMEOUT
from rig.servers import start_echo
from rig.traffic import TIMEOUT
from tests.namespace.test_tunnels import curl, read_head, reason

LIBRARY = next(iter(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")), "")
"""Debian's libfaketime: the appliance, and nobody else, sees another time."""

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", commands=["curl", "faketime"])

PROXY = "http://10.1.0.1:3128"


class Clock:
    """The appliance's wall clock."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set("+0")

    def set(self, offset: str) -> None:
        """`+2h`: this much ahead of the true one."""
        self._file.write_text(f"{offset}\n")


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as built:
        built.server.add_address("eth0", "10.2.0.3/24", "10.2.0.4/24", "10.2.0.5/24")
        start_echo(built.server, 7, "10.2.0.2", "10.2.0.3", "10.2.0.4", "10.2.0.5")
        yield built


@pytest.fixture(scope="module")
def clock(rig: Rig) -> Clock:
    return Clock(rig.files / "clock")


@pytest.fixture(scope="module", params=["kernel", "sockets"])
def appliance(request: pytest.FixtureRequest, rig: Rig, clock: Clock) -> Iterator[Appliance]:
    with Appliance(rig, name=str(request.param)) as built:
        built.env |= {
            "LD_PRELOAD": LIBRARY,
            "FAKETIME_TIMESTAMP_FILE": str(rig.files / "clock"),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        built.cli("init")
        for name, role in (("inside0", "inside"), ("outside0", "outside")):
            built.cli("interface", "add", name, "--role", role)
        built.cli("service", "add", "lan", "--address", "10.1.0.0/24")
        built.cli("service", "add", "open", "--address", "10.2.0.2")
        for name, address, end, auth in (
            ("keeping", "10.2.0.3", "keep", "jwt"),
            ("cutting", "10.2.0.4", "cut", "jwt"),
            ("opaque", "10.2.0.5", "cut", "token"),
        ):
            built.cli("service", "add", name, "--address", address, "--auth", auth)
            built.cli(
                *("mapping", "add", name, "--from", "lan", "--to", name, "--protocol", "tcp"),
                *("--auth-required", "--on-expiry", end),
            )
        built.cli(
            "mapping", "add", "open", "--from", "lan", "--to", "open", "--protocol", "tcp", "--ports", "7"
        )
        built.cli("listener", "add", "explicit", "--bind", "10.1.0.1:3128")
        # A day is long by the clock, and no tunnel here is that old.
        built.cli("appliance", "set", "--tunnel-lifetime", "1d")
        built.spawn(*(("--no-bpf",) if request.param == "sockets" else ()))
        # The library makes a start take twice as long.
        built.wait_ready(2 * READY_TIMEOUT)
        yield built


def connect(rig: Rig, target: str, token: str = "") -> socket.socket:
    """A tunnel to the echo of `target`, asked for with a token."""

    def talk() -> socket.socket:
        sock = socket.create_connection(("10.1.0.1", 3128), TIMEOUT)
        authorization = f"Proxy-Authorization: Bearer {token}\r\n" if token else ""
        sock.sendall(f"CONNECT {target}:7 HTTP/1.1\r\nHost: {target}:7\r\n{authorization}\r\n".encode())
        assert b" 200 " in read_head(sock)
        return sock

    return rig.client.call(talk)


def echoes(sock: socket.socket) -> bool:
    sock.settimeout(TIMEOUT)
    try:
        sock.sendall(b"still here")
        return sock.recv(10, socket.MSG_WAITALL) == b"still here"
    except OSError:
        return False


def refusal(rig: Rig, target: str, token: str) -> str:
    words = ["--proxytunnel", "--proxy", PROXY, "--proxy-header", f"Proxy-Authorization: Bearer {token}"]
    return reason(curl(rig.client, *words, f"http://{target}:7/").stdout)


def troubles(appliance: Appliance) -> list[str]:
    """What status complains of, but for routed traffic on the tier that carries none."""
    problems = appliance.json("status", check=False)["problems"]
    return [each for each in problems if not each.startswith("tier: routed traffic")]


def test_credentials_follow_the_clock_and_tunnels_do_as_their_mapping_says(
    rig: Rig, appliance: Appliance, clock: Clock
) -> None:
    clock.set("+0")
    tokens = {
        name: appliance.cli("token", "issue", name, "--ttl", "1h").stdout.strip()
        for name in ("keeping", "cutting", "opaque")
    }
    with (
        connect(rig, "10.2.0.3", tokens["keeping"]) as kept,
        connect(rig, "10.2.0.4", tokens["cutting"]) as cut,
        connect(rig, "10.2.0.5", tokens["opaque"]) as opaque,
        connect(rig, "10.2.0.2") as free,
    ):
        assert all(map(echoes, (kept, cut, opaque, free)))
        clock.set("+2h")
        wait_for(lambda: refusal(rig, "10.2.0.3", tokens["keeping"]) == "AUTH_EXPIRED", "the token to expire")
        wait_for(lambda: refusal(rig, "10.2.0.5", tokens["opaque"]) == "AUTH_EXPIRED", "the other one, too")
        wait_for(lambda: not echoes(cut) and not echoes(opaque), "the tunnels to be cut")
        assert echoes(kept)
        assert echoes(free)
        with connect(rig, "10.2.0.2") as another:
            assert echoes(another)
        assert troubles(appliance) == []
        clock.set("+0")
        wait_for(lambda: refusal(rig, "10.2.0.3", tokens["keeping"]) == "", "the token to be good again")
        with connect(rig, "10.2.0.3", tokens["keeping"]) as again:
            assert echoes(again)
        assert echoes(kept)


def test_idle_flows_do_not_end_because_the_clock_jumps(rig: Rig, appliance: Appliance, clock: Clock) -> None:
    clock.set("+0")
    with connect(rig, "10.2.0.2") as sock:
        assert echoes(sock)
        for offset in ("+2d", "-2d", "+0"):
            clock.set(offset)
            assert troubles(appliance) == [], offset
            assert echoes(sock), offset
            with connect(rig, "10.2.0.2") as another:
                assert echoes(another), offset
