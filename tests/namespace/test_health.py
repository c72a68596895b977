"""Backends that die, come back, falter and are drained, behind the real appliance."""

import json
import selectors
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from rig import Appliance, Host, Process, Rig, wait_for
from rig.servers import start_echo, start_http
from rig.traffic import HTTP, Talk, fetch
from tests.dataplane.daemons import UnixConnection

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs")

VIP, HTTP_PORT, ECHO_PORT = "10.1.0.1", 8080, 7007
REFUSALS = {"ConnectionRefusedError", "ConnectionResetError"}
BACKENDS = ("10.2.0.2", "10.2.1.2", "10.2.2.2")
INTERVAL, FALL = 1, 3
PATIENCE = 40.0
"""Seconds for what has to happen within interval times fall, on a machine that is busy with other tests."""


class Farm:
    """Three servers, and the appliance that checks them."""

    def __init__(self, rig: Rig, appliance: Appliance) -> None:
        self.rig = rig
        self.appliance = appliance
        self.http = [serve_http(server) for server in rig.servers]
        self.echo = [start_echo(server, 7, server.ipv4) for server in rig.servers]

    def answers(self, count: int = 24) -> Counter[str]:
        """Who answers new connections; a refused or silent one is counted as such."""

        def ask() -> Counter[str]:
            return Counter(_ask() for _ in range(count))

        return self.rig.client.call(ask)

    def backends(self, service: str = "web") -> dict[str, dict[str, Any]]:
        """What the daemon knows, by address. Asked without the command, which takes as long as a check."""
        connection = UnixConnection(self.appliance.runtime / "control.sock")
        try:
            connection.request("GET", "/v1/status")
            states = json.load(connection.getresponse())["backends"]
        finally:
            connection.close()
        return {state["address"]: state for state in states if state["service"] == service}

    def wait(self, address: str, state: str, service: str = "web") -> dict[str, Any]:
        """Wait until checks have found that."""

        def found() -> dict[str, Any] | None:
            backend = self.backends(service)[address]
            return backend if backend["checked"] and backend["state"] == state else None

        return wait_for(found, f"{address} of {service} to be {state}", timeout=PATIENCE)

    def wait_for_answers(self, *addresses: str) -> None:
        """Wait until exactly these take new connections."""
        wait_for(lambda: set(self.answers()) == set(addresses), f"{addresses} to answer", timeout=PATIENCE)


def serve_http(server: Host) -> Process:
    """On IPv4 only: the other address does not outlive a link that is down."""
    return start_http(server, 80, server.ipv4)


def _ask() -> str:
    try:
        with HTTP(VIP, HTTP_PORT) as connection:
            return connection.get("/").rsplit(b"server ", 1)[1].decode().strip()
    except OSError as error:
        return type(error).__name__


@pytest.fixture(scope="module", params=["tc", "sockets"])
def farm(request: pytest.FixtureRequest) -> Iterator[Farm]:
    tier = str(request.param)
    with Rig(clients=1, servers=3) as rig:
        rig.suit_xdp()
        with Appliance(rig) as appliance:
            made = Farm(rig, appliance)
            define(appliance, mode="auto" if tier == "sockets" else tier)
            appliance.start(*(["--no-bpf"] if tier == "sockets" else []))
            for address in BACKENDS:
                made.wait(address, "up")
                made.wait(address, "up", "echo")
            yield made


def define(appliance: Appliance, *, mode: str) -> None:
    """One listener for HTTP, one for conversations that last."""
    appliance.cli("init")
    names = appliance.host.call(lambda: [name for _, name in socket.if_nameindex() if name != "lo"])
    for name in names:
        role = "inside" if name.startswith("inside") else "outside"
        appliance.cli("interface", "add", name, "--role", role, "--mode", mode)
    checks = ("--health-interval", f"{INTERVAL}s", "--health-timeout", "1s")
    appliance.cli("service", "add", "clients", "--address", "10.1.0.0/24")
    for name, port, check in (("web", "80", "http:/"), ("echo", "7", "tcp")):
        appliance.cli(
            "service",
            "add",
            name,
            "--address",
            ",".join(BACKENDS),
            "--port",
            port,
            "--health",
            check,
            *checks,
        )
    for name, listen in (("web", HTTP_PORT), ("echo", ECHO_PORT)):
        appliance.cli(
            "mapping", "add", name, "--from", "clients", "--to", name, "--protocol", "tcp",
            "--listen", f"{VIP}:{listen}", "--balance", "round-robin",
        )  # fmt: skip


