"""Mappings that listen on ranges of ports: carried in the kernel, and behind a token by one socket."""

import hashlib
import socket
import subprocess
from collections.abc import Iterator

import pytest

from rig import Appliance, Rig, wait_for
from rig.payload import digest
from rig.traffic import ask_tcp, ask_udp, fetch

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", "ipv6", "sk_lookup")

GUARDED = range(9000, 9500)
SIZE = 8 << 20


POLICY = """
interfaces:
  - {name: inside0, role: inside}
  - {name: outside0, role: outside}
services:
  - {name: clients, addresses: ["10.1.0.0/24", "fd01::/64"]}
  - {name: web, addresses: [10.2.0.2, "fd02::2"], port: 80}
  - {name: same, addresses: [10.2.0.2]}
  - {name: vault, addresses: [10.2.0.2, "fd02::2"], port: 80, auth: token}
mappings:
  - {name: many, sources: [clients], destinations: [web], protocols: [tcp], listen: "*:20000-20499"}
  - {name: same, sources: [clients], destinations: [same], protocols: [tcp, udp], listen: "10.1.0.1:1-10"}
  - name: guarded
    sources: [clients]
    destinations: [vault]
    protocols: [tcp]
    listen: 10.1.0.1:9000-9499
    auth_required: true
  - name: guarded-too
    sources: [clients]
    destinations: [vault]
    protocols: [tcp]
    listen: "*:9600-9699"
    auth_required: true
"""


@pytest.fixture(scope="module", params=["kernel", "sockets"])
def appliance(request: pytest.FixtureRequest, rig: Rig) -> Iterator[Appliance]:
    tier = str(request.param)
    with Appliance(rig, name=f"ranges-{tier}") as built:
        built.cli("init")
        built.cli("apply", "-f", "-", "--yes", stdin=POLICY)
        built.start(*(["--no-bpf"] if tier == "sockets" else []))
        yield built


@pytest.fixture(scope="module")
def token(appliance: Appliance) -> str:
    return appliance.cli("token", "issue", "vault").stdout.strip()


def without_bpf(appliance: Appliance) -> bool:
    return appliance.bpffs.name.endswith("sockets")


def present(address: str, port: int, token: str, size: int) -> tuple[bytes, str]:
    """What a token is answered with, and the SHA-256 of `size` bytes behind it."""
    with socket.create_connection((address, port), timeout=15) as client, client.makefile("rb") as answers:
        client.sendall(f"MARCHPROXY/1 {token}\nGET /bytes/{size} HTTP/1.0\r\n\r\n".encode())
        said = answers.readline()
        while answers.readline().strip():
            pass
        return said, hashlib.sha256(answers.read(size)).hexdigest()


def listening(ports: range) -> int:
    """Sockets of this host that listen on one of `ports`, but for those of loopback."""
    shown = subprocess.run(["ss", "-ltnH"], capture_output=True, text=True, check=True)
    places = [line.split()[3].rpartition(":") for line in shown.stdout.splitlines()]
    return sum(int(port) in ports and not host.startswith("127.") for host, _, port in places)


@pytest.mark.parametrize("address", ["10.1.0.1", "fd01::1"])
def test_every_port_leads_to_the_services_port(rig: Rig, appliance: Appliance, address: str) -> None:
    for port in (20000, 20250, 20499):
        assert b"server" in rig.client.call(fetch, address, port)
    for port in (19999, 20500):
        with pytest.raises(ConnectionRefusedError):
            rig.client.call(fetch, address, port)


def test_without_a_port_of_its_own_a_service_is_asked_on_the_same(rig: Rig, appliance: Appliance) -> None:
    assert rig.client.call(ask_tcp, "10.1.0.1", 7, b"hello") == b"hello"
    assert rig.client.call(ask_udp, "10.1.0.1", 7, b"hello") == b"hello"
    with pytest.raises((ConnectionRefusedError, ConnectionResetError)):
        rig.client.call(ask_tcp, "10.1.0.1", 8, b"hello")


def test_a_token_opens_each_port(rig: Rig, appliance: Appliance, token: str) -> None:
    places = [("10.1.0.1", port) for port in (9000, 9123, 9499, 9600, 9699)]
    for address, port in (*places, ("fd01::1", 9650)):
        assert rig.client.call(present, address, port, token, SIZE) == (b"OK\n", digest(SIZE))
    said, _ = rig.client.call(present, "10.1.0.1", 9123, "wrong", 1)
    assert said == b"ERR AUTH_INVALID\n"


def test_one_socket_receives_for_all_of_them_in_the_kernel_tier(rig: Rig, appliance: Appliance) -> None:
    wanted = (500, 200) if without_bpf(appliance) else (1, 2)
    assert appliance.host.call(lambda: (listening(GUARDED), listening(range(9600, 9700)))) == wanted


def test_what_is_asked_for_is_what_is_written_down(rig: Rig, appliance: Appliance) -> None:
    rig.client.call(present, "10.1.0.1", 9321, "wrong", 1)
    row = wait_for(
        lambda: [each for each in appliance.json("flows", "--denied") if each["destination_port"] == 9321],
        "the refusal to be shown",
    )[0]
    assert (row["reason"], row["mapping"]) == ("AUTH_INVALID", "guarded")


def test_a_range_is_cut_short_and_goes(rig: Rig, appliance: Appliance, token: str) -> None:
    appliance.cli("mapping", "set", "guarded-too", "--listen", "*:9600-9649")
    wait_for(lambda: _refused(rig, 9650), "the port to be closed")
    assert rig.client.call(present, "10.1.0.1", 9649, token, 1)[0] == b"OK\n"
    appliance.cli("mapping", "remove", "guarded-too", "--yes")
    wait_for(lambda: _refused(rig, 9600), "the ports to be closed")


def test_a_restart_keeps_it(rig: Rig, appliance: Appliance, token: str) -> None:
    appliance.restart(*(["--no-bpf"] if without_bpf(appliance) else []))
    assert rig.client.call(present, "10.1.0.1", 9400, token, SIZE) == (b"OK\n", digest(SIZE))


def test_detach_takes_it_out(rig: Rig, appliance: Appliance) -> None:
    appliance.stop()
    said = appliance.cli("detach", "--yes").stdout
    assert ("look-up of listeners that share a socket" in said) is not without_bpf(appliance)
    assert not appliance.bpffs.exists()
    assert _refused(rig, 9400)


def _refused(rig: Rig, port: int) -> bool:
    try:
        rig.client.call(fetch, "10.1.0.1", port)
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    except OSError:
        return False
    return False
