"""docs/TROUBLESHOOTING.md: ten provoked causes are named by the commands that it says, two of them at most.

Backends that refuse, stay silent or are slow: test_tracing.py.
"""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from marchproxy.store.authority import sign
from marchproxy.store.store import Store
from rig import Appliance, Host, Rig
from rig.servers import start_http
from rig.traffic import TIMEOUT
from rig.waiting import wait_for
from tests.certificates import authority

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", commands=["nft"])

CLIENT, WEB, OTHER, NOWHERE, FAR = "10.1.0.2", "10.2.0.2", "10.2.1.2", "203.0.113.9", "10.3.0.2"
PROXY = ("10.1.0.1", 3128)
NARROW = 1300
SILENT = """
table inet silent {
  chain output {
    type filter hook output priority 0;
    icmp type destination-unreachable drop
    icmpv6 type packet-too-big drop
  }
}
"""


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(servers=2) as built:
        for server in built.servers:
            start_http(server)
        # Where there is no route at all the host answers itself: test_tracing.py.
        built.middle.ip("route add unreachable 203.0.113.0/24")
        yield built


@pytest.fixture(scope="module")
def far(rig: Rig) -> Host:
    """Behind a link that is narrower than its host says, and a router that says nothing at all."""
    host = rig.behind(rig.server, mtu=NARROW)
    start_http(host)
    host.ip("route replace default via 10.3.0.1 dev eth0 advmss 1460")
    rig.server.run(["nft", "-f", "-"], stdin=SILENT)
    return host


@pytest.fixture(scope="module")
def appliance(rig: Rig) -> Iterator[Appliance]:
    with Appliance(rig) as built:
        built.cli("init")
        built.cli("interface", "add", "inside0", "--role", "inside")
        for name in ("outside0", "outside1"):
            built.cli("interface", "add", name, "--role", "outside")
        for name, address in (
            ("lan", "10.1.0.0/24"),
            ("web", WEB),
            ("other", OTHER),
            ("nowhere", NOWHERE),
            ("far", FAR),
        ):
            built.cli("service", "add", name, "--address", address)
        allow = ("--from", "lan", "--protocol", "tcp")
        built.cli("mapping", "add", "web", *allow, "--to", "web", "--ports", "80")
        built.cli("mapping", "add", "not-8080", *allow, "--to", "web", "--ports", "8080", "--action", "deny")
        for name in ("other", "nowhere", "far"):
            built.cli("mapping", "add", name, *allow, "--to", name, "--ports", "80")
        built.cli("listener", "add", "explicit", "--bind", "{}:{}".format(*PROXY))
        built.start()
        yield built


class Operator:
    """Somebody at a prompt, who does not want to type much."""

    def __init__(self, appliance: Appliance) -> None:
        self.commands: set[str] = set()
        self._appliance = appliance

    def json(self, *words: str) -> Any:
        """What a command says; asked again it is the same command."""
        self.commands.add(" ".join(words))
        return self._appliance.json(*words, check=False)


@pytest.fixture
def operator(appliance: Appliance) -> Iterator[Operator]:
    """Who needs two commands at most."""
    made = Operator(appliance)
    yield made
    assert len(made.commands) <= 2, made.commands


def attempt(address: str, port: int, within: float = TIMEOUT) -> bool:
    """Whether a connection is accepted."""
    try:
        socket.create_connection((address, port), within).close()
    except OSError:
        return False
    return True


def cause(operator: Operator, port: int, destination: str) -> tuple[str, str]:
    """What `flows --denied --source CLIENT` says of the newest attempt: reason and mapping."""

    def found() -> tuple[str, str] | None:
        rows = operator.json("flows", "--denied", "--source", CLIENT)
        wanted = [
            each for each in rows if (each["destination"], each["destination_port"]) == (destination, port)
        ]
        return (wanted[0]["reason"], wanted[0]["mapping"]) if wanted else None

    return wait_for(found, "the refusal to be shown")


