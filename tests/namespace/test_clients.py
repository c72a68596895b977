"""Programs that people use, as they use them: through the explicit proxy, and over `marchproxy connect`."""

import hashlib
import json
import os
import shlex
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from rig import Appliance, Rig, wait_for
from rig.servers import start_http
from rig.traffic import TIMEOUT
from tests.namespace.sshd import listens, ssh, start_sshd
from tests.namespace.test_tunnels import read_head

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", commands=["dnsmasq"])

PROXY = "10.1.0.1:3128"
NAME = "files.shop.test"
SITE = f"http://{NAME}:8000"
SIZE = 4 << 20
"""Bytes of the file that goes to and fro: far more than a tunnel carries before the kernel has it."""
SERVICES: tuple[tuple[str, ...], ...] = (
    ("lan", "--address", "10.1.0.0/24"),
    ("shop", "--address", f"{NAME},10.2.0.2"),
    ("shell", "--address", "10.2.0.3", "--port", "22", "--auth", "token"),
)
MAPPINGS: tuple[tuple[str, ...], ...] = (
    ("shop", "--from", "lan", "--to", "shop", "--protocol", "tcp", "--ports", "8000,8080,9418"),
    ("shell", "--from", "lan", "--to", "shell", "--protocol", "tcp"),
    ("speed", "--from", "lan", "--to", "shell", "--protocol", "tcp", "--ports", "5201"),
    ("door", "--from", "lan", "--to", "shell", "--protocol", "tcp", "--listen", "10.1.0.1:2222"),
)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as built:
        built.server.add_address("eth0", "10.2.0.3/24")
        built.server.popen(
            ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
             "--listen-address=10.2.0.2", "--bind-interfaces", f"--address=/{NAME}/10.2.0.2"]
        )  # fmt: skip
        yield built


@pytest.fixture(scope="module", params=["kernel", "sockets"])
def appliance(request: pytest.FixtureRequest, rig: Rig) -> Iterator[Appliance]:
    with Appliance(rig, name=str(request.param)) as built:
        built.cli("init")
        for name, role in (("inside0", "inside"), ("outside0", "outside")):
            built.cli("interface", "add", name, "--role", role)
        for words in SERVICES:
            built.cli("service", "add", *words)
        for words in MAPPINGS:
            built.cli("mapping", "add", *words)
        built.cli("appliance", "set", "--resolver", "10.2.0.2")
        built.cli("listener", "add", "explicit", "--bind", PROXY)
        built.start(*(("--no-bpf",) if request.param == "sockets" else ()))
        yield built


@pytest.fixture(scope="module")
def site(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a plain file server has; to be filled."""
    folder = tmp_path_factory.mktemp("site")
    # Of HTTP/1.1, so that clients hope for a connection that stays.
    words = ["--directory", str(folder), "--protocol", "HTTP/1.1", "--bind", "10.2.0.2", "8000"]
    rig.server.popen([sys.executable, "-m", "http.server", *words])
    wait_for(lambda: listens(rig.server, "10.2.0.2", 8000), "the file server")
    return folder


def git(folder: Path, *words: str) -> None:
    author = ["-c", "user.name=t", "-c", "user.email=t@shop.test", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *author, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def repository(site: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A repository on the server, and the file in it."""
    work = tmp_path_factory.mktemp("work")
    content = os.urandom(SIZE)
    git(work, "init", "--quiet")
    (work / "file").write_bytes(content)
    git(work, "add", "file")
    git(work, "commit", "--quiet", "--message", "file")
    git(work, "clone", "--quiet", "--bare", str(work), str(site / "repo.git"))
    git(site / "repo.git", "update-server-info")
    return content


@pytest.mark.requires(commands=["git"])
@pytest.mark.parametrize("scheme", ["http", "socks5h"])
def test_git_clones_by_http(
    rig: Rig, appliance: Appliance, repository: bytes, tmp_path: Path, scheme: str
) -> None:
    proxy = f"http.proxy={scheme}://{PROXY}"
    rig.client.run(["git", "-c", proxy, "clone", "--quiet", f"{SITE}/repo.git", str(tmp_path / "clone")])
    assert (tmp_path / "clone" / "file").read_bytes() == repository


@pytest.mark.requires(commands=["git"])
def test_git_clones_by_its_own_protocol_over_connect(
    rig: Rig, appliance: Appliance, site: Path, repository: bytes, tmp_path: Path
) -> None:
    daemon = ["git", "daemon", "--export-all", "--listen=10.2.0.2", f"--base-path={site}", str(site)]
    rig.server.popen(daemon)
    wait_for(lambda: listens(rig.server, "10.2.0.2", 9418), "git daemon")
    script = tmp_path / "proxy"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(appliance.command)} connect "$1" "$2" --proxy {PROXY}\n')
    script.chmod(0o755)
    env = {**appliance.env, "GIT_PROXY_COMMAND": str(script)}
    rig.client.run(["git", "clone", "--quiet", f"git://{NAME}/repo.git", str(tmp_path / "clone")], env=env)
    assert (tmp_path / "clone" / "file").read_bytes() == repository


