"""HTTP/3 through a whole appliance: what clients get, from where, and what a worker's death does to them."""

import asyncio
import hashlib
import json
import os
import re
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from aioquic.quic.packet import QuicErrorCode

from rig import Appliance, Host, Rig, wait_for
from rig.payload import payload
from rig.servers import start_http
from tests.dataplane.http.http3.peer import Http3Client

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", commands=["curl"])

SIZE = 2 << 20
AT = ("10.1.0.1", 8443)
HTTP3 = ("--protocol", "https,quic", "--listen", "*:8443", "--tls", "www")
SERVICES: tuple[tuple[str, ...], ...] = (
    ("lan", "--address", "10.1.0.0/24,fd01::/64"),
    ("far", "--address", "10.1.1.0/24"),
    ("web", "--address", "10.2.0.2,fd02::2", "--port", "80"),
    ("vault", "--address", "10.2.0.3,fd02::2", "--port", "80", "--auth", "token"),
)
MAPPINGS: tuple[tuple[str, ...], ...] = (
    ("web", "--from", "lan,far", "--to", "web", *HTTP3, "--host", "www.example"),
    ("keys", "--from", "lan", "--to", "vault", *HTTP3, "--host", "vault.example"),
    ("closed", "--from", "lan", "--to", "web", "--protocol", "https", "--listen", "*:8443",
     "--path-prefix", "/admin", "--action", "deny", "--priority", "10"),
)  # fmt: skip


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(clients=2) as built:
        built.server.add_address("eth0", "10.2.0.3/24")
        start_http(built.server, 80, "10.2.0.2", "10.2.0.3", "fd02::2")
        built.client.add_address("eth0", "10.1.0.77/24", "10.1.5.5/32")
        built.middle.ip("route add 10.1.5.5/32 dev inside0")
        yield built


@pytest.fixture(scope="module", params=["kernel", "sockets"])
def appliance(request: pytest.FixtureRequest, rig: Rig) -> Iterator[Appliance]:
    with Appliance(rig, name=str(request.param)) as built:
        built.env["MARCHPROXY_WORKERS"] = "3"
        built.cli("init")
        for name, role in (("inside0", "inside"), ("inside1", "inside"), ("outside0", "outside")):
            built.cli("interface", "add", name, "--role", role)
        built.cli("cert", "generate", "www", "--host", "www.example", "--host", "vault.example")
        for words in SERVICES:
            built.cli("service", "add", *words)
        for words in MAPPINGS:
            built.cli("mapping", "add", *words)
        built.start(*(("--no-bpf",) if request.param == "sockets" else ()))
        yield built


@pytest.fixture(scope="module")
def ca(appliance: Appliance) -> str:
    return appliance.cli("cert", "show", "ca", "--pem").stdout


def talk[T](
    host: Host,
    ca: str,
    said: Callable[[Http3Client], Awaitable[T]],
    *,
    own: str = "10.1.0.2",
    at: tuple[str, int] = AT,
) -> T:
    """Have a client in that host say something."""

    async def conversation() -> T:
        client = Http3Client(at[1], "www.example", at[0], own, ca)
        try:
            await client.connect()
            return await said(client)
        finally:
            client.close()

    return host.call(lambda: asyncio.run(conversation()))


@pytest.mark.parametrize(
    ("own", "at"), [("10.1.0.2", ("10.1.0.1", 8443)), ("fd01::2", ("fd01::1", 8443))], ids=["ipv4", "ipv6"]
)
def test_requests_are_answered_from_the_address_that_was_asked(
    rig: Rig, appliance: Appliance, ca: str, own: str, at: tuple[str, int]
) -> None:
    async def said(client: Http3Client) -> tuple[int, bytes]:
        found = await client.get("/", "www.example")
        return found.status, found.body

    status, body = talk(rig.client, ca, said, own=own, at=at)
    assert status == 200
    assert b"server" in body