@pytest.fixture
def talks(farm: Farm) -> Iterator[list[Talk]]:
    """A conversation with each of the three, once all of them are in use again."""
    held: list[Talk] = []

    def spread() -> bool:
        while held:
            held.pop().close()
        held.extend(farm.rig.client.call(lambda: [Talk(VIP, ECHO_PORT) for _ in BACKENDS]))
        ports = {talk.socket.getsockname()[1] for talk in held}
        rows = [row for row in echoes(farm) if row["source_port"] in ports]
        return {row["backend"] for row in rows} == set(BACKENDS)

    wait_for(spread, "a conversation with each backend", timeout=PATIENCE)
    yield held
    for talk in held:
        talk.close()


def converse() -> None:
    """A conversation from beginning to end."""
    with Talk(VIP, ECHO_PORT) as talk:
        talk.say(b"hello")


def say(farm: Farm, talk: Talk) -> bool:
    """Whether a conversation still goes on."""
    return farm.rig.client.call(lambda: talk.say(b"still there?")) == b"still there?"


def restart(farm: Farm, number: int) -> None:
    """A server that was killed serves again."""
    farm.http[number] = serve_http(farm.rig.servers[number])
    farm.wait(BACKENDS[number], "up")


def test_a_server_whose_process_is_gone_gets_no_new_connections_and_is_used_again(farm: Farm) -> None:
    assert set(farm.answers()) == set(BACKENDS)
    farm.http[1].kill()
    down = farm.wait(BACKENDS[1], "down")
    assert (down["why"], down["check"], down["drained"]) == ("refused", "http", False)
    farm.wait_for_answers(BACKENDS[0], BACKENDS[2])
    assert [line.partition("10.2")[2] for line in changes(farm)] == [".1.2:80 of web is down: refused"]
    metrics = farm.rig.middle.call(fetch, "127.0.0.1", 9090, "/metrics").decode()
    assert 'marchproxy_backend_up{address="10.2.1.2",port="80",service="web"} 0.0' in metrics
    assert 'marchproxy_backend_up{address="10.2.2.2",port="80",service="web"} 1.0' in metrics
    restart(farm, 1)
    farm.wait_for_answers(*BACKENDS)
    assert changes(farm)[-1].endswith("10.2.1.2:80 of web is up")


def test_running_flows_stay_when_a_host_is_cut_off_and_new_ones_avoid_it(
    farm: Farm, talks: list[Talk]
) -> None:
    server = farm.rig.servers[2]
    server.ip("link set eth0 down")
    try:
        assert farm.wait(BACKENDS[2], "down")["why"] in ("no answer within 1 s", "no route to host")
        farm.wait(BACKENDS[2], "down", "echo")
        farm.wait_for_answers(BACKENDS[0], BACKENDS[1])
        assert sum(row["backend"] == BACKENDS[2] for row in echoes(farm)) >= 1, "nobody has cut it"
        assert [say(farm, talk) for talk in with_healthy(farm, talks)] == [True, True]
    finally:
        server.ip("link set eth0 up", "route replace default via 10.2.2.1")
    farm.wait(BACKENDS[2], "up")
    farm.wait(BACKENDS[2], "up", "echo")
    farm.wait_for_answers(*BACKENDS)
    assert all(say(farm, talk) for talk in talks), "also the one that was cut off goes on"


def test_connections_that_are_being_opened_find_another_backend(farm: Farm) -> None:
    """Their clients repeat the first packet after 1, 3 and 7 seconds."""
    server = farm.rig.servers[0]
    server.ip("link set eth0 down")
    try:
        assert farm.backends()[BACKENDS[0]]["state"] == "up", "nobody knows yet"
        assert farm.rig.client.call(connect_at_once, 9) == 9
    finally:
        server.ip("link set eth0 up", "route replace default via 10.2.0.1")
    farm.wait(BACKENDS[0], "up")
    farm.wait_for_answers(*BACKENDS)


def connect_at_once(count: int) -> int:
    """How many of so many connections, all begun now, stand in the end."""
    stand = 0
    with ExitStack() as held, selectors.DefaultSelector() as waiting:
        for _ in range(count):
            sock = held.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex((VIP, HTTP_PORT))
            waiting.register(sock, selectors.EVENT_WRITE, sock)
        deadline = time.monotonic() + PATIENCE
        while waiting.get_map() and time.monotonic() < deadline:
            for key, _ in waiting.select(1):
                stand += not key.data.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                waiting.unregister(key.fileobj)
    return stand


def echoes(farm: Farm) -> list[dict[str, Any]]:
    """Conversations that last."""
    return list(farm.appliance.json("flows", "--port", str(ECHO_PORT), "--protocol", "tcp"))