def test_pip_installs(rig: Rig, appliance: Appliance, site: Path, tmp_path: Path) -> None:
    folder = site / "simple" / "probe"
    folder.mkdir(parents=True, exist_ok=True)
    wheel = "probe-1.0-py3-none-any.whl"
    info = "probe-1.0.dist-info"
    with zipfile.ZipFile(folder / wheel, "w") as archive:
        archive.writestr("probe.bin", bytes(SIZE))
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: probe\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    (folder / "index.html").write_text(f'<a href="{wheel}">{wheel}</a>')
    rig.client.run(
        [sys.executable, "-m", "pip", "--isolated", "install", "--quiet", "--no-cache-dir", "--proxy",
         f"http://{PROXY}", "--index-url", f"{SITE}/simple", "--trusted-host", NAME, "--target",
         str(tmp_path), "probe"]
    )  # fmt: skip
    assert (tmp_path / "probe.bin").stat().st_size == SIZE


@pytest.mark.requires(commands=["apt-get", "dpkg-deb"])
def test_apt_updates_and_downloads(rig: Rig, appliance: Appliance, site: Path, tmp_path: Path) -> None:
    names = [f"probe{number}" for number in range(5)]
    (site / "apt").mkdir(exist_ok=True)
    entries = [package(site / "apt", name) for name in names]
    (site / "apt" / "Packages").write_text("\n".join(entries))
    for folder in ("lists/partial", "cache/archives/partial", "parts"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "list").write_text(f"deb [trusted=yes] {SITE}/apt ./\n")
    (tmp_path / "status").touch()
    options = {
        "Acquire::http::Proxy": f"http://{PROXY}", "APT::Sandbox::User": "root",
        "Dir::Etc::sourcelist": tmp_path / "list", "Dir::Etc::sourceparts": tmp_path / "parts",
        "Dir::State::lists": tmp_path / "lists", "Dir::State::status": tmp_path / "status",
        "Dir::Cache": tmp_path / "cache",
    }  # fmt: skip
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    rig.client.run(["apt-get", *words, "--error-on=any", "update"])
    rig.client.run(["apt-get", *words, "--yes", "--download-only", "install", *names])
    got = {path.name.partition("_")[0] for path in (tmp_path / "cache" / "archives").glob("*.deb")}
    assert got == set(names)


def package(folder: Path, name: str) -> str:
    """Put an empty package there; its entry in the index."""
    control = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: t <t@shop.test>\nDescription: t\n"
    tree = folder / name
    (tree / "DEBIAN").mkdir(parents=True, exist_ok=True)
    (tree / "DEBIAN" / "control").write_text(control)
    file = folder / f"{name}.deb"
    subprocess.run(["dpkg-deb", "--build", str(tree), str(file)], check=True, capture_output=True)
    data = file.read_bytes()
    return (
        f"{control}Filename: ./{file.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
    )


