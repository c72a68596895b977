"""HTTP that is read: real clients, real servers, and policy that changes under load."""

import hashlib
import json
import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rig import Appliance, Host, Rig, wait_for
from rig.payload import payload
from rig.servers import start_http
from rig.traffic import TIMEOUT
from tests.namespace.test_clients import ACCEPTED, read_exactly
from tests.namespace.test_clients import WEBSOCKET as FIELDS

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", commands=["curl", "wrk"])

SIZE = 8 << 20
SERVICES: tuple[tuple[str, ...], ...] = (
    ("lan", "--address", "10.1.0.0/24"),
    ("others", "--address", "10.1.1.0/24"),
    ("web", "--address", "10.2.0.2", "--port", "80"),
    ("api", "--address", "10.2.0.3", "--port", "80"),
    ("vault", "--address", "10.2.0.3", "--port", "80", "--auth", "token"),
    ("chat", "--address", "10.2.0.2", "--port", "8080"),
)
LISTEN = ("--protocol", "http", "--listen", "10.1.0.1:8080")
SECURE = ("--protocol", "https", "--listen", "10.1.0.1:8443")
MAPPINGS: tuple[tuple[str, ...], ...] = (
    ("web", "--from", "lan", "--to", "web", *LISTEN, "--host", "www.example"),
    ("api", "--from", "lan", "--to", "api", *LISTEN, "--host", "*.api.example"),
    ("v2", "--from", "lan", "--to", "api", *LISTEN, "--host", "www.example", "--path-prefix", "/v2"),
    ("closed", "--from", "lan", "--to", "web", *LISTEN, "--path-prefix", "/admin", "--action", "deny",
     "--priority", "10"),
    ("keys", "--from", "lan", "--to", "vault", *LISTEN, "--host", "vault.example"),
    ("chat", "--from", "lan", "--to", "chat", *LISTEN, "--host", "chat.example"),
    ("secure", "--from", "lan", "--to", "web", *SECURE, "--tls", "www", "--host", "www.example"),
    ("secure-api", "--from", "lan", "--to", "api", *SECURE, "--tls", "api", "--host", "x.api.example"),
)  # fmt: skip


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(clients=2) as built:
        built.server.add_address("eth0", "10.2.0.3/24")
        start_http(built.server, 80, "10.2.0.2")
        start_http(built.server, 80, "10.2.0.3")
        yield built


@pytest.fixture(scope="module", params=["kernel", "sockets"])
def appliance(request: pytest.FixtureRequest, rig: Rig) -> Iterator[Appliance]:
    with Appliance(rig, name=str(request.param)) as built:
        built.cli("init")
        for name, role in (("inside0", "inside"), ("inside1", "inside"), ("outside0", "outside")):
            built.cli("interface", "add", name, "--role", role)
        built.cli("cert", "generate", "www", "--host", "www.example")
        built.cli("cert", "generate", "api", "--host", "*.api.example")
        for words in SERVICES:
            built.cli("service", "add", *words)
        for words in MAPPINGS:
            built.cli("mapping", "add", *words)
        built.start(*(("--no-bpf",) if request.param == "sockets" else ()))
        yield built