def with_healthy(farm: Farm, talks: list[Talk]) -> list[Talk]:
    """Those whose backend is not the one that was cut off."""
    cut = {row["source_port"] for row in echoes(farm) if row["backend"] == BACKENDS[2]}
    return [talk for talk in talks if talk.socket.getsockname()[1] not in cut]


def test_a_drained_backend_keeps_its_flows_and_gets_no_new_ones(farm: Farm, talks: list[Talk]) -> None:
    farm.appliance.cli("service", "set", "web", "--drain", BACKENDS[0])
    farm.appliance.cli("service", "set", "echo", "--drain", BACKENDS[0])
    try:
        assert farm.answers() == {BACKENDS[1]: 12, BACKENDS[2]: 12}
        assert farm.backends()[BACKENDS[0]]["drained"]
        assert all(say(farm, talk) for talk in talks)
        farm.appliance.cli("service", "set", "echo", "--drain", ",".join(BACKENDS))
        with pytest.raises((ConnectionRefusedError, ConnectionResetError)):
            farm.rig.client.call(converse)
        assert all(say(farm, talk) for talk in talks), "nobody takes new ones, and the old ones go on"
        denied = wait_for(
            lambda: farm.appliance.json("flows", "--denied", "--port", str(ECHO_PORT)),
            "the refusal to be shown",
        )
        assert denied[0]["reason"] == "NO_BACKEND"
    finally:
        for service in ("web", "echo"):
            farm.appliance.cli("service", "set", service, "--no-drain")
    assert set(farm.answers()) == set(BACKENDS)


def test_a_backend_that_falters_does_not_change_faster_than_checks_agree(farm: Farm) -> None:
    farm.appliance.cli("service", "set", "web", "--health-fall", "30")
    told = changes(farm)
    try:
        for _ in range(3):
            farm.http[1].kill()
            wait_for(lambda: farm.backends()[BACKENDS[1]]["why"], "a check to fail", timeout=PATIENCE)
            farm.http[1] = serve_http(farm.rig.servers[1])
            wait_for(lambda: not farm.backends()[BACKENDS[1]]["why"], "a check to succeed", timeout=PATIENCE)
            assert farm.backends()[BACKENDS[1]]["state"] == "up"
        assert changes(farm) == told
    finally:
        farm.appliance.cli("service", "set", "web", "--health-fall", str(FALL))


def changes(farm: Farm) -> list[str]:
    """What the daemon's log says about backends that changed."""
    daemon = farm.appliance.daemon
    assert daemon is not None
    return [line for line in daemon.output().splitlines() if " of web is " in line]


def test_http_503_takes_a_backend_out_and_a_service_without_any_is_a_problem(farm: Farm) -> None:
    farm.appliance.cli("service", "set", "web", "--health", "http:/status/503")
    try:
        for address in BACKENDS:
            assert farm.wait(address, "down")["why"] == "HTTP 503"
        wait_for(lambda: set(farm.answers(3)) <= REFUSALS, "connections to be refused", timeout=PATIENCE)
        status = farm.appliance.cli("status", "--output", "json", check=False)
        assert status.returncode == 1
        assert json.loads(status.stdout)["problems"] == ["health: every backend of web is down"]
    finally:
        farm.appliance.cli("service", "set", "web", "--health", "http:/status/204")
    for address in BACKENDS:
        farm.wait(address, "up")
    farm.wait_for_answers(*BACKENDS)
    assert farm.appliance.cli("status").returncode == 0


def test_ping_finds_a_host_that_is_gone(farm: Farm) -> None:
    farm.appliance.cli("service", "set", "web", "--health", "icmp")
    server = farm.rig.servers[0]
    try:
        for address in BACKENDS:
            farm.wait(address, "up")
        server.ip("address del 10.2.0.2/24 dev eth0")
        farm.wait(BACKENDS[0], "down")
        farm.wait_for_answers(BACKENDS[1], BACKENDS[2])
    finally:
        server.ip("address replace 10.2.0.2/24 dev eth0", "route replace default via 10.2.0.1")
        farm.appliance.cli("service", "set", "web", "--health", "http:/")
    farm.wait(BACKENDS[0], "up")
    farm.wait_for_answers(*BACKENDS)


def test_a_daemon_that_starts_knows_soon_what_is_dead(farm: Farm) -> None:
    """And until then does not cut what runs."""
    farm.http[2].kill()
    farm.wait(BACKENDS[2], "down")
    options = ["--no-bpf"] if farm.appliance.json("status")["tier"] == "sockets" else []
    farm.appliance.restart(*options)
    farm.wait_for_answers(BACKENDS[0], BACKENDS[1])
    restart(farm, 2)
    farm.wait_for_answers(*BACKENDS)
