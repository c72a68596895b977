"""The explicit proxy, spoken to by HTTP and SOCKS5."""

import asyncio

import pytest

from marchproxy.model.appliance import Settings
from tests.dataplane.admission.desk import OLD, TOKEN, Desk, desk, explicit
from tests.dataplane.loops import looped, until
from tests.dataplane.proxy.peers import Streams, dial, echo, says, tcp_server
from tests.policy.build import mapping, service

LAN = service("lan", "127.0.0.1")
WEB = service("web", "127.0.0.2", "www.example.com")
VAULT = service("vault", "127.0.0.3", auth="token")
OUT = mapping("out", "lan", "web")
KEYS = mapping("keys", "lan", "vault")


async def request(streams: Streams, text: str, *headers: str) -> bytes:
    """Send a request line with headers, and return the head of the answer."""
    reader, writer = streams
    writer.write("\r\n".join((text, *headers, "", "")).encode())
    return await reader.readuntil(b"\r\n\r\n")


async def connect(streams: Streams, target: str, *headers: str) -> bytes:
    return await request(streams, f"CONNECT {target} HTTP/1.1", f"Host: {target}", *headers)


def reason(head: bytes) -> str:
    """Status and reason of a refusal."""
    lines = head.decode().splitlines()
    named = next((line for line in lines if line.startswith("X-MarchProxy-Reason: ")), "")
    return f"{lines[0].split()[1]} {named.partition(': ')[2]}".strip()


@looped
async def test_a_tunnel_carries_both_ways_and_ends_by_halves() -> None:
    async with desk(LAN, WEB, OUT) as at, tcp_server(echo, "127.0.0.2") as port, dial(at.port) as streams:
        assert (await connect(streams, f"127.0.0.2:{port}")).startswith(b"HTTP/1.1 200")
        reader, writer = streams
        writer.write(b"x" * 300_000)
        writer.write_eof()
        assert await reader.read() == b"x" * 300_000
        await until(lambda: ("flow-end", "CLOSED") in at.reasons())
        started = at.events[0].flow
        assert started is not None
        assert (started.backend_port, started.decision.mapping) == (port, "out")
        assert (started.decision.source_service, started.decision.destination_service) == ("lan", "web")


@looped
async def test_a_name_is_looked_up_once_and_told() -> None:
    async with (
        desk(LAN, WEB, OUT, names={"www.example.com": ["127.0.0.2"]}) as at,
        tcp_server(says(b"hello"), "127.0.0.2") as port,
    ):
        for _ in range(2):
            async with dial(at.port) as streams:
                assert reason(await connect(streams, f"www.example.com:{port}")) == "200"
                assert await streams[0].read() == b"hello"
        await until(lambda: at.reasons().count(("flow-end", "CLOSED")) == 2)
        assert {event.decision.name for event in at.events} == {"www.example.com"}
    assert at.asked == ["www.example.com"]


@looped
async def test_socks_clients_are_served_on_the_same_port() -> None:
    async with desk(LAN, WEB, OUT) as at, tcp_server(echo, "127.0.0.2") as port, dial(at.port) as streams:
        reader, writer = streams
        writer.write(b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x02" + port.to_bytes(2) + b"early")
        assert await reader.readexactly(2) == b"\x05\x00"
        assert (await reader.readexactly(10))[:2] == b"\x05\x00"
        assert await reader.readexactly(5) == b"early"


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("127.0.0.2:1", "502 UPSTREAM_REFUSED"),
        ("127.0.0.9:80", "403 NO_MAPPING"),
        ("127.0.0.1:22", "403 NO_MAPPING"),
        ("nowhere.example.com:80", "502 NAME_UNKNOWN"),
        ("127.0.0.3:80", "407 AUTH_MISSING"),
    ],
)
@looped
async def test_refusals_say_why(target: str, answer: str) -> None:
    async with desk(LAN, WEB, VAULT, OUT, KEYS) as at, dial(at.port) as streams:
        assert reason(await connect(streams, target)) == answer
        await streams[0].read()
        await until(lambda: at.reasons() == [("denied", answer.partition(" ")[2])])
        assert at.events[0].decision.name == ("" if target[0] == "1" else target.partition(":")[0])


@looped
async def test_for_strangers_no_name_is_looked_up() -> None:
    async with (
        desk(service("lan", "127.0.0.9"), WEB, OUT, names={"www.example.com": ["127.0.0.2"]}) as at,
        dial(at.port) as streams,
    ):
        assert reason(await connect(streams, "www.example.com:80")) == "403 NO_MAPPING"
        assert at.asked == []


@pytest.mark.parametrize(
    ("credential", "answer"),
    [
        (f"Bearer {TOKEN}", "200"),
        ("Bearer wrong", "407 AUTH_INVALID"),
        (f"Bearer {OLD}", "407 AUTH_EXPIRED"),
    ],
)
@looped
async def test_a_credential_opens_what_wants_one(credential: str, answer: str) -> None:
    async with (
        desk(LAN, VAULT, KEYS) as at,
        tcp_server(echo, "127.0.0.3") as port,
        dial(at.port) as streams,
    ):
        head = await connect(streams, f"127.0.0.3:{port}", f"Proxy-Authorization: {credential}")
        assert reason(head) == answer
        assert at.keys.used == (["1"] if answer == "200" else [])


