"""`--confirm`: whoever dies meanwhile, what nobody confirmed goes back, in the store and on the wire."""

from collections.abc import Iterator

import pytest

from rig import Appliance, Rig, wait_for
from rig.traffic import fetch

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs")

VIP = "10.1.0.1"
SHUT = ("mapping", "set", "web", "--action", "deny")


@pytest.fixture
def running(appliance: Appliance) -> Iterator[Appliance]:
    """The appliance, open, up, and with nothing on trial before and after each test."""
    yield appliance
    if appliance.daemon is None or not appliance.daemon.running:
        appliance.start()
    wait_for(lambda: not appliance.json("status")["trial"], "the trial to end")


def is_open(rig: Rig) -> bool:
    try:
        return b"server" in rig.client.call(fetch, VIP, 8080)
    except (ConnectionError, TimeoutError):
        return False


def shut(rig: Rig, appliance: Appliance, seconds: int) -> None:
    """Deny what is allowed, on trial, and leave."""
    assert is_open(rig)
    appliance.cli(*SHUT, "--confirm", str(seconds), "--no-wait")
    assert not is_open(rig)


def test_what_nobody_confirms_goes_back(rig: Rig, running: Appliance) -> None:
    before = running.json("revision", "list")[0]["sha256"]
    result = running.cli(*SHUT, "--confirm", "1", check=False)
    assert result.returncode == 1
    assert "was not confirmed: back to revision" in result.stderr
    assert is_open(rig)
    assert running.json("revision", "list")[0]["sha256"] == before


def test_what_is_confirmed_stays(rig: Rig, running: Appliance) -> None:
    shut(rig, running, 60)
    assert 0 < running.json("status")["trial"]["remaining_s"] <= 61
    running.cli("confirm")
    assert running.json("status")["trial"] is None
    assert not is_open(rig)
    running.cli("mapping", "set", "web", "--action", "allow")


def test_the_watcher_may_be_killed(rig: Rig, running: Appliance) -> None:
    watcher = running.host.popen([*running.command, *SHUT, "--confirm", "6"], env=running.env)
    wait_for(lambda: not is_open(rig), "the change to be carried out")
    watcher.kill()
    wait_for(lambda: is_open(rig), "it to go back")
    assert running.json("status")["trial"] is None


def test_the_daemon_may_be_killed_and_come_back_in_time(rig: Rig, running: Appliance) -> None:
    shut(rig, running, 8)
    running.kill9()
    running.start()
    wait_for(lambda: is_open(rig), "it to go back")


def test_a_daemon_that_comes_back_too_late_opens_before_it_serves(rig: Rig, running: Appliance) -> None:
    shut(rig, running, 5)
    trial = running.json("status")["trial"]
    running.kill9()
    wait_for(lambda: not is_on_trial_in_time(running), "the deadline to pass")
    assert not is_open(rig), "without a daemon what was carried out stands"
    running.start()
    assert is_open(rig)
    newest = running.json("revision", "list")[0]
    assert newest["author"] == "marchproxy"
    assert newest["message"] == f"revision {trial['revision']} was not confirmed: back to {trial['previous']}"


def is_on_trial_in_time(appliance: Appliance) -> bool:
    """Whether it could still be confirmed, asked without confirming: another change says how long."""
    refused = appliance.cli("service", "add", "probe", "--address", "192.0.2.9", check=False)
    assert refused.returncode == 4, refused.stderr
    return "for 0 s more" not in refused.stderr


def test_without_a_daemon_there_is_no_trial(rig: Rig, running: Appliance) -> None:
    running.kill9()
    assert running.cli(*SHUT, "--confirm", "60", check=False).returncode == 6
    running.start()
    assert is_open(rig)
