"""From audit to default deny: what is used is learned, proposed and allowed, and everything else refused."""

import json
import threading
from collections.abc import Iterator

import pytest

from rig import Appliance, Rig, wait_for
from rig.servers import start_echo, start_http
from rig.traffic import ask_tcp, ask_udp, fetch

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs")

WEB, OTHER = "10.2.0.2", "10.2.1.2"
REFUSED = (ConnectionRefusedError, ConnectionResetError)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(clients=2, servers=2) as built:
        for server in built.servers:
            start_http(server)
            start_echo(server)
        yield built


@pytest.fixture
def gateway(request: pytest.FixtureRequest, rig: Rig) -> Iterator[Appliance]:
    """Nothing is allowed; clients are a service, servers have no name."""
    with Appliance(rig, name=request.node.name[:40]) as built:
        built.cli("init")
        for name, role in (("inside0", "inside"), ("inside1", "inside"), ("outside0", "outside")):
            built.cli("interface", "add", name, "--role", role)
        built.cli("interface", "add", "outside1", "--role", "outside")
        built.cli("service", "add", "lan", "--address", "10.1.0.0/24")
        built.start()
        yield built


def use(rig: Rig) -> None:
    """What clients of this network do all day."""
    assert b"server" in rig.client.call(fetch, WEB, 80)
    assert rig.client.call(ask_tcp, WEB, 7, b"hello") == b"hello"
    assert rig.client.call(ask_udp, WEB, 7, b"hello") == b"hello"
    assert b"server" in rig.clients[1].call(fetch, WEB, 80)


def test_from_audit_to_default_deny(rig: Rig, gateway: Appliance) -> None:
    with pytest.raises(REFUSED):
        rig.client.call(fetch, WEB, 80)
    gateway.cli("appliance", "set", "--audit", "on")
    use(rig)
    wait_for(lambda: len(gateway.json("learn", "show")) == 4, "everything to be learned")
    gateway.restart()
    assert len(gateway.json("learn", "show")) == 4, "it outlives the daemon"

    file = gateway.state.parent / "learned.yaml"
    gateway.cli("learn", "propose", "-o", str(file))
    gateway.cli("apply", "-f", str(file))
    assert "nothing to propose" in gateway.cli("learn", "propose").stderr
    gateway.cli("appliance", "set", "--audit", "off")
    use(rig)
    for address, port in ((WEB, 22), (OTHER, 80)):
        with pytest.raises(REFUSED):
            rig.client.call(fetch, address, port)
    with pytest.raises(REFUSED):
        rig.clients[1].call(ask_tcp, WEB, 7, b"never asked for")

    gateway.cli("learn", "forget", "--yes")
    assert gateway.json("learn", "show") == []


def test_audit_is_told_apart_and_counted(rig: Rig, gateway: Appliance) -> None:
    gateway.cli("appliance", "set", "--audit", "on")
    assert b"server" in rig.client.call(fetch, WEB, 80)

    def told() -> list[dict[str, object]]:
        return [row for row in gateway.json("flows", "--denied") if row["destination_port"] == 80]

    (row,) = wait_for(told, "audit to be told")
    assert (row["verdict"], row["reason"], row["source_service"]) == ("audit", "NO_MAPPING", "lan")
    (counted,) = gateway.json("status")["audited"]
    assert (counted["reason"], counted["mapping"], counted["packets"]) == ("NO_MAPPING", "", 1)


def test_a_denial_is_followed_with_names(rig: Rig, gateway: Appliance) -> None:
    gateway.cli("service", "add", "web", "--address", WEB)
    gateway.cli(
        "mapping", "add", "no", "--from", "lan", "--to", "web", "--protocol", "tcp", "--action", "deny",
        "--ports", "80",
    )  # fmt: skip
    events: list[dict[str, object]] = []
    words = [*gateway.command, "flows", "--denied", "--follow", "--limit", "1", "--output", "json"]

    def follow() -> None:
        events.append(json.loads(gateway.host.run(words, env=gateway.env).stdout))

    watcher = threading.Thread(target=follow)
    watcher.start()

    def refused() -> bool:
        with pytest.raises(REFUSED):
            rig.client.call(fetch, WEB, 80)
        return bool(events)

    wait_for(refused, "the refusal to be told")
    watcher.join()
    (event,) = events
    assert (event["kind"], event["reason"], event["mapping"]) == ("denied", "DENY_MAPPING", "no")
    assert (event["source_service"], event["destination_service"]) == ("lan", "web")
    (counted,) = [row for row in gateway.json("status")["denied"] if row["mapping"] == "no"]
    assert counted["reason"] == "DENY_MAPPING"


def test_a_dry_run_says_which_flows_it_cuts(rig: Rig, gateway: Appliance) -> None:
    gateway.cli("service", "add", "web", "--address", WEB)
    gateway.cli("mapping", "add", "out", "--from", "lan", "--to", "web", "--protocol", "tcp,udp")
    assert rig.client.call(ask_udp, WEB, 7, b"hello") == b"hello"
    document = gateway.json("export")
    document["clusters"][0]["mappings"] = []
    file = gateway.state.parent / "shut.json"
    file.write_text(json.dumps(document))
    cuts = gateway.json("apply", "-f", str(file), "--dry-run")["cuts"]
    (flow,) = [each for each in cuts["flows"] if each["protocol"] == "udp"]
    assert (flow["destination"], flow["cut_reason"]) == (WEB, "NO_MAPPING")
    assert rig.client.call(ask_udp, WEB, 7, b"hello") == b"hello", "nothing was changed"
