"""Tunnels of real clients: through the explicit proxy, and at listeners that want a token."""

import hashlib
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rig import Appliance, Host, Rig, wait_for
from rig.servers import start_echo, start_http
from rig.traffic import fetch

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", commands=["curl", "dnsmasq"])

PROXY, PROXY6 = "10.1.0.1:3128", "[fd01::1]:3128"
ZONE = {
    "www.shop.test": "10.2.0.2",
    "six.shop.test": "fd02::2",
    "dead.shop.test": "10.2.0.77",
    "rebind.world.test": "10.2.0.50",
    "metadata.world.test": "169.254.169.254",
    "own.world.test": "10.1.0.1",
}
SERVICES: tuple[tuple[str, ...], ...] = (
    ("lan", "--address", "10.1.0.0/24,fd01::/64"),
    ("shop", "--address", "*.shop.test,10.2.0.2,fd02::2,10.2.0.77"),
    ("world", "--address", "*.world.test"),
    ("vault", "--address", "10.2.0.3", "--port", "7", "--auth", "token"),
)
MAPPINGS: tuple[tuple[str, ...], ...] = (
    ("shop", "--from", "lan", "--to", "shop", "--protocol", "tcp", "--ports", "80,81"),
    ("dns", "--from", "lan", "--to", "shop", "--protocol", "udp", "--ports", "7"),
    ("world", "--from", "lan", "--to", "world", "--protocol", "tcp"),
    ("vault", "--from", "lan", "--to", "vault", "--protocol", "tcp"),
    ("line", "--from", "lan", "--to", "vault", "--protocol", "tcp", "--listen", "10.1.0.1:7000"),
)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(clients=2) as built:
        built.server.add_address("eth0", "10.2.0.3/24")
        start_http(built.server)
        start_echo(built.server, 7, "10.2.0.2", "10.2.0.3")
        names = [f"--address=/{name}/{address}" for name, address in ZONE.items()]
        built.server.popen(
            ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
             "--local-ttl=1", "--listen-address=10.2.0.2", "--bind-interfaces", *names]
        )  # fmt: skip
        yield built


@pytest.fixture(scope="module", params=["kernel", "sockets"])
def appliance(request: pytest.FixtureRequest, rig: Rig) -> Iterator[Appliance]:
    with Appliance(rig, name=str(request.param)) as built:
        built.cli("init")
        for name, role in (("inside0", "inside"), ("inside1", "inside"), ("outside0", "outside")):
            built.cli("interface", "add", name, "--role", role)
        for words in SERVICES:
            built.cli("service", "add", *words)
        for words in MAPPINGS:
            built.cli("mapping", "add", *words)
        built.cli("appliance", "set", "--resolver", "10.2.0.2")
        built.cli("listener", "add", "explicit", "--bind", "*:3128")
        built.start(*(("--no-bpf",) if request.param == "sockets" else ()))
        yield built


@pytest.fixture(scope="module")
def token(appliance: Appliance) -> str:
    return appliance.cli("token", "issue", "vault").stdout.strip()


def curl(host: Host, *words: str) -> subprocess.CompletedProcess[str]:
    return host.run(
        ["curl", "--silent", "--show-error", "--include", "--max-time", "10", *words], check=False
    )


def reason(text: str) -> str:
    """What a refusal names."""
    named = [line.partition(": ")[2] for line in text.splitlines() if line.startswith("X-MarchProxy-Reason")]
    return named[0] if named else ""


@pytest.mark.parametrize("proxy", [PROXY, PROXY6])
@pytest.mark.parametrize("words", [("--proxytunnel", "--proxy", "http://"), ("--proxy", "http://")])
@pytest.mark.parametrize("target", ["10.2.0.2", "[fd02::2]", "www.shop.test", "six.shop.test"])
def test_curl_through_the_http_proxy(
    rig: Rig, appliance: Appliance, proxy: str, words: tuple[str, ...], target: str
) -> None:
    *options, scheme = words
    result = curl(rig.client, *options, scheme + proxy, f"http://{target}/")
    assert "200 OK" in result.stdout, result
    assert f"server {'fd02::2' if 'six' in target or '[' in target else '10.2.0.2'}" in result.stdout


@pytest.mark.parametrize("proxy", [f"socks5h://{PROXY}", f"socks5h://{PROXY6}", f"socks5://{PROXY}"])
@pytest.mark.parametrize("target", ["10.2.0.2", "[fd02::2]", "www.shop.test"])
def test_curl_through_socks(rig: Rig, appliance: Appliance, proxy: str, target: str) -> None:
    if proxy.startswith("socks5:") and target[0] == "w":
        target = "10.2.0.2"
    assert "200 OK" in curl(rig.client, "--proxy", proxy, f"http://{target}/").stdout


