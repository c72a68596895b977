"""Datagrams through SOCKS5: to whom policy lets them go, and back from there only."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_address
from typing import cast

import pytest

from marchproxy.dataplane.credentials.book import Verified
from marchproxy.dataplane.proxy.protocol.socks5_udp import build_datagram, parse_datagram
from marchproxy.model.appliance import Settings
from tests.dataplane.admission.desk import LIMITS, TOKEN, Desk, Keys, desk, explicit
from tests.dataplane.loops import PATIENCE, looped, until
from tests.dataplane.proxy.peers import dial
from tests.policy.build import mapping, service

LAN = service("lan", "127.0.0.1")
ECHO = service("echo", "127.0.0.2", "echo.example.com")
VAULT = service("vault", "127.0.0.3", auth="token")
OUT = mapping("out", "lan", "echo,vault", protocols="udp")


class Echo(asyncio.DatagramProtocol):
    """Sends datagrams back."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(data, addr)


@asynccontextmanager
async def echoing(address: str) -> AsyncGenerator[int]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Echo, (address, 0))
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


@asynccontextmanager
async def associated(at: Desk, token: str = "") -> AsyncGenerator[socket.socket]:
    """A client's socket, connected to its association."""
    async with dial(at.port) as (reader, writer):
        if token:
            writer.write(b"\x05\x01\x02\x01\x05vault" + bytes((len(token),)) + token.encode())
            assert await reader.readexactly(4) == b"\x05\x02\x01\x00"
        else:
            writer.write(b"\x05\x01\x00")
            assert await reader.readexactly(2) == b"\x05\x00"
        writer.write(b"\x05\x03\x00\x01" + bytes(6))
        reply = await reader.readexactly(10)
        assert reply[:2] == b"\x05\x00"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near:
            near.setblocking(False)
            near.connect((socket.inet_ntoa(reply[4:8]), int.from_bytes(reply[8:])))
            yield near


def to(host: str, port: int, payload: bytes) -> bytes:
    """A datagram for a host by its name or address."""
    if host[0].isdigit():
        return build_datagram(ip_address(host), port, payload)
    return b"\0\0\0\x03" + bytes((len(host),)) + host.encode() + port.to_bytes(2) + payload