@looped
async def test_who_guesses_has_to_wait() -> None:
    async with desk(LAN, VAULT, KEYS) as at:
        for _ in range(10):
            async with dial(at.port) as streams:
                head = await connect(streams, "127.0.0.3:80", "Proxy-Authorization: Bearer guess")
                assert reason(head) == "407 AUTH_INVALID"
        async with dial(at.port) as streams:
            head = await connect(streams, "127.0.0.3:80", f"Proxy-Authorization: Bearer {TOKEN}")
            assert reason(head) == "429 RATE_LIMITED"


@looped
async def test_a_name_that_leads_inwards_is_refused_unless_somebody_said_so() -> None:
    inside = {"www.example.com": ["127.0.0.8"]}
    async with desk(LAN, WEB, OUT, names=inside) as at, dial(at.port) as streams:
        assert reason(await connect(streams, "www.example.com:80")) == "403 PRIVATE_ADDRESS"
    trusted = Settings(private_answers=("*.example.com",))
    async with (
        desk(LAN, WEB, OUT, names=inside, settings=trusted) as at,
        tcp_server(echo, "127.0.0.8") as port,
        dial(at.port) as streams,
    ):
        assert reason(await connect(streams, f"www.example.com:{port}")) == "200"


@looped
async def test_the_first_address_that_answers_is_taken() -> None:
    both = service("web", "127.0.0.2", "127.0.0.4", "two.example.com")
    async with (
        desk(LAN, both, OUT, names={"two.example.com": ["127.0.0.4", "127.0.0.2"]}) as at,
        tcp_server(says(b"here"), "127.0.0.2") as port,
        dial(at.port) as streams,
    ):
        assert reason(await connect(streams, f"two.example.com:{port}")) == "200"
        assert await streams[0].read() == b"here"


@looped
async def test_a_plan_that_no_longer_allows_it_ends_a_tunnel() -> None:
    async with desk(LAN, WEB, OUT) as at, tcp_server(echo, "127.0.0.2") as port, dial(at.port) as streams:
        await connect(streams, f"127.0.0.2:{port}")
        await _say(streams)
        _withdraw(at)
        with pytest.raises(ConnectionResetError):
            await streams[0].readexactly(1)
        assert at.reasons()[-1] == ("flow-end", "POLICY_CHANGED")


async def _say(streams: Streams) -> None:
    streams[1].write(b"hello")
    assert await streams[0].readexactly(5) == b"hello"


def _withdraw(at: Desk) -> None:
    at.apply(explicit(at.port, LAN, WEB))


@looped
async def test_a_revoked_credential_ends_its_tunnels_at_once() -> None:
    async with (
        desk(LAN, VAULT, KEYS) as at,
        tcp_server(echo, "127.0.0.3") as port,
        dial(at.port) as streams,
    ):
        await connect(streams, f"127.0.0.3:{port}", f"Proxy-Authorization: Bearer {TOKEN}")
        await _say(streams)
        assert await at.admission.revoke("2") == 0
        assert await at.admission.revoke("1") == 1
        assert at.reasons()[-1] == ("flow-end", "AUTH_REVOKED")


@looped
async def test_plain_requests_carry_one_answer() -> None:
    async with desk(LAN, WEB, OUT) as at, tcp_server(_http, "127.0.0.2") as port, dial(at.port) as streams:
        head = await request(streams, f"GET http://127.0.0.2:{port}/x HTTP/1.1", f"Host: 127.0.0.2:{port}")
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert await streams[0].read() == b"GET /x HTTP/1.1"


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        (["127.0.0.4"], "403 SNI_MISSING"),
        (["127.0.0.2", "127.0.0.4"], "502 UPSTREAM_REFUSED"),
        (["127.0.0.4", "127.0.0.2"], "502 UPSTREAM_REFUSED"),
    ],
)
@looped
async def test_plain_requests_go_nowhere_that_demands_a_tls_name(addresses: list[str], expected: str) -> None:
    """Also where nothing else answers."""
    strict = service("strict", "127.0.0.4")
    strictly = mapping("strictly", "lan", "strict", sni=True, priority=1)
    trusted = Settings(private_answers=("*.example.com",))
    async with (
        desk(LAN, WEB, strict, OUT, strictly, names={"www.example.com": addresses}, settings=trusted) as at,
        tcp_server(_http, "127.0.0.4") as port,
        dial(at.port) as streams,
    ):
        target = f"www.example.com:{port}"
        head = await request(streams, f"GET http://{target}/ HTTP/1.1", f"Host: {target}")
        assert reason(head) == expected


@looped
async def test_a_wrong_credential_counts_once_for_a_name_with_many_addresses() -> None:
    vault = service("vault", "127.0.0.3", "127.0.0.5", "127.0.0.6", auth="token")
    names = {"vault.example.com": ["127.0.0.3", "127.0.0.5", "127.0.0.6"]}
    async with desk(LAN, vault, KEYS, names=names) as at:
        for _ in range(10):
            async with dial(at.port) as streams:
                head = await connect(streams, "vault.example.com:80", "Proxy-Authorization: Bearer guess")
                assert reason(head) == "407 AUTH_INVALID"


async def _http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    line = head.split(b"\r\n")[0]
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(line), line))