@pytest.mark.parametrize(
    ("target", "status", "name"),
    [
        ("10.2.0.2:8080", "403", "NO_MAPPING"),
        ("rebind.world.test", "403", "PRIVATE_ADDRESS"),
        ("metadata.world.test", "403", "PRIVATE_ADDRESS"),
        ("own.world.test:3128", "403", "PRIVATE_ADDRESS"),
        ("10.1.0.1:22", "403", "NO_MAPPING"),
        ("10.2.0.3:7", "407", "AUTH_MISSING"),
        ("nowhere.shop.test", "502", "NAME_UNKNOWN"),
        ("10.2.0.2:81", "502", "UPSTREAM_REFUSED"),
        ("dead.shop.test", "502", "NO_ROUTE"),
    ],
)
def test_refusals_tell_a_person_why(
    rig: Rig, appliance: Appliance, target: str, status: str, name: str
) -> None:
    for words in (("--proxytunnel",), ()):
        result = curl(rig.client, *words, "--proxy", f"http://{PROXY}", f"http://{target}/")
        assert f"HTTP/1.1 {status}" in result.stdout, result
        assert reason(result.stdout) == name

    def told() -> bool:
        shown = appliance.json("flows", "--denied", "--reason", name, "--source", "10.1.0.2")
        named = target.partition(":")[0] in {row["name"] for row in shown}
        return bool(shown) and (named or not target[0].isalpha())

    wait_for(told, "the refusal to be told of")


def test_strangers_get_nothing(rig: Rig, appliance: Appliance) -> None:
    result = curl(rig.clients[1], "--proxy", f"http://{PROXY}", "http://www.shop.test/")
    assert reason(result.stdout) == "NO_MAPPING"


def test_tokens_open_tunnels(rig: Rig, appliance: Appliance, token: str) -> None:
    echo = rig.client.call(speak, ("10.1.0.1", 3128), connect_to("10.2.0.3:7", token), b"hello")
    assert echo == b"hello"
    for given in ("wrong", token + "x"):
        refused = rig.client.call(ask_head, ("10.1.0.1", 3128), connect_to("10.2.0.3:7", given))
        assert b"407" in refused
        assert b"AUTH_INVALID" in refused


def connect_to(target: str, token: str = "") -> bytes:
    credential = f"Proxy-Authorization: Bearer {token}\r\n" if token else ""
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{credential}\r\n".encode()


def ask_head(proxy: tuple[str, int], request: bytes) -> bytes:
    with socket.create_connection(proxy, 10) as sock:
        sock.sendall(request)
        return read_head(sock)


