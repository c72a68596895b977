"""A gateway that reads whom TLS asks for: real TLS, routed through, whose name decides."""

import hashlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from rig import Appliance, Rig, wait_for
from rig.traffic import TIMEOUT
from tests.dataplane.health.test_probes import self_signed

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", "ipv6")

PORT = 443
SERVER = {4: "10.2.0.2", 6: "fd02::2"}
BOTH = pytest.mark.parametrize("version", [4, 6], ids=["v4", "v6"])


def talk(connection: ssl.SSLSocket) -> None:
    """Send back the hash of what comes, which begins with its length."""
    with connection:
        length = int.from_bytes(_exactly(connection, 8))
        digest = hashlib.sha256()
        while length:
            data = connection.recv(min(65536, length))
            digest.update(data)
            length -= len(data)
        connection.sendall(digest.digest())


def _exactly(connection: ssl.SSLSocket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        assert piece, "the connection ended"
        data += piece
    return data


def serve(listening: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=_serve_one, args=(connection, context), daemon=True).start()


def _serve_one(connection: socket.socket, context: ssl.SSLContext) -> None:
    try:
        talk(context.wrap_socket(connection, server_side=True))
    except (OSError, AssertionError):
        connection.close()


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    context = self_signed(tmp_path_factory.mktemp("certificate"))
    with Rig() as built:
        sockets = []
        for family, address in ((socket.AF_INET, SERVER[4]), (socket.AF_INET6, SERVER[6])):
            listening = built.server.socket(family, socket.SOCK_STREAM)
            listening.bind((address, PORT))
            listening.listen(64)
            threading.Thread(target=serve, args=(listening, context), daemon=True).start()
            sockets.append(listening)
        yield built
        for listening in sockets:
            listening.close()


@pytest.fixture(scope="module")
def appliance(rig: Rig) -> Iterator[Appliance]:
    with Appliance(rig) as built:
        cli = built.cli
        cli("init")
        cli("interface", "add", "inside0", "--role", "inside")
        cli("interface", "add", "outside0", "--role", "outside")
        cli("service", "add", "lan", "--address", "10.1.0.0/24,fd01::/64")
        cli("service", "add", "shop", "--address", "10.2.0.2,fd02::2,*.shop.test")
        words = ("--from", "lan", "--to", "shop", "--protocol", "tcp", "--ports", str(PORT), "--sni")
        cli("mapping", "add", "shop", *words)
        cli("appliance", "set", "--handoff-bytes", "20000")
        built.start()
        yield built


def connect(rig: Rig, version: int, name: str | None) -> ssl.SSLSocket:
    """A TLS client that asks for `name`. Raises as `ssl` and sockets do."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    plain = rig.client.socket(family, socket.SOCK_STREAM)
    plain.settimeout(TIMEOUT)
    try:
        plain.connect((SERVER[version], PORT))
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(plain, server_hostname=name)
    except BaseException:
        plain.close()
        raise


def exchange(client: ssl.SSLSocket, size: int) -> bool:
    """Whether the server got what was sent."""
    data = os.urandom(size)
    client.sendall(size.to_bytes(8) + data)
    return _exactly(client, 32) == hashlib.sha256(data).digest()


def refused(appliance: Appliance, reason: str) -> int:
    """How many were, by the counters."""
    counters = appliance.json("status", check=False)["counters"]
    return int(counters.get(reason, {"packets": 0})["packets"])


@BOTH
def test_who_asks_for_the_right_name_gets_through(rig: Rig, appliance: Appliance, version: int) -> None:
    with connect(rig, version, "www.shop.test") as client:
        (flow,) = [row for row in appliance.json("flows") if row["source_port"] == client.getsockname()[1]]
        assert (flow["mapping"], flow["name"]) == ("shop", "www.shop.test")
        assert exchange(client, 1000)


@BOTH
def test_bulk_is_handed_to_the_kernel(rig: Rig, appliance: Appliance, version: int) -> None:
    with connect(rig, version, "www.shop.test") as client:
        port = client.getsockname()[1]
        size = 30_000_000
        data = os.urandom(size)
        client.sendall(size.to_bytes(8) + data[:1_000_000])

        def is_the_kernels() -> bool:
            rows: list[Any] = [row for row in appliance.json("flows") if row["source_port"] == port]
            return [row["tier"] for row in rows] == ["tc"]

        wait_for(is_the_kernels, "the tunnel to be the kernel's")
        client.sendall(data[1_000_000:])
        assert _exactly(client, 32) == hashlib.sha256(data).digest()


@BOTH
def test_another_name_goes_nowhere_and_is_named(rig: Rig, appliance: Appliance, version: int) -> None:
    before = refused(appliance, "SNI_MISMATCH")
    with pytest.raises(ssl.SSLError, match=r"(?i)name|denied|alert"):
        connect(rig, version, "www.elsewhere.test")
    wait_for(lambda: refused(appliance, "SNI_MISMATCH") == before + 1, "the refusal to be counted")


@BOTH
def test_without_a_name_it_goes_nowhere(rig: Rig, appliance: Appliance, version: int) -> None:
    before = refused(appliance, "SNI_MISSING")
    with pytest.raises(ssl.SSLError):
        connect(rig, version, None)
    wait_for(lambda: refused(appliance, "SNI_MISSING") == before + 1, "the refusal to be counted")


def test_what_is_no_tls_goes_nowhere(rig: Rig, appliance: Appliance) -> None:
    with rig.client.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(TIMEOUT)
        client.connect((SERVER[4], PORT))
        client.sendall(b"GET / HTTP/1.1\r\nHost: www.shop.test\r\n\r\n")
        try:
            assert client.recv(100).startswith((b"", b"\x15"))
        except ConnectionResetError:
            return
        assert client.recv(100) == b""


def test_a_new_plan_leaves_what_is_allowed_alone_and_ends_the_rest(rig: Rig, appliance: Appliance) -> None:
    with connect(rig, 4, "www.shop.test") as client:
        appliance.cli("mapping", "set", "shop", "--priority", "90")
        assert exchange(client, 1000)
    with connect(rig, 4, "www.shop.test") as client:
        appliance.cli("mapping", "set", "shop", "--action", "deny", "--no-sni")
        with pytest.raises((OSError, AssertionError)):
            exchange(client, 1000)
        appliance.cli("mapping", "set", "shop", "--action", "allow", "--sni")
