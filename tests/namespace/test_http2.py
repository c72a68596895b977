"""HTTP/2 and gRPC: real clients and servers, and policy that changes under load."""

import hashlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig import Appliance, Host, Rig, wait_for
from rig.payload import payload
from rig.servers import start_grpc, start_http

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", commands=["curl", "h2load"])

SIZE = 8 << 20
SERVICES: tuple[tuple[str, ...], ...] = (
    ("lan", "--address", "10.1.0.0/24"),
    ("web", "--address", "10.2.0.2", "--port", "80"),
    ("api", "--address", "10.2.0.3", "--port", "80"),
    ("echo", "--address", "10.2.0.2", "--port", "50051", "--protocol", "grpc", "--health", "grpc:rig.Echo",
     "--health-interval", "1s"),
)  # fmt: skip
CLEAR = ("--protocol", "http", "--listen", "10.1.0.1:8080")
SECURE = ("--protocol", "https", "--listen", "10.1.0.1:8443", "--tls", "www")
MAPPINGS: tuple[tuple[str, ...], ...] = (
    ("web", "--from", "lan", "--to", "web", *CLEAR, "--host", "www.example"),
    ("secure", "--from", "lan", "--to", "web", *SECURE, "--host", "www.example"),
    ("closed", "--from", "lan", "--to", "web", *SECURE, "--path-prefix", "/admin", "--action", "deny",
     "--priority", "10"),
    ("echo", "--from", "lan", "--to", "echo", "--protocol", "grpc", *SECURE[2:], "--host", "www.example",
     "--path-prefix", "/rig.Echo"),
)  # fmt: skip
CALLER = """
import sys, grpc
target, ca, size = sys.argv[1], open(sys.argv[2], "rb").read(), int(sys.argv[3])
options = [("grpc.ssl_target_name_override", "www.example"), ("grpc.default_authority", "www.example:8443")]
with grpc.secure_channel(target, grpc.ssl_channel_credentials(ca), options) as channel:
    answer, call = channel.unary_unary("/rig.Echo/One").with_call(bytes(size), timeout=20)
    assert answer == bytes(size)
    assert dict(call.trailing_metadata())["x-server"] == "rig"
    words = [b"%d" % index for index in range(100)]
    assert list(channel.stream_stream("/rig.Echo/Many")(iter(words), timeout=20)) == words
    try:
        channel.unary_unary("/admin/Do")(b"", timeout=20)
    except grpc.RpcError as error:
        print(error.code().name, error.details())
"""


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(clients=1) as built:
        built.server.add_address("eth0", "10.2.0.3/24")
        start_http(built.server, 80, "10.2.0.2")
        start_http(built.server, 80, "10.2.0.3")
        start_grpc(built.server, 50051, "10.2.0.2")
        yield built


@pytest.fixture(scope="module")
def appliance(rig: Rig) -> Iterator[Appliance]:
    with Appliance(rig) as built:
        built.cli("init")
        built.cli("interface", "add", "inside0", "--role", "inside")
        built.cli("interface", "add", "outside0", "--role", "outside")
        built.cli("cert", "generate", "www", "--host", "www.example")
        for words in SERVICES:
            built.cli("service", "add", *words)
        for words in MAPPINGS:
            built.cli("mapping", "add", *words)
        built.start()
        yield built


@pytest.fixture(scope="module")
def ca(appliance: Appliance, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    file.write_text(appliance.cli("cert", "show", "ca", "--pem").stdout)
    return file


def curl(
    host: Host, ca: Path, path: str, *words: str, secure: bool = True
) -> subprocess.CompletedProcess[str]:
    """A request by HTTP/2; the version that was spoken, and the status, stand at the end."""
    port, scheme = (8443, "https") if secure else (8080, "http")
    spoken = ("--http2", "--cacert", str(ca)) if secure else ("--http2-prior-knowledge",)
    said = ("--silent", "--show-error", "--max-time", "20", "--write-out", "\n%{http_version} %{http_code}")
    where = ("--resolve", f"www.example:{port}:10.1.0.1")
    return host.run(
        ["curl", *said, *where, *spoken, *words, f"{scheme}://www.example:{port}{path}"], check=False
    )


@pytest.mark.parametrize("secure", [True, False])
def test_curl_speaks_it(rig: Rig, appliance: Appliance, ca: Path, secure: bool) -> None:
    done = curl(rig.client, ca, "/x", secure=secure)
    assert "server 10.2.0.2" in done.stdout, done.stderr
    assert done.stdout.endswith("\n2 200")


def test_what_is_refused_says_why(rig: Rig, appliance: Appliance, ca: Path) -> None:
    done = curl(rig.client, ca, "/admin/x")
    assert done.stdout.endswith("\n2 403")
    assert "DENY_MAPPING" in done.stdout


def test_bodies_are_whole(rig: Rig, appliance: Appliance, ca: Path, tmp_path: Path) -> None:
    hasher = hashlib.sha256()
    for piece in payload(SIZE):
        hasher.update(piece)
    file = tmp_path / "got"
    done = curl(rig.client, ca, f"/bytes/{SIZE}", "--output", str(file))
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(file.read_bytes()).hexdigest() == hasher.hexdigest()
    sent = curl(rig.client, ca, "/up", "--data-binary", f"@{file}")
    assert hasher.hexdigest() in sent.stdout


def test_each_request_is_in_the_event_stream(rig: Rig, appliance: Appliance, ca: Path) -> None:
    follow = ("events", "--kind", "request", "--output", "json")
    watching = appliance.host.popen([*appliance.command, *follow], env=appliance.env)

    def seen() -> dict[str, object] | None:
        curl(rig.client, ca, "/seen")
        rows = map(json.loads, filter(None, watching.output().splitlines()))
        return next((each for each in rows if each["path"] == "/seen"), None)

    try:
        row = wait_for(seen, "the request")
    finally:
        watching.stop()
    assert (row["version"], row["status"], row["mapping"]) == ("2", 200, "secure")


def test_grpc_passes_with_streams_and_trailers(rig: Rig, appliance: Appliance, ca: Path) -> None:
    def healthy() -> bool:
        [backend] = appliance.json("service", "show", "echo")["backends"]
        return bool(backend["checked"] and backend["state"] == "up")

    wait_for(healthy, "the health check")
    call = [sys.executable, "-c", CALLER, "10.1.0.1:8443", str(ca), "300000"]
    done = rig.client.run(call, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("PERMISSION_DENIED DENY_MAPPING: "), done.stdout


@pytest.mark.parametrize("secure", [True, False])
def test_changes_under_load_fail_no_request(rig: Rig, appliance: Appliance, secure: bool) -> None:
    done: list[subprocess.CompletedProcess[str]] = []
    url = "https://10.1.0.1:8443/" if secure else "http://10.1.0.1:8080/"

    def work() -> None:
        load = ("h2load", "--clients", "4", "--max-concurrent-streams", "10", "--requests", "2000")
        done.append(rig.client.run([*load, "--header", ":authority: www.example", url], timeout=60))

    loading = threading.Thread(target=work)
    loading.start()
    for turn in range(5):
        name = f"more{turn}"
        appliance.cli(
            "mapping", "add", name, "--from", "lan", "--to", "api", *CLEAR, "--host", f"{name}.example"
        )
        appliance.cli("cert", "renew", "www")
    loading.join(60)
    for turn in range(5):
        appliance.cli("mapping", "remove", f"more{turn}", "--yes")
    found = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", done[0].stdout)
    assert found is not None, done[0].stdout
    assert found.groups() == ("2000", "0", "0"), done[0].stdout
    assert "2000 2xx" in done[0].stdout