def read_head(sock: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        piece = sock.recv(1)
        if not piece:
            break
        head += piece
    return head


def opened(proxy: tuple[str, int], request: bytes) -> socket.socket:
    """A tunnel that stands."""
    sock = socket.create_connection(proxy, 10)
    sock.settimeout(20)
    sock.sendall(request)
    head = read_head(sock)
    assert b" 200 " in head, head
    return sock


def speak(proxy: tuple[str, int], request: bytes, data: bytes) -> bytes:
    with opened(proxy, request) as sock:
        sock.sendall(data)
        return sock.recv(len(data), socket.MSG_WAITALL)


def test_a_listener_wants_a_line_first(rig: Rig, appliance: Appliance, token: str) -> None:
    def ask(line: bytes) -> bytes:
        with socket.create_connection(("10.1.0.1", 7000), 10) as sock:
            sock.sendall(line)
            return sock.recv(100)

    assert rig.client.call(ask, f"MARCHPROXY/1 {token}\n".encode()) == b"OK\n"
    assert rig.client.call(ask, b"MARCHPROXY/1 nonsense\n") == b"ERR AUTH_INVALID\n"
    assert rig.client.call(ask, f"vault:{token}\n".encode()) == b"AUTH_OK\n"


@pytest.mark.parametrize("through", ["proxy", "listener"])
def test_connect_is_a_pipe_to_the_far_end(
    rig: Rig, appliance: Appliance, token: str, tmp_path: Path, through: str
) -> None:
    file = tmp_path / "token"
    file.write_text(token + "\n")
    words = ("10.2.0.3", "7", "--proxy", PROXY) if through == "proxy" else ("10.1.0.1", "7000")
    command = [*appliance.command, "connect", *words, "--token-file", str(file)]
    text = "both ways\n" * 20_000
    assert rig.client.run(command, env=appliance.env, stdin=text).stdout == text
    file.write_text("wrong")
    refused = rig.client.run(command, env=appliance.env, check=False)
    assert refused.returncode == 7
    assert "AUTH_INVALID" in refused.stderr


@pytest.mark.parametrize("pause", [0.0, 2.0])
def test_an_upload_that_ends_by_half_close_arrives_whole(
    rig: Rig, appliance: Appliance, token: str, pause: float
) -> None:
    """Before the kernel may take over, and after it has."""
    size = 8 << 20

    def upload() -> tuple[str, str]:
        sent, got = hashlib.sha256(), hashlib.sha256()
        with opened(("10.1.0.1", 3128), connect_to("10.2.0.3:7", token)) as sock:
            reading = threading.Thread(target=_drain, args=(sock, got))
            reading.start()
            for number in range(size >> 16):
                piece = number.to_bytes(4) * (1 << 14)
                sent.update(piece)
                sock.sendall(piece)
                if number == 8:
                    time.sleep(pause)
            sock.shutdown(socket.SHUT_WR)
            reading.join(20)
        return sent.hexdigest(), got.hexdigest()

    sent, got = rig.client.call(upload)
    assert sent == got


def _drain(sock: socket.socket, digest: Any) -> None:
    while data := sock.recv(65536):
        digest.update(data)


def test_the_kernel_takes_over_and_a_dead_daemon_is_not_missed(
    rig: Rig, appliance: Appliance, token: str
) -> None:
    if appliance.json("status", check=False)["tier"] != "kernel":
        return
    sock = rig.client.call(opened, ("10.1.0.1", 3128), connect_to("10.2.0.3:7", token))
    with sock:
        port = sock.getsockname()[1]

        def handed() -> list[dict[str, Any]]:
            sock.sendall(b"tick")
            assert sock.recv(4, socket.MSG_WAITALL) == b"tick"
            rows = appliance.json("flows", "--port", str(port))
            return [row for row in rows if row["reason"] == "HANDED_OFF"]

        row = wait_for(handed, "the kernel to take over")[0]
        assert (row["source_service"], row["mapping"], row["backend"]) in {
            ("lan", "tvault", "10.2.0.3"), ("vault", "vault", "10.2.0.3"), ("lan", "vault", "10.2.0.3"),
        }  # fmt: skip
        # It drains at first, and lives by its sockets until then.
        wait_for(lambda: not _sockets_at(rig, port), "the sockets to be closed")
        appliance.kill9()
        sock.sendall(b"still")
        assert sock.recv(5, socket.MSG_WAITALL) == b"still"
        appliance.start()
        sock.sendall(b"again")
        assert sock.recv(5, socket.MSG_WAITALL) == b"again"
        (row,) = appliance.json("flows", "--port", str(port))
        appliance.cli("flows", "cut", str(row["id"]))
        assert appliance.json("flows", "--port", str(port)) == []


def _sockets_at(rig: Rig, port: int) -> str:
    """Sockets of the appliance whose peer is at this port, one to a line."""
    return rig.middle.run(["ss", "--no-header", "--tcp", "--numeric", "dport", "=", f":{port}"]).stdout


def test_revoke_now_ends_tunnels_on_either_side_of_the_handoff(rig: Rig, appliance: Appliance) -> None:
    secret = appliance.cli("token", "issue", "vault").stdout.strip()
    number = str(max(row["id"] for row in appliance.json("token", "list")))
    socks = [rig.client.call(opened, ("10.1.0.1", 3128), connect_to("10.2.0.3:7", secret)) for _ in range(2)]
    try:
        appliance.cli("token", "revoke", "vault", "--id", number, "--now")

        def gone() -> bool:
            rows = appliance.json("flows", "--port", "7")
            return not {row["source_port"] for row in rows} & {sock.getsockname()[1] for sock in socks}

        wait_for(gone, "the tunnels to end")
        refused = rig.client.call(ask_head, ("10.1.0.1", 3128), connect_to("10.2.0.3:7", secret))
        assert b"AUTH_REVOKED" in refused
    finally:
        for sock in socks:
            sock.close()


def test_a_client_that_dies_in_the_middle_leaves_nothing(rig: Rig, appliance: Appliance, token: str) -> None:
    def die() -> int:
        sock = opened(("10.1.0.1", 3128), connect_to("10.2.0.3:7", token))
        sock.sendall(bytes(1 << 20))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        port = int(sock.getsockname()[1])
        sock.close()
        return port

    port = str(rig.client.call(die))
    wait_for(lambda: not appliance.json("flows", "--port", port), "the tunnel to end")


def test_thousands_who_say_nothing_do_not_hurt_the_others(rig: Rig, appliance: Appliance) -> None:
    """More of one source than it may have in all: it fills its own room, and nobody else's."""

    def crowd() -> list[socket.socket]:
        made = []
        for _ in range(5000):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("10.1.0.1", 3128))
            made.append(sock)
        return made

    socks = rig.clients[1].call(crowd)
    try:
        for _ in range(5):
            began = time.monotonic()
            assert "200 OK" in curl(rig.client, "--proxy", f"http://{PROXY}", "http://10.2.0.2/").stdout
            assert time.monotonic() - began < 2
    finally:
        for sock in socks:
            sock.close()


def test_what_is_routed_is_not_touched_by_all_this(rig: Rig, appliance: Appliance) -> None:
    if appliance.json("status", check=False)["tier"] == "kernel":
        assert b"server 10.2.0.2" in rig.client.call(fetch, "10.2.0.2", 80)