@pytest.mark.parametrize(
    ("destination", "port", "reason", "mapping"),
    [
        (WEB, 81, "NO_MAPPING", ""),
        (WEB, 8080, "DENY_MAPPING", "not-8080"),
        (NOWHERE, 80, "NO_ROUTE", ""),
    ],
)
def test_refusals_name_their_cause(
    rig: Rig, operator: Operator, destination: str, port: int, reason: str, mapping: str
) -> None:
    assert not rig.client.call(attempt, destination, port)
    assert cause(operator, port, destination) == (reason, mapping)
    question = ("--from", CLIENT, "--to", destination, "--protocol", "tcp", "--port", str(port))
    answer = operator.json("explain", *question)
    said = answer["kernel"] if reason == "NO_ROUTE" else answer
    assert (said["verdict"], said["reason"], said["mapping"]) == ("deny", reason, mapping)


def test_blocked(rig: Rig, appliance: Appliance, operator: Operator) -> None:
    assert rig.client.call(attempt, OTHER, 80)
    appliance.cli("block", "add", OTHER)
    try:
        assert not rig.client.call(attempt, OTHER, 80)
        assert cause(operator, 80, OTHER)[0] == "BLOCKED_DESTINATION"
    finally:
        appliance.cli("block", "remove", OTHER, "--yes")
    assert rig.client.call(attempt, OTHER, 80)


def test_limited(rig: Rig, appliance: Appliance, operator: Operator) -> None:
    rate = ("--flows-per-second", "1", "--burst", "1")
    appliance.cli("limit", "add", "--name", "slow", "--per", "source", *rate)
    try:

        def often() -> bool:
            return not all(attempt(WEB, 80, 0.5) for _ in range(5))

        assert rig.client.call(often)
        assert cause(operator, 80, WEB)[0] == "RATE_LIMITED"
    finally:
        appliance.cli("limit", "remove", "slow", "--yes")


def tunnel(name: str) -> int:
    """Which status the explicit proxy has for a tunnel to a name."""
    with socket.create_connection(PROXY, timeout=20) as connection:
        connection.sendall(f"CONNECT {name}:80 HTTP/1.1\r\nHost: {name}:80\r\n\r\n".encode())
        return int(connection.recv(1000).split()[1])


def test_name_that_does_not_resolve(rig: Rig, appliance: Appliance, operator: Operator) -> None:
    appliance.cli("service", "add", "gone", "--address", "gone.example.invalid")
    appliance.cli(
        "mapping", "add", "gone", "--from", "lan", "--to", "gone", "--protocol", "tcp", "--ports", "80"
    )

    def said() -> bool:
        problems = operator.json("status")["problems"]
        return any("gone.example.invalid" in each for each in problems)

    try:
        # What the client is told: a gateway that does not know where to go.
        assert wait_for(lambda: rig.client.call(tunnel, "gone.example.invalid"), "an answer") == 502

        def refused() -> tuple[str, str] | None:
            rows = operator.json("flows", "--denied", "--source", CLIENT)
            found = [each for each in rows if each["name"] == "gone.example.invalid"]
            return (found[0]["verdict"], found[0]["reason"]) if found else None

        assert wait_for(refused, "the refusal to be shown") == ("deny", "NAME_UNKNOWN")
        wait_for(said, "status to name it")
    finally:
        appliance.cli("mapping", "remove", "gone", "--yes")
        appliance.cli("service", "remove", "gone", "--yes")


def test_allowed_and_not_even_arriving(rig: Rig, operator: Operator) -> None:
    """No row, and `explain` allows: what is wrong is in front of the appliance, or behind it."""
    answer = operator.json("explain", "--from", CLIENT, "--to", WEB, "--protocol", "tcp", "--port", "80")
    assert (answer["verdict"], answer["mapping"]) == ("allow", "web")
    check: Callable[..., bool] = attempt
    assert rig.client.call(check, WEB, 80)


@contextmanager
def serving(appliance: Appliance, service: tuple[str, ...], *mapping: str) -> Iterator[None]:
    """A service that clients are to reach at a listener of the same name."""
    name = service[0]
    appliance.cli("service", "add", *service)
    words = ("--from", "lan", "--to", name, "--protocol", "tcp", *mapping)
    appliance.cli("mapping", "add", name, *words)
    try:
        yield
    finally:
        appliance.cli("mapping", "remove", name, "--yes")
        appliance.cli("service", "remove", name, "--yes")


