"""TLS that the appliance speaks itself: an HTTPS proxy, and listeners that want a token under TLS."""

import hashlib
import os
import re
import shlex
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from marchproxy.cli.securing import SecureSocket
from rig import Appliance, Host, Rig, wait_for
from rig.servers import start_echo, start_http
from tests.namespace.sshd import ssh, start_sshd

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", commands=["curl", "openssl"])

PROXY, DOOR, SHELL = ("10.1.0.1", 3129), ("10.1.0.1", 7443), ("10.1.0.1", 2222)
NAME = "proxy.example"
SIZE = 8 << 20
SERVICES: tuple[tuple[str, ...], ...] = (
    ("lan", "--address", "10.1.0.0/24"),
    ("web", "--address", "10.2.0.2", "--port", "80"),
    ("vault", "--address", "10.2.0.3", "--port", "7", "--auth", "token"),
    ("shell", "--address", "10.2.0.3", "--port", "22", "--auth", "token"),
)
MAPPINGS: tuple[tuple[str, ...], ...] = (
    ("web", "--from", "lan", "--to", "web", "--protocol", "tcp", "--ports", "80"),
    ("vault", "--from", "lan", "--to", "vault", "--protocol", "tcp"),
    ("shell", "--from", "lan", "--to", "shell", "--protocol", "tcp"),
    *(
        (name, "--from", "lan", "--to", to, "--protocol", "tcp", "--tls", "proxy", "--listen", at)
        for name, to, at in (
            ("door", "vault", "10.1.0.1:7443"),
            ("ssh", "shell", "10.1.0.1:2222"),
            ("open", "web", "10.1.0.1:8443"),
        )
    ),
)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(clients=2) as built:
        built.server.add_address("eth0", "10.2.0.3/24")
        start_http(built.server)
        start_echo(built.server, 7, "10.2.0.3")
        yield built


@pytest.fixture(scope="module", params=["kernel", "sockets"])
def appliance(request: pytest.FixtureRequest, rig: Rig) -> Iterator[Appliance]:
    with Appliance(rig, name=str(request.param)) as built:
        built.cli("init")
        for name, role in (("inside0", "inside"), ("inside1", "inside"), ("outside0", "outside")):
            built.cli("interface", "add", name, "--role", role)
        built.cli("cert", "generate", "proxy", "--host", NAME, "--host", "10.1.0.1")
        for words in SERVICES:
            built.cli("service", "add", *words)
        for words in MAPPINGS:
            built.cli("mapping", "add", *words)
        built.cli("listener", "add", "explicit", "--bind", "10.1.0.1:3129", "--tls", "proxy")
        built.start(*(("--no-bpf",) if request.param == "sockets" else ()))
        yield built


