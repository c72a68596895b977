"""The real daemon under the rig's care."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig import Appliance, Rig, RigError
from rig.network import LISTEN4
from rig.servers import start_echo
from rig.traffic import Talk, ask_tcp

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs")

CONFIGURATION = {
    "format": "marchproxy/1",
    "interfaces": [{"name": "inside0", "role": "inside"}, {"name": "outside0", "role": "outside"}],
    "clusters": [
        {
            "name": "default",
            "services": [
                {"name": "office", "addresses": ["10.1.0.2"]},
                {"name": "echo", "addresses": ["10.2.0.2"], "port": 7},
            ],
            "mappings": [
                {
                    "name": "echo",
                    "sources": ["office"],
                    "destinations": ["echo"],
                    "protocols": ["tcp"],
                    "listen": f"{LISTEN4}:7",
                }
            ],
        }
    ],
}


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as built:
        start_echo(built.server)
        yield built


@pytest.fixture
def appliance(rig: Rig, request: pytest.FixtureRequest) -> Iterator[Appliance]:
    with Appliance(rig, name=request.node.name[:40]) as built:
        built.cli("init")
        built.configure(CONFIGURATION)
        yield built


def pins(appliance: Appliance) -> list[Path]:
    """What is pinned in the kernel."""
    return [path for path in appliance.bpffs.rglob("*") if not path.is_dir()]


def test_it_carries_traffic_through_kill_and_restart(rig: Rig, appliance: Appliance) -> None:
    appliance.start()
    with rig.client.call(Talk, LISTEN4, 7) as talk:
        assert talk.say(b"with a daemon") == b"with a daemon"
        appliance.kill9()
        assert appliance.cli("status", check=False).returncode == 6
        assert talk.say(b"without one") == b"without one"
        appliance.start()
        assert talk.say(b"with another") == b"with another"
        appliance.restart()
        assert talk.say(b"and another") == b"and another"
        assert appliance.json("status")["tier"] == "kernel"


def test_detaching_leaves_nothing_and_it_can_start_again(rig: Rig, appliance: Appliance) -> None:
    appliance.start()
    assert pins(appliance)
    appliance.detach()
    assert not pins(appliance)
    with pytest.raises(ConnectionRefusedError):
        rig.client.call(ask_tcp, LISTEN4, 7, b"gone")
    appliance.start()
    assert rig.client.call(ask_tcp, LISTEN4, 7, b"back") == b"back"


def test_closing_stops_the_daemon_and_removes_its_pins(appliance: Appliance) -> None:
    appliance.start()
    assert appliance.daemon is not None
    pid = appliance.daemon.pid
    appliance.close()
    appliance.close()
    assert not appliance.bpffs.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_daemon_that_does_not_come_up_says_why(rig: Rig) -> None:
    with Appliance(rig, name="empty") as appliance, pytest.raises(RigError, match="run ended with") as caught:
        appliance.start()
    assert "marchproxy init" in caught.value.hint


def test_a_command_that_fails_says_what_it_said(appliance: Appliance) -> None:
    with pytest.raises(RigError, match="service show nobody failed with 3") as caught:
        appliance.cli("service", "show", "nobody")
    assert "nobody" in caught.value.hint


def test_an_appliance_that_was_not_started_cannot_be_stopped(appliance: Appliance) -> None:
    with pytest.raises(RigError, match="was not started"):
        appliance.stop()