def test_policy_and_credentials_are_those_of_tcp(rig: Rig, appliance: Appliance, ca: str) -> None:
    token = json.loads(appliance.cli("token", "issue", "vault", "--output", "json").stdout)["token"]

    async def said(client: Http3Client) -> list[tuple[int, str]]:
        asked = (
            ("/admin/x", "www.example"),
            ("/", "other.example"),
            ("/", "vault.example"),
            ("/", "vault.example", ("authorization", f"Bearer {token}")),
            ("/%2e%2e/admin", "www.example"),
        )
        found = [await client.get(*each) for each in asked]
        return [(each.status, each.fields.get("x-marchproxy-reason", "")) for each in found]

    assert talk(rig.client, ca, said) == [
        (403, "DENY_MAPPING"),
        (404, "NO_MAPPING"),
        (401, "AUTH_MISSING"),
        (200, ""),
        (400, "MALFORMED"),
    ]


def test_answers_over_tcp_tell_of_it(rig: Rig, appliance: Appliance, ca: str, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(ca)
    words = ["curl", "--silent", "--show-error", "--include", "--cacert", str(file), "--max-time", "20"]
    words += ["--resolve", "www.example:8443:10.1.0.1", "https://www.example:8443/"]
    assert 'alt-svc: h3=":8443"; ma=3600' in rig.client.run(words).stdout


def test_bodies_are_whole_both_ways(rig: Rig, appliance: Appliance, ca: str) -> None:
    data = b"".join(payload(SIZE))

    async def said(client: Http3Client) -> tuple[str, bytes]:
        down = await client.answer(client.ask(f"/bytes/{SIZE}", host="www.example"), 60)
        fields = ("content-length", str(SIZE))
        up = await client.answer(client.ask("/up", "POST", "www.example", fields, body=data), 60)
        return hashlib.sha256(down.body).hexdigest(), up.body

    down, up = talk(rig.client, ca, said)
    assert down == hashlib.sha256(data).hexdigest()
    assert up.decode() == down


def test_a_client_that_moves_is_the_same_client_and_asked_again(
    rig: Rig, appliance: Appliance, ca: str
) -> None:
    """With three workers at one port, another port or address would bring it to another one."""

    async def said(client: Http3Client) -> list[int]:
        found = []
        for index in range(12):
            client.rebind("10.1.0.2" if index % 2 else "10.1.0.77")
            if index % 3 == 0:
                client.quic.change_connection_id()
            found.append((await client.get("/", "www.example")).status)
        assert client.ended is None
        return found

    assert talk(rig.client, ca, said) == [200] * 12


def test_a_request_is_in_the_event_stream_and_its_connection_among_flows(
    rig: Rig, appliance: Appliance, ca: str
) -> None:
    stream = appliance.host.popen(
        [*appliance.command, "events", "--kind", "request", "--output", "json"], env=appliance.env
    )
    own: list[dict[str, object]] = []

    async def said(client: Http3Client) -> None:
        for index in range(400):
            await client.get(f"/seen/{index}", "www.example")
            if "/seen/" in stream.output():
                break
            await asyncio.sleep(0.1)
        await asyncio.get_running_loop().run_in_executor(None, listed)

    def listed() -> None:
        own.extend(wait_for(lambda: established(appliance), "its connection among flows"))

    talk(rig.client, ca, said)
    line = next(line for line in stream.output().splitlines() if "/seen/" in line)
    assert re.search(r'"version": ?"3"', line)
    stream.stop()


def established(appliance: Appliance) -> list[dict[str, object]]:
    flows: list[dict[str, object]] = appliance.json("flows", "--mapping", "web")
    return [each for each in flows if each["protocol"] == "udp" and each["state"] == "established"]


@pytest.mark.requires(commands=["chromium", "openssl"])
def test_chromium_gets_its_page(rig: Rig, appliance: Appliance, tmp_path: Path) -> None:
    """QUIC of somebody else, which a browser has."""
    file = tmp_path / "www.pem"
    file.write_text(appliance.cli("cert", "show", "www", "--pem").stdout)
    public = f"openssl x509 -in {file} -pubkey -noout | openssl pkey -pubin -outform der"
    digest = rig.client.run(["sh", "-c", f"{public} | openssl dgst -sha256 -binary | base64"]).stdout.strip()
    words = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    words += ["--enable-quic", "--origin-to-force-quic-on=www.example:8443", "--dump-dom"]
    words += ["--host-resolver-rules=MAP www.example 10.1.0.1"]
    words += [f"--ignore-certificate-errors-spki-list={digest}", "https://www.example:8443/from-chromium"]
    stream = appliance.host.popen(
        [*appliance.command, "events", "--kind", "request", "--output", "json"], env=appliance.env
    )
    for _ in range(5):
        assert "server 10.2.0.2" in rig.client.run(words, timeout=90).stdout
        if "/from-chromium" in stream.output():
            break
    stream.expect("/from-chromium")
    seen = [json.loads(line) for line in stream.output().splitlines() if "/from-chromium" in line]
    assert {each["version"] for each in seen} == {"3"}
    stream.stop()


def test_who_is_no_source_is_refused(rig: Rig, appliance: Appliance, ca: str) -> None:
    async def said(client: Http3Client) -> int | None:
        return client.ended.error_code if client.ended else None

    assert talk(rig.client, ca, said, own="10.1.5.5") == QuicErrorCode.CONNECTION_REFUSED


def test_a_worker_that_is_killed_tells_its_clients_by_its_successor(
    rig: Rig, appliance: Appliance, ca: str
) -> None:
    """A stateless reset, which a client knows by a token that only we can have made."""

    async def said(client: Http3Client) -> float:
        assert (await client.get("/", "www.example")).status == 200
        token = client.quic._peer_cid.stateless_reset_token
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, _kill_workers, appliance)
        began = loop.time()
        while loop.time() - began < 20:
            client.quic.send_ping(1)
            client.flush()
            await asyncio.sleep(0.2)
            if token and any(each.endswith(token) for each in client.received):
                return loop.time() - began
        raise AssertionError("no reset")

    assert talk(rig.client, ca, said) < 20

    async def again(client: Http3Client) -> int:
        return (await client.get("/", "www.example")).status

    assert talk(rig.client, ca, again) == 200