def test_dead_backend(rig: Rig, appliance: Appliance, operator: Operator) -> None:
    check = ("--health", "tcp", "--health-interval", "1s", "--health-timeout", "1s")
    service = ("dead", "--address", OTHER, "--port", "4444", *check)
    with serving(appliance, service, "--listen", "10.1.0.1:8081"):

        def refused() -> bool:
            assert not rig.client.call(attempt, "10.1.0.1", 8081)
            rows = operator.json("flows", "--denied", "--source", CLIENT)
            return any((row["reason"], row["mapping"]) == ("NO_BACKEND", "dead") for row in rows)

        wait_for(refused, "the checks to have failed")
        (backend,) = operator.json("status")["backends"]
        assert (backend["address"], backend["state"], backend["why"]) == (OTHER, "down", "refused")


def test_expired_token(rig: Rig, appliance: Appliance, operator: Operator) -> None:
    service = ("vault", "--address", OTHER, "--port", "80", "--auth", "token")
    with serving(appliance, service, "--listen", "10.1.0.1:7000"):
        token = appliance.cli("token", "issue", "vault", "--ttl", "1s").stdout.strip()

        def present() -> bytes:
            with socket.create_connection(("10.1.0.1", 7000), timeout=TIMEOUT) as connection:
                connection.sendall(f"MARCHPROXY/1 {token}\n".encode())
                return connection.recv(100)

        wait_for(lambda: rig.client.call(present) == b"ERR AUTH_EXPIRED\n", "the token to expire")
        assert cause(operator, 7000, "10.1.0.1") == ("AUTH_EXPIRED", "vault")
        (issued,) = operator.json("token", "list")
        assert (issued["service"], issued["state"]) == ("vault", "expired")


def test_expired_certificate(rig: Rig, appliance: Appliance, operator: Operator) -> None:
    ca, lifetime = authority(), timedelta(days=2)
    began = datetime.now(UTC).replace(microsecond=0) - lifetime - timedelta(minutes=5)
    with Store.open(appliance.state) as store:
        # The command would not take it any more.
        store.certificates.add("default", "old", sign(ca.chain, ca.key, ["10.1.0.1"], lifetime, began))
    listen = ("--listen", "10.1.0.1:7443", "--tls", "old")
    with serving(appliance, ("secure", "--address", OTHER, "--port", "80"), *listen):

        def shake_hands() -> str:
            context = ssl.create_default_context(cadata=ca.chain)
            with socket.create_connection(("10.1.0.1", 7443), timeout=TIMEOUT) as connection:
                try:
                    context.wrap_socket(connection, server_hostname="10.1.0.1").close()
                except ssl.SSLCertVerificationError as error:
                    return error.verify_message
            return ""

        assert rig.client.call(shake_hands) == "certificate has expired"
        question = ("--from", CLIENT, "--to", "10.1.0.1", "--port", "7443")
        said = operator.json("explain", *question)["why"][-1]
        assert said.startswith("no client gets past TLS: certificate old expired at "), said
        assert any("certificate old expired" in text for text in operator.json("status")["problems"])


def test_mtu_black_hole(rig: Rig, appliance: Appliance, operator: Operator, far: Host) -> None:
    """Connections open, small answers come, and uploads stand still."""

    def uploads(within: float) -> bool:
        head = b"POST / HTTP/1.1\r\nHost: far\r\nContent-Length: 40000\r\nConnection: close\r\n\r\n"
        with socket.create_connection((FAR, 80), TIMEOUT) as connection:
            connection.settimeout(within)
            connection.sendall(head + bytes(40_000))
            try:
                return b" 200 " in connection.recv(200)
            except TimeoutError:
                return False

    assert rig.client.call(attempt, FAR, 80)
    assert not rig.client.call(uploads, 3)
    answer = operator.json("explain", "--from", CLIENT, "--to", "far", "--port", "80")
    assert (answer["verdict"], answer["mapping"]) == ("allow", "far")
    (finding,) = [row for row in operator.json("doctor", "--path", "far") if row["name"] == "path"]
    assert finding["severity"] == "error"
    assert f"packets of more than {NARROW} bytes vanish on the way to {FAR}" in finding["message"]
    assert "MTU black hole" in finding["message"]
    # The command that it names puts it right: segment sizes are lowered to it from then on.
    rig.middle.run(finding["fix"].split())
    try:
        assert rig.client.call(uploads, TIMEOUT)
    finally:
        rig.middle.ip(f"route del {FAR}")
