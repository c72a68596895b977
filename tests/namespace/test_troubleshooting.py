"""docs/TROUBLESHOOTING.md: provoked causes are named by the commands that it says, with two of them at most.

Backends that refuse, stay silent or are slow: test_tracing.py. Those that health checks found dead:
test_health.py. Credentials: test_tunnels.py.
"""

import socket
from collections.abc import Callable, Iterator

import pytest

from rig import Appliance, Rig
from rig.servers import start_http
from rig.waiting import wait_for

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs")

CLIENT, WEB, OTHER, NOWHERE = "10.1.0.2", "10.2.0.2", "10.2.1.2", "203.0.113.9"


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(servers=2) as built:
        for server in built.servers:
            start_http(server)
        # Where there is no route at all the host answers itself: test_tracing.py.
        built.middle.ip("route add unreachable 203.0.113.0/24")
        yield built


@pytest.fixture(scope="module")
def appliance(rig: Rig) -> Iterator[Appliance]:
    with Appliance(rig) as built:
        built.cli("init")
        built.cli("interface", "add", "inside0", "--role", "inside")
        for name in ("outside0", "outside1"):
            built.cli("interface", "add", name, "--role", "outside")
        for name, address in (("lan", "10.1.0.0/24"), ("web", WEB), ("other", OTHER), ("nowhere", NOWHERE)):
            built.cli("service", "add", name, "--address", address)
        allow = ("--from", "lan", "--protocol", "tcp")
        built.cli("mapping", "add", "web", *allow, "--to", "web", "--ports", "80")
        built.cli("mapping", "add", "not-8080", *allow, "--to", "web", "--ports", "8080", "--action", "deny")
        built.cli("mapping", "add", "other", *allow, "--to", "other", "--ports", "80")
        built.cli("mapping", "add", "nowhere", *allow, "--to", "nowhere", "--ports", "80")
        built.start()
        yield built


def attempt(address: str, port: int) -> bool:
    """Whether a connection is accepted."""
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


def cause(appliance: Appliance, port: int, destination: str) -> tuple[str, str]:
    """What `flows --denied --source CLIENT` says of the newest attempt: reason and mapping."""

    def found() -> tuple[str, str] | None:
        rows = appliance.json("flows", "--denied", "--source", CLIENT)
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
    rig: Rig, appliance: Appliance, destination: str, port: int, reason: str, mapping: str
) -> None:
    assert not rig.client.call(attempt, destination, port)
    assert cause(appliance, port, destination) == (reason, mapping)
    question = ("--from", CLIENT, "--to", destination, "--protocol", "tcp", "--port", str(port))
    if reason != "NO_ROUTE":
        assert appliance.cli("explain", *question, check=False).returncode == 10


def test_blocked(rig: Rig, appliance: Appliance) -> None:
    assert rig.client.call(attempt, OTHER, 80)
    appliance.cli("block", "add", OTHER)
    try:
        assert not rig.client.call(attempt, OTHER, 80)
        assert cause(appliance, 80, OTHER)[0] == "BLOCKED_DESTINATION"
    finally:
        appliance.cli("block", "remove", OTHER, "--yes")
    assert rig.client.call(attempt, OTHER, 80)


def test_limited(rig: Rig, appliance: Appliance) -> None:
    rate = ("--flows-per-second", "1", "--burst", "1")
    appliance.cli("limit", "add", "--name", "slow", "--per", "source", *rate)
    try:

        def often() -> bool:
            return not all(attempt(WEB, 80) for _ in range(5))

        assert rig.client.call(often)
        assert cause(appliance, 80, WEB)[0] == "RATE_LIMITED"
    finally:
        appliance.cli("limit", "remove", "slow", "--yes")


def test_name_that_does_not_resolve(appliance: Appliance) -> None:
    appliance.cli("service", "add", "gone", "--address", "gone.example.invalid")
    appliance.cli(
        "mapping", "add", "gone", "--from", "lan", "--to", "gone", "--protocol", "tcp", "--ports", "80"
    )

    def said() -> bool:
        problems = appliance.json("status", check=False)["problems"]
        return any("gone.example.invalid" in each for each in problems)

    wait_for(said, "status to name it", timeout=20)
    appliance.cli("mapping", "remove", "gone", "--yes")
    appliance.cli("service", "remove", "gone", "--yes")


def test_allowed_and_not_even_arriving(rig: Rig, appliance: Appliance) -> None:
    """No row, and `explain` allows: what is wrong is in front of the appliance, or behind it."""
    answer = appliance.json("explain", "--from", CLIENT, "--to", WEB, "--protocol", "tcp", "--port", "80")
    assert (answer["verdict"], answer["mapping"]) == ("allow", "web")
    check: Callable[..., bool] = attempt
    assert rig.client.call(check, WEB, 80)