@pytest.fixture(scope="module")
def ssh_key(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key that sshd at 10.2.0.3 lets in."""
    return start_sshd(rig.server, "10.2.0.3", tmp_path_factory.mktemp("ssh"))


@pytest.mark.requires(commands=["ssh", "sshd", "ssh-keygen"])
@pytest.mark.parametrize("through", ["proxy", "listener"])
def test_ssh_over_connect(
    rig: Rig, appliance: Appliance, ssh_key: Path, tmp_path: Path, through: str
) -> None:
    token = tmp_path / "token"
    token.write_text(appliance.cli("token", "issue", "shell").stdout)
    where = f"%h %p --proxy {PROXY}" if through == "proxy" else "10.1.0.1 2222"
    command = f"{shlex.join(appliance.command)} connect {where} --token-file {token}"
    words = ssh(ssh_key, tmp_path, command, "10.2.0.3")
    text = "".join(f"line {number}\n" for number in range(100_000))
    assert rig.client.run([*words, "cat"], env=appliance.env, stdin=text).stdout == text
    assert rig.client.run([*words, "exit 3"], env=appliance.env, check=False).returncode == 3


@pytest.fixture
def door(rig: Rig, appliance: Appliance, tmp_path: Path) -> Iterator[None]:
    """A port of the client's own host: each who connects there gets a `marchproxy connect` of its own."""
    token = tmp_path / "token"
    token.write_text(appliance.cli("token", "issue", "shell").stdout)
    words = [*appliance.command, "connect", "10.2.0.3", "5201", "--proxy", PROXY, "--token-file", str(token)]
    listening = rig.client.call(socket.create_server, ("127.0.0.1", 5201))
    children: list[subprocess.Popen[bytes]] = []

    def serve() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            with client:
                children.append(
                    subprocess.Popen(
                        rig.client.enter(words),
                        stdin=client.fileno(),
                        stdout=client.fileno(),
                        env={**os.environ, **appliance.env},
                    )
                )

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(TIMEOUT)
    for child in children:
        child.wait(TIMEOUT)


@pytest.mark.requires(commands=["iperf3"])
@pytest.mark.parametrize("reverse", [(), ("--reverse",)], ids=["up", "down"])
def test_iperf3_over_connect(rig: Rig, appliance: Appliance, door: None, reverse: tuple[str, ...]) -> None:
    """A tunnel for each of its three connections. It stops counting while bytes are on their way."""
    rig.server.popen(["iperf3", "--server", "--one-off", "--bind", "10.2.0.3"])
    wait_for(lambda: "10.2.0.3:5201" in rig.server.run(["ss", "-Hltn"]).stdout, "iperf3's server")
    words = ["iperf3", "--client", "127.0.0.1", "--bytes", "64M", "--parallel", "2", "--json", *reverse]
    end = json.loads(rig.client.run(words, timeout=60).stdout)["end"]
    assert end["sum_sent"]["bytes"] >= 64 << 20
    assert end["sum_received"]["bytes"] >= 32 << 20


@pytest.mark.requires(commands=["wrk"])
def test_wrk_over_connect(rig: Rig, appliance: Appliance, door: None) -> None:
    server = start_http(rig.server, 5201, "10.2.0.3")
    done = rig.client.run(
        ["wrk", "-t", "1", "-c", "8", "-d", "1s", "--timeout", "20s", "http://127.0.0.1:5201/"], timeout=60
    )
    server.stop()
    assert "Non-2xx" not in done.stdout
    assert "Socket errors" not in done.stdout
    assert "Requests/sec" in done.stdout


WEBSOCKET = "".join(
    f"{line}\r\n"
    for line in (
        f"Host: {NAME}:8080", "Connection: keep-alive, Upgrade", "Upgrade: websocket",
        "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "",
    )
)  # fmt: skip
ACCEPTED = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""What a server makes of that key (RFC 6455 section 1.3)."""


@pytest.fixture(scope="module")
def websocket(rig: Rig) -> Iterator[None]:
    """A server that switches protocols, and then sends the client's frames back to it as they are."""
    listening = rig.server.call(socket.create_server, ("10.2.0.2", 8080))

    def serve() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            # A client that gives up has asserted something, and says so itself.
            with client, suppress(ConnectionError):
                head = read_head(client).decode().lower()
                assert "\r\nupgrade: websocket\r\n" in head
                assert "\r\nconnection: upgrade\r\n" in head or "keep-alive, upgrade" in head
                answer = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPTED}"
                client.sendall(f"HTTP/1.1 101 Switching Protocols\r\n{answer}\r\n\r\n".encode())
                while data := client.recv(65536):
                    client.sendall(data)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(TIMEOUT)


def read_exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (piece := sock.recv(size - len(data))):
        data += piece
    return bytes(data)


@pytest.mark.parametrize("form", ["CONNECT", "absolute"])
def test_a_websocket_goes_through(rig: Rig, appliance: Appliance, websocket: None, form: str) -> None:
    frame = b"\x82\xff" + SIZE.to_bytes(8) + bytes(4) + os.urandom(SIZE)

    def talk() -> list[bytes]:
        with socket.create_connection(("10.1.0.1", 3128), TIMEOUT) as sock:
            if form == "CONNECT":
                sock.sendall(f"CONNECT {NAME}:8080 HTTP/1.1\r\nHost: {NAME}:8080\r\n\r\n".encode())
                assert b" 200 " in read_head(sock)
            target = "/chat" if form == "CONNECT" else f"http://{NAME}:8080/chat"
            sock.sendall(f"GET {target} HTTP/1.1\r\n{WEBSOCKET}".encode())
            head = read_head(sock).decode()
            assert head.startswith("HTTP/1.1 101 ")
            assert ACCEPTED in head
            got = []
            for _ in range(2):
                sending = threading.Thread(target=sock.sendall, args=(frame,))
                sending.start()
                got.append(read_exactly(sock, len(frame)))
                sending.join(TIMEOUT)
            return got

    assert rig.client.call(talk) == [frame, frame]