async def receive(near: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(near, 65536)


@pytest.mark.parametrize("host", ["127.0.0.2", "echo.example.com"])
@looped
async def test_a_datagram_comes_back_from_where_it_went(host: str) -> None:
    async with (
        desk(LAN, ECHO, VAULT, OUT, names={"echo.example.com": ["127.0.0.2"]}) as at,
        echoing("127.0.0.2") as port,
        associated(at) as near,
    ):
        near.send(to(host, port, b"hello"))
        answer = parse_datagram(await receive(near))
        assert answer is not None
        assert (str(answer.host), answer.port, answer.payload) == ("127.0.0.2", port, b"hello")
        (flow,) = await at.admission.flows(10)
        assert (flow.decision.protocol, flow.sent.bytes, flow.received.bytes) == ("udp", 5, 5)
    assert at.reasons()[-1] == ("flow-end", "CLOSED")


@looped
async def test_each_datagram_is_judged_by_where_it_goes() -> None:
    async with desk(LAN, ECHO, VAULT, OUT) as at, echoing("127.0.0.2") as port, associated(at) as near:
        near.send(to("127.0.0.9", port, b"no"))
        near.send(to("127.0.0.3", port, b"no"))
        near.send(to("nowhere.example.com", port, b"no"))
        await until(lambda: len(at.events) == 3)
        assert sorted(at.reasons()) == [
            ("denied", "AUTH_MISSING"),
            ("denied", "NAME_UNKNOWN"),
            ("denied", "NO_MAPPING"),
        ]
        near.send(to("127.0.0.9", port, b"no"))
        near.send(to("127.0.0.2", port, b"yes"))
        await receive(near)
        assert len(at.events) == 4


@looped
async def test_a_credential_of_the_association_opens_what_wants_one() -> None:
    async with (
        desk(LAN, ECHO, VAULT, OUT) as at,
        echoing("127.0.0.3") as port,
        associated(at, TOKEN) as near,
    ):
        near.send(to("127.0.0.3", port, b"hello"))
        assert (await receive(near)).endswith(b"hello")
        assert await at.admission.revoke("1") == 1
        assert at.reasons()[-1] == ("flow-end", "AUTH_REVOKED")


@looped
async def test_a_wrong_credential_counts_once_for_a_name_with_many_addresses() -> None:
    vault = service("vault", "127.0.0.3", "127.0.0.5", auth="token")
    hosts = [f"host-{number}.example.com" for number in range(10)]
    names = dict.fromkeys(hosts, ("127.0.0.3", "127.0.0.5"))
    async with desk(LAN, ECHO, vault, OUT, names=names) as at, associated(at, "guess") as near:
        for number, host in enumerate(hosts, 1):
            near.send(to(host, 9, b"no"))
            await until(partial(lambda wanted: len(at.events) == wanted, number))
        assert at.reasons() == [("denied", "AUTH_INVALID")] * 10


@pytest.mark.parametrize(
    ("on_expiry", "lifetime", "reason"),
    [
        ("keep", 0, None),
        ("cut", 0, "AUTH_EXPIRED"),
        ("grace:60", 0, None),
        ("keep", 60, "LIFETIME"),
        ("keep", 7200, None),
    ],
)
@looped
async def test_it_lasts_as_long_as_a_tunnel(on_expiry: str, lifetime: int, reason: str | None) -> None:
    """One of an hour ago, with a credential that has just expired."""
    out = mapping("out", "lan", "vault", protocols="udp", on_expiry=on_expiry)
    keys = Keys(ends=datetime.now(UTC) + timedelta(hours=1))
    async with (
        desk(LAN, VAULT, out, keys=keys, settings=Settings(tunnel_lifetime=lifetime)) as at,
        echoing("127.0.0.3") as port,
        associated(at, TOKEN) as near,
    ):
        near.send(to("127.0.0.3", port, b"hello"))
        await receive(near)
        (association,) = at.admission._associations.live
        (way,) = association._ways.values()
        way.conversation.began -= 3600
        way.verified = Verified("vault", "1", datetime.now(UTC) - timedelta(seconds=1))
        at.admission._expired_at = 0.0
        at.admission.poll()
        assert at.reasons()[1:] == ([("flow-end", reason)] if reason else [])


@looped
async def test_nobody_else_may_answer() -> None:
    async with desk(LAN, ECHO, VAULT, OUT) as at, echoing("127.0.0.2") as port, associated(at) as near:
        near.send(to("127.0.0.2", port, b"one"))
        await receive(near)
        (association,) = at.admission._associations.live
        far = association._far[4].getsockname()[1]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"spoofed", ("127.0.0.1", far))
        near.send(to("127.0.0.2", port, b"two"))
        assert (await receive(near)).endswith(b"two")


@looped
async def test_it_ends_with_its_connection_and_with_the_plan() -> None:
    async with desk(LAN, ECHO, VAULT, OUT) as at, echoing("127.0.0.2") as port:
        async with associated(at) as near:
            near.send(to("127.0.0.2", port, b"hello"))
            await receive(near)
            at.apply(explicit(at.port, LAN, ECHO))
            assert at.reasons()[-1] == ("flow-end", "POLICY_CHANGED")
        await until(lambda: not at.admission._associations.live)


@looped
async def test_draining_does_not_wait_for_its_end() -> None:
    async with desk(LAN, ECHO, VAULT, OUT) as at, associated(at):
        async with asyncio.timeout(PATIENCE):
            await at.admission.drain(60)
        assert not at.admission._associations.live


@looped
async def test_who_may_send_nothing_has_none() -> None:
    async with desk(LAN, ECHO, mapping("out", "lan", "echo")) as at, dial(at.port) as (reader, writer):
        writer.write(b"\x05\x01\x00\x05\x03\x00\x01" + bytes(6))
        assert await reader.readexactly(2) == b"\x05\x00"
        assert (await reader.readexactly(10))[1] == 2
        await until(lambda: at.reasons() == [("denied", "NO_MAPPING")])


@looped
async def test_one_client_leaves_room_for_others() -> None:
    async with desk(LAN, ECHO, VAULT, OUT, limits=replace(LIMITS, associations_per_source=1)) as at:
        async with associated(at), dial(at.port) as (reader, writer):
            writer.write(b"\x05\x01\x00\x05\x03\x00\x01" + bytes(6))
            assert await reader.readexactly(2) == b"\x05\x00"
            assert (await reader.readexactly(10))[1] == 1
            await until(lambda: at.reasons() == [("denied", "FLOW_TABLE_FULL")])
        await until(lambda: not at.admission._associations.live)
        async with associated(at):
            assert len(at.admission._associations.live) == 1