@pytest.fixture(scope="module")
def ca(appliance: Appliance, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What clients are told to trust."""
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    file.write_text(appliance.cli("cert", "show", "ca", "--pem").stdout)
    return file


@pytest.fixture(scope="module")
def token(appliance: Appliance) -> str:
    return appliance.cli("token", "issue", "vault").stdout.strip()


def curl(host: Host, *words: str) -> subprocess.CompletedProcess[str]:
    return host.run(
        ["curl", "--silent", "--show-error", "--include", "--max-time", "10", *words], check=False
    )


def secured(place: tuple[str, int], ca: Path) -> SecureSocket:
    """A client's connection."""
    context = ssl.create_default_context(cafile=str(ca))
    sock = socket.create_connection(place, 10)
    try:
        return SecureSocket(sock, context, NAME, "the appliance")
    except BaseException:
        sock.close()
        raise


def connect_to(target: str, token: str = "") -> bytes:
    credential = f"Proxy-Authorization: Bearer {token}\r\n" if token else ""
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{credential}\r\n".encode()


def exactly(sock: SecureSocket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := sock.recv(size - len(data))):
        data += piece
    return data


def opened(ca: Path, token: str) -> SecureSocket:
    """A tunnel through the proxy to what sends back all that it gets."""
    sock = secured(PROXY, ca)
    sock.sendall(connect_to("10.2.0.3:7", token))
    head = b""
    while b"\r\n\r\n" not in head:
        head += exactly(sock, 1)
    assert b" 200 " in head, head
    return sock


@pytest.mark.parametrize("words", [("--proxytunnel",), ()])
@pytest.mark.parametrize("name", ["10.1.0.1", NAME])
def test_curl_through_the_https_proxy(
    rig: Rig, appliance: Appliance, ca: Path, words: tuple[str, ...], name: str
) -> None:
    trust = ("--proxy-cacert", str(ca), "--resolve", f"{NAME}:3129:10.1.0.1")
    result = curl(rig.client, *words, *trust, "--proxy", f"https://{name}:3129", "http://10.2.0.2/")
    assert "server 10.2.0.2" in result.stdout, result
    refused = curl(rig.client, *words, *trust, "--proxy", f"https://{name}:3129", "http://10.2.0.3:7/")
    assert "407" in refused.stdout
    assert "AUTH_MISSING" in refused.stdout


def test_curl_with_a_token(rig: Rig, appliance: Appliance, ca: Path, token: str) -> None:
    """What answers is no HTTP server, but sends the request back."""
    words = ("--silent", "--no-buffer", "--proxytunnel", "--http0.9", "--proxy-cacert", str(ca))
    asking = rig.client.popen(
        ["curl", *words, "--proxy-user", f"vault:{token}", "--proxy", "https://10.1.0.1:3129",
         "http://10.2.0.3:7/probe"]
    )  # fmt: skip
    asking.expect("GET /probe")
    asking.stop()


def test_who_does_not_trust_the_ca_gets_nowhere(rig: Rig, appliance: Appliance) -> None:
    result = curl(rig.client, "--proxytunnel", "--proxy", "https://10.1.0.1:3129", "http://10.2.0.2/")
    assert result.returncode == 60
    wait_for(
        lambda: appliance.json("flows", "--denied", "--reason", "TLS_FAILED", "--source", "10.1.0.2"),
        "the refusal to be told of",
    )


def test_http_in_the_clear_is_told_where_it_is(rig: Rig, appliance: Appliance) -> None:
    result = curl(rig.client, "--proxytunnel", "--proxy", "http://10.1.0.1:3129", "http://10.2.0.2/")
    assert "400" in result.stdout
    assert "X-MarchProxy-Reason: MALFORMED" in result.stdout


def s_client(host: Host, ca: Path, *words: str, said: str = "") -> str:
    result = host.run(
        ["openssl", "s_client", "-connect", "10.1.0.1:8443", "-CAfile", str(ca), "-verify_return_error",
         "-verify_hostname", NAME, *words],
        check=False, stdin=said,
    )  # fmt: skip
    return result.stdout + result.stderr


@pytest.mark.parametrize(("flag", "version"), [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")])
def test_openssl_agrees(rig: Rig, appliance: Appliance, ca: Path, flag: str, version: str) -> None:
    said = s_client(rig.client, ca, flag, "-ign_eof", said="GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert f"New, {version}, Cipher is" in said
    assert "Verify return code: 0 (ok)" in said or "Verification: OK" in said
    assert "server 10.2.0.2" in said
    assert "ECDSA" in said


@pytest.mark.parametrize("flag", ["-tls1", "-tls1_1"])
def test_old_versions_are_refused(rig: Rig, appliance: Appliance, ca: Path, flag: str) -> None:
    said = s_client(rig.client, ca, flag, "-cipher", "DEFAULT@SECLEVEL=0")
    assert "Cipher is (NONE)" in said
    assert "alert protocol version" in said
    wait_for(
        lambda: appliance.json("flows", "--denied", "--reason", "TLS_FAILED", "--port", "8443"),
        "the refusal to be told of",
    )


def test_the_proxy_says_what_it_speaks(rig: Rig, appliance: Appliance, ca: Path) -> None:
    words = ["openssl", "s_client", "-connect", "10.1.0.1:3129", "-CAfile", str(ca), "-alpn", "h2,http/1.1"]
    assert "ALPN protocol: http/1.1" in rig.client.run(words, check=False).stdout


def test_socks_under_tls(rig: Rig, appliance: Appliance, ca: Path, token: str) -> None:
    user, secret = b"vault", token.encode()

    def speak() -> bytes:
        with secured(PROXY, ca) as sock:
            sock.sendall(b"\x05\x01\x02")
            assert exactly(sock, 2) == b"\x05\x02"
            sock.sendall(bytes([1, len(user)]) + user + bytes([len(secret)]) + secret)
            assert exactly(sock, 2) == b"\x01\x00"
            sock.sendall(b"\x05\x01\x00\x01" + bytes([10, 2, 0, 3]) + b"\x00\x07")
            assert exactly(sock, 10)[1] == 0
            sock.sendall(b"hello")
            return exactly(sock, 5)

    assert rig.client.call(speak) == b"hello"


@pytest.mark.parametrize("way", ["proxy", "listener"])
def test_an_upload_that_ends_by_half_close_arrives_whole_and_comes_back(
    rig: Rig, appliance: Appliance, ca: Path, token: str, way: str
) -> None:
    data = os.urandom(SIZE)

    def enter() -> SecureSocket:
        if way == "proxy":
            return opened(ca, token)
        sock = secured(DOOR, ca)
        sock.sendall(f"MARCHPROXY/1 {token}\n".encode())
        assert exactly(sock, 3) == b"OK\n"
        return sock

    def upload() -> str:
        got = hashlib.sha256()
        with enter() as sock:

            def read() -> None:
                while piece := sock.recv(65536):
                    got.update(piece)

            reading = threading.Thread(target=read)
            reading.start()
            for start in range(0, SIZE, 100_000):
                sock.sendall(data[start : start + 100_000])
            sock.shutdown(socket.SHUT_WR)
            reading.join(30)
        return got.hexdigest()

    assert rig.client.call(upload) == hashlib.sha256(data).hexdigest()
    wait_for(lambda: not appliance.json("flows", "--port", "7"), "the tunnel to end")


def test_the_kernel_never_gets_it(rig: Rig, appliance: Appliance, ca: Path, token: str) -> None:
    sock = rig.client.call(opened, ca, token)
    with sock:
        port = sock._socket.getsockname()[1]
        for _ in range(20):
            sock.sendall(bytes(8192))
            assert len(exactly(sock, 8192)) == 8192

        def is_old() -> Any:
            (row,) = appliance.json("flows", "--port", str(port))
            return row if row["last_seen"] > row["started"] and row["bytes_sent"] == 20 * 8192 else None

        row = wait_for(is_old, "the tunnel to be listed")
        assert (row["tier"], row["reason"], row["bytes_received"]) == ("sockets", "FORWARDED", 20 * 8192)
        appliance.cli("flows", "cut", str(row["id"]))
        with pytest.raises(ConnectionResetError):
            exactly(sock, 1)


@pytest.mark.requires(commands=["ssh", "sshd", "ssh-keygen"])
@pytest.mark.parametrize("way", ["proxy", "scheme", "listener"])
def test_ssh_over_connect(
    rig: Rig, appliance: Appliance, key: Path, ca: Path, tmp_path: Path, way: str
) -> None:
    secret = tmp_path / "token"
    secret.write_text(appliance.cli("token", "issue", "shell").stdout)
    where = {
        "proxy": "%h %p --proxy 10.1.0.1:3129 --tls",
        "scheme": f"%h %p --proxy https://10.1.0.1:3129 --server-name {NAME}",
        "listener": "10.1.0.1 2222 --tls",
    }[way]
    command = f"{shlex.join(appliance.command)} connect {where} --ca {ca} --token-file {secret}"
    words = ssh(key, tmp_path, command, "10.2.0.3")
    text = "".join(f"line {number}\n" for number in range(100_000))
    assert rig.client.run([*words, "cat"], env=appliance.env, stdin=text).stdout == text
    assert rig.client.run([*words, "exit 3"], env=appliance.env, check=False).returncode == 3


@pytest.fixture(scope="module")
def key(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start_sshd(rig.server, "10.2.0.3", tmp_path_factory.mktemp("ssh"))


def test_connect_says_whom_it_does_not_trust(
    rig: Rig, appliance: Appliance, ca: Path, tmp_path: Path, token: str
) -> None:
    secret = tmp_path / "token"
    secret.write_text(token)
    other = tmp_path / "other.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=other", "-keyout",
         str(tmp_path / "key"), "-out", str(other)], check=True, capture_output=True,
    )  # fmt: skip

    def connect(*words: str) -> subprocess.CompletedProcess[str]:
        command = [*appliance.command, "connect", "10.1.0.1", "7443", "--token-file", str(secret), *words]
        return rig.client.run(command, env=appliance.env, check=False, stdin="hello")

    good = connect("--tls", "--ca", str(ca))
    assert (good.returncode, good.stdout) == (0, "hello"), good
    for words, said in (
        (("--tls",), "10.1.0.1:7443 is not trusted"),
        (("--tls", "--ca", str(other)), "10.1.0.1:7443 is not trusted"),
        (("--tls", "--ca", str(ca), "--server-name", "other.example"), "no certificate for other.example"),
        ((), "it speaks TLS: give --tls"),
    ):
        bad = connect(*words)
        assert bad.returncode != 0
        assert said in bad.stderr, bad
        assert bad.stdout == ""
        assert token not in bad.stderr
    pinned = tmp_path / "pinned.pem"
    pinned.write_text(appliance.cli("cert", "show", "proxy", "--pem").stdout)
    assert connect("--tls", "--ca", str(pinned)).stdout == "hello"


def shown(host: Host, ca: Path) -> str:
    """The fingerprint that a new client sees."""

    def look() -> str:
        with secured(DOOR, ca) as sock:
            certificate = sock._secured.tls.getpeercert(binary_form=True) or b""
            return hashlib.sha256(certificate).hexdigest()

    return host.call(look)


def test_a_renewed_certificate_is_shown_at_once_and_ends_no_tunnel(
    rig: Rig, appliance: Appliance, ca: Path, token: str
) -> None:
    before = shown(rig.client, ca)
    assert before == appliance.json("cert", "show", "proxy")["fingerprint"]
    with rig.client.call(opened, ca, token) as sock:
        for _ in range(3):
            appliance.cli("cert", "renew", "proxy")
            after = shown(rig.client, ca)
            assert after == appliance.json("cert", "show", "proxy")["fingerprint"] != before
            sock.sendall(b"still")
            assert exactly(sock, 5) == b"still"


def test_an_end_in_sight_is_told_everywhere(rig: Rig, appliance: Appliance, ca: Path) -> None:
    appliance.cli("cert", "renew", "proxy", "--days", "20")
    try:
        status = appliance.json("status", check=False)
        (row,) = status["certificates"]
        assert (row["name"], row["usable"], row["hosts"]) == ("proxy", True, [NAME, "10.1.0.1"])
        assert [text for text in status["warnings"] if text.startswith("certificates: certificate proxy")]
        assert not [text for text in status["problems"] if text.startswith("certificates")]
        found = [row for row in appliance.json("doctor", check=False) if row["name"] == "certificates"]
        assert [row["severity"] for row in found] == ["warning"]
        assert found[0]["fix"] == "marchproxy cert renew proxy"
        metrics = appliance.host.run(["curl", "--silent", "http://127.0.0.1:9090/metrics"]).stdout
        match = re.search(
            r'marchproxy_certificate_expiry_timestamp_seconds\{certificate="proxy"\} (\S+)', metrics
        )
        assert match is not None
        assert float(match[1]) > 1e9
        appliance.cli("appliance", "set", "--certificate-warning", "10d")
        assert not appliance.json("status", check=False)["warnings"]
    finally:
        appliance.cli("appliance", "set", "--certificate-warning", "")
        appliance.cli("cert", "renew", "proxy")


def test_keys_are_nowhere_but_sealed(rig: Rig, appliance: Appliance) -> None:
    files = [path for path in appliance.state.iterdir() if path.is_file()]
    assert files
    for path in files:
        assert b"PRIVATE KEY" not in path.read_bytes(), path
    said = appliance.cli("export").stdout + appliance.cli("cert", "show", "proxy", "--output", "json").stdout
    assert "PRIVATE KEY" not in said
    assert '"tls":"proxy"' in said


def test_strangers_are_not_even_spoken_to(rig: Rig, appliance: Appliance, ca: Path) -> None:
    with pytest.raises(ConnectionResetError):
        rig.clients[1].call(secured, DOOR, ca)
    wait_for(
        lambda: appliance.json("flows", "--denied", "--reason", "NO_MAPPING", "--port", "7443"),
        "the refusal to be told of",
    )
