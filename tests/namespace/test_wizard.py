"""First boot: from an empty folder to a gateway in audit mode, with answers piped in."""

from collections.abc import Iterator

import pytest

from rig import Appliance, Rig, wait_for
from rig.servers import start_echo, start_http
from rig.traffic import ask_tcp, fetch

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs")

WEB, BLOCKED = "10.2.0.2", "10.2.1.2"
REFUSED = (ConnectionRefusedError, ConnectionResetError)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(servers=2) as built:
        for server in built.servers:
            start_http(server)
            start_echo(server)
        yield built


@pytest.fixture
def fresh(request: pytest.FixtureRequest, rig: Rig) -> Iterator[Appliance]:
    """An appliance that nobody has configured."""
    with Appliance(rig, name=request.node.name[:40]) as built:
        yield built


def told(appliance: Appliance, destination: str) -> dict[str, object]:
    """The record of what would be, or was, denied on the way there; empty before it is told."""
    rows = appliance.json("flows", "--denied")
    return next((row for row in rows if row["destination"] == destination), {})


def test_answers_that_are_piped_in_make_a_gateway(rig: Rig, fresh: Appliance) -> None:
    listed = fresh.state.parent / "bad.txt"
    listed.write_text(f"{BLOCKED}\n")
    answers = f"inside0\noutside0, outside1\nno\n{listed}\n22 2222\nyes\n"
    done = fresh.cli("init", "--wizard", stdin=answers)
    assert "  inside0 (10.1.0.1, fd01::1)" in done.stderr
    assert "MARCHPROXY_MANAGEMENT_PORTS=22,2222 marchproxy run" in done.stderr
    assert len(done.stdout.strip()) >= 32, "the API key alone"

    fresh.start()
    # Nothing is allowed, and all of it is told.
    assert b"server" in rig.client.call(fetch, WEB, 80)
    row = wait_for(lambda: told(fresh, WEB), "audit to be told")
    assert (row["verdict"], row["reason"], row["destination_port"]) == ("audit", "NO_MAPPING", 80)
    # What is blocked is blocked, under audit too.
    with pytest.raises(REFUSED):
        rig.client.call(ask_tcp, BLOCKED, 7, b"hello")
    refused = wait_for(lambda: told(fresh, BLOCKED), "the refusal to be told")
    assert (refused["verdict"], refused["reason"]) == ("deny", "BLOCKED_DESTINATION")


def test_beside_a_daemon_that_runs_it_is_in_force_at_once(rig: Rig, fresh: Appliance) -> None:
    fresh.cli("init")
    fresh.start()
    done = fresh.cli("init", "--wizard", "--inside", "inside0", "--outside", "outside0", "--yes")
    assert "the gateway runs: kernel tier, revision 2" in done.stderr
    assert done.stdout == "", "the key was printed before"
    assert b"server" in rig.client.call(fetch, WEB, 80)

    again = fresh.cli("init", "--wizard", "--inside", "inside0", "--yes", check=False)
    assert again.returncode == 4
    assert "configured already: it has inside0, outside0" in again.stderr


def test_reset_leaves_a_machine_that_can_begin_anew(rig: Rig, fresh: Appliance) -> None:
    flags = ("--inside", "inside0", "--outside", "outside0", "--yes")
    fresh.cli("init", "--wizard", *flags)
    fresh.start()
    assert b"server" in rig.client.call(fetch, WEB, 80)
    assert fresh.cli("reset", "--yes", check=False).returncode == 4
    removed = fresh.cli("reset", "--stop", "--yes").stdout
    assert "marchproxy.db" in removed
    assert "with their flows" in removed
    assert list(fresh.state.iterdir()) == []
    assert not fresh.bpffs.exists()
    fresh.cli("init", "--wizard", *flags)
    fresh.start()
    assert b"server" in rig.client.call(fetch, WEB, 80)