def _kill_workers(appliance: Appliance) -> None:
    daemon = appliance.daemon
    assert daemon is not None
    workers = [pid for pid in _children(daemon.pid) if b"workers.worker" in _command(pid)]
    assert len(workers) == 3
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    wait_for(
        lambda: not {*workers} & {*_children(daemon.pid)} and len(_children(daemon.pid)) >= 3,
        "workers to be there again",
    )


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(each) for file in found for each in file.read_text().split()]


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_changes_under_load_fail_no_request(rig: Rig, appliance: Appliance, ca: str) -> None:
    """Other mappings come and go, and certificates are renewed, while requests are asked."""

    async def said(client: Http3Client) -> tuple[int, set[int]]:
        loop = asyncio.get_running_loop()

        def change() -> None:
            for index in range(5):
                appliance.cli("mapping", "set", "closed", "--description", f"change {index}")
                appliance.cli("cert", "generate", "www", "--host", "www.example", "--replace", check=False)

        changing = loop.run_in_executor(None, change)
        count, seen = 0, set()
        while not changing.done() or count <= 50:
            numbers = [client.ask("/", "GET", "www.example") for _ in range(20)]
            for number in numbers:
                seen.add((await client.answer(number)).status)
                count += 1
        await changing
        assert client.ended is None
        return count, seen

    count, seen = talk(rig.client, ca, said)
    assert seen == {200}
    assert count > 50, "what the test asks, whoever is slow"


def test_a_daemon_that_is_killed_leaves_the_port_to_the_next(
    rig: Rig, appliance: Appliance, ca: str, request: pytest.FixtureRequest
) -> None:
    async def said(client: Http3Client) -> int:
        assert (await client.get("/", "www.example")).status == 200
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, appliance.kill9)
        return (await client.end()).error_code

    assert talk(rig.client, ca, said) == 0x100
    appliance.start(*(("--no-bpf",) if "sockets" in request.node.name else ()))

    async def again(client: Http3Client) -> int:
        return (await client.get("/", "www.example")).status

    assert talk(rig.client, ca, again) == 200


def test_stopping_says_goodbye(rig: Rig, appliance: Appliance, ca: str) -> None:
    """The last test: the appliance is started again for who comes after."""

    async def said(client: Http3Client) -> bool:
        assert (await client.get("/", "www.example")).status == 200
        loop = asyncio.get_running_loop()
        stopping = loop.run_in_executor(None, appliance.stop)
        ended = await client.end()
        await stopping
        return ended.error_code == 0x100

    assert talk(rig.client, ca, said)