@pytest.fixture(scope="module")
def ca(appliance: Appliance, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    file.write_text(appliance.cli("cert", "show", "ca", "--pem").stdout)
    return file


def curl(host: Host, url: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A request to whoever has that name, at the appliance."""
    name = url.split("/")[2]
    where = f"{name}:10.1.0.1" if ":" in name else f"{name}:8080:10.1.0.1"
    return host.run(
        ["curl", "--silent", "--show-error", "--max-time", "20", "--resolve", where, *words, url], check=False
    )


def status(host: Host, url: str, *words: str) -> tuple[int, str]:
    """Status, and the reason if it is one of ours."""
    done = curl(host, url, "--include", *words)
    assert done.returncode == 0, done.stderr
    reason = re.search(r"^x-marchproxy-reason: (\w+)\r?$", done.stdout, re.MULTILINE)
    return int(done.stdout.split(" ")[1]), reason[1] if reason else ""


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("http://www.example:8080/", "10.2.0.2"),
        ("http://www.example:8080/v2/x", "10.2.0.3"),
        ("http://www.example:8080/v22", "10.2.0.2"),
        ("http://x.api.example:8080/", "10.2.0.3"),
        ("http://X.API.example:8080/", "10.2.0.3"),
    ],
)
def test_host_and_path_choose_the_server(rig: Rig, appliance: Appliance, url: str, server: str) -> None:
    assert f"server {server}" in curl(rig.client, url).stdout


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://other.example:8080/", (404, "NO_MAPPING")),
        ("http://www.example:8080/admin/x", (403, "DENY_MAPPING")),
        ("http://x.api.example:8080/admin", (403, "DENY_MAPPING")),
        ("http://vault.example:8080/", (401, "AUTH_MISSING")),
        ("http://www.example:8080/status/503", (503, "")),
    ],
)
def test_what_is_refused_says_why_and_so_does_explain(
    rig: Rig, appliance: Appliance, url: str, expected: tuple[int, str]
) -> None:
    assert status(rig.client, url) == expected
    name = url.split("/")[2].partition(":")[0]
    path = "/" + url.split("/", 3)[3]
    asked = ("--from", "10.1.0.2", "--to", "10.1.0.1", "--port", "8080", "--protocol", "http")
    done = appliance.cli("explain", *asked, "--host", name, "--path", path, "--output", "json", check=False)
    assert done.returncode == (10 if expected[1] else 0)
    assert json.loads(done.stdout)["reason"] == (expected[1] or "FORWARDED")


def test_dots_do_not_get_around_a_route(rig: Rig, appliance: Appliance) -> None:
    for path in ("/v2/../admin", "/v2/%2e%2e/admin", "/x/..;/admin", "/v2/..%2fadmin"):
        found = status(rig.client, f"http://www.example:8080{path}", "--path-as-is")
        assert found == (400, "MALFORMED")


def test_who_is_no_source_is_reset(rig: Rig, appliance: Appliance) -> None:
    done = curl(rig.clients[1], "http://www.example:8080/")
    assert done.returncode in (7, 52, 56)


def test_a_token_opens_its_route(rig: Rig, appliance: Appliance) -> None:
    token = appliance.cli("token", "issue", "vault").stdout.strip()
    url = "http://vault.example:8080/"
    assert status(rig.client, url, "--header", f"Authorization: Bearer {token}") == (200, "")
    assert status(rig.client, url, "--user", f"vault:{token}") == (200, "")
    assert status(rig.client, url, "--user", "vault:wrong") == (401, "AUTH_INVALID")
    appliance.cli("token", "revoke", "vault", "--now")
    assert status(rig.client, url, "--user", f"vault:{token}") == (401, "AUTH_REVOKED")


def test_bodies_are_whole(rig: Rig, appliance: Appliance, tmp_path: Path) -> None:
    hasher = hashlib.sha256()
    for piece in payload(SIZE):
        hasher.update(piece)
    file = tmp_path / "got"
    done = curl(rig.client, f"http://www.example:8080/bytes/{SIZE}", "--output", str(file))
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(file.read_bytes()).hexdigest() == hasher.hexdigest()
    sent = curl(rig.client, "http://www.example:8080/up", "--data-binary", f"@{file}")
    assert sent.stdout.strip() == hasher.hexdigest()


@pytest.mark.parametrize(("name", "server"), [("www.example", "10.2.0.2"), ("x.api.example", "10.2.0.3")])
def test_tls_is_spoken_with_the_certificate_of_the_name(
    rig: Rig, appliance: Appliance, ca: Path, name: str, server: str
) -> None:
    where = ("--cacert", str(ca), "--resolve", f"{name}:8443:10.1.0.1")
    done = curl(rig.client, f"https://{name}:8443/", *where)
    assert f"server {server}" in done.stdout, done.stderr


def test_each_request_is_in_the_event_stream(rig: Rig, appliance: Appliance) -> None:
    follow = ("events", "--kind", "request", "--output", "json")
    watching = appliance.host.popen([*appliance.command, *follow], env=appliance.env)

    def seen() -> dict[str, Any] | None:
        curl(rig.client, "http://www.example:8080/v2/seen?secret=1")
        rows = map(json.loads, filter(None, watching.output().splitlines()))
        return next((each for each in rows if each["path"] == "/v2/seen"), None)

    try:
        row = wait_for(seen, "the request")
    finally:
        watching.stop()
    assert (row["method"], row["status"], row["name"]) == ("GET", 200, "www.example")
    assert (row["mapping"], row["backend"]) == ("v2", "10.2.0.3:80")


def tier(appliance: Appliance) -> str:
    return str(appliance.json("status", check=False)["tier"])


def _chat(rig: Rig) -> socket.socket:
    listening: socket.socket = rig.server.call(socket.create_server, ("10.2.0.2", 8080))

    def serve() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            with client, suppress(ConnectionError):
                head = b""
                while b"\r\n\r\n" not in head:
                    head += client.recv(4096)
                answer = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPTED}"
                client.sendall(f"HTTP/1.1 101 Switching Protocols\r\n{answer}\r\n\r\n".encode())
                while data := client.recv(65536):
                    client.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    return listening


def test_a_websocket_goes_through_and_to_the_kernel(rig: Rig, appliance: Appliance) -> None:
    listening = _chat(rig)
    frame = b"\x82\xff" + SIZE.to_bytes(8) + bytes(4) + os.urandom(SIZE)

    def talk() -> bytes:
        with socket.create_connection(("10.1.0.1", 8080), TIMEOUT) as sock:
            sock.sendall(
                f"GET /chat HTTP/1.1\r\nHost: chat.example\r\n{FIELDS.partition(chr(10))[2]}".encode()
            )
            head = b""
            while b"\r\n\r\n" not in head:
                head += sock.recv(1)
            assert head.startswith(b"HTTP/1.1 101 ")
            if tier(appliance) == "kernel":
                wait_for(lambda: ticks(sock), "the handoff")
            sending = threading.Thread(target=sock.sendall, args=(frame,))
            sending.start()
            got = read_exactly(sock, len(frame))
            sending.join(TIMEOUT)
            return got

    def ticks(sock: socket.socket) -> bool:
        sock.sendall(b"tick")
        assert read_exactly(sock, 4) == b"tick"
        return any(row["reason"] == "HANDED_OFF" for row in appliance.json("flows"))

    try:
        assert rig.client.call(talk) == frame
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def test_changes_under_load_fail_no_request(rig: Rig, appliance: Appliance) -> None:
    done: list[subprocess.CompletedProcess[str]] = []

    def work() -> None:
        load = ("wrk", "--threads", "1", "--connections", "16", "--duration", "6s", "--timeout", "20s")
        done.append(rig.client.run([*load, "--header", "Host: www.example", "http://10.1.0.1:8080/"]))

    loading = threading.Thread(target=work)
    loading.start()
    for turn in range(10):
        name = f"more{turn}"
        appliance.cli(
            "mapping", "add", name, "--from", "lan", "--to", "api", *LISTEN, "--host", f"{name}.example"
        )
        appliance.cli("cert", "renew", "www")
    loading.join(60)
    for turn in range(10):
        appliance.cli("mapping", "remove", f"more{turn}", "--yes")
    said = done[0].stdout
    assert "Requests/sec" in said
    assert "Socket errors" not in said
    assert "Non-2xx" not in said
