"""A UDP socket where strangers say what they like."""

import asyncio
import os
import random
import socket

from aioquic._buffer import Buffer
from aioquic.quic.packet import QuicErrorCode, QuicPacketType, pull_quic_header

from marchproxy.dataplane.quic import endpoint as endpoints
from marchproxy.dataplane.quic.endpoint import Endpoint
from marchproxy.dataplane.quic.handshakes import EASY, EASY_PER_SOURCE
from tests.dataplane.admission.desk import Desk
from tests.dataplane.http.http3.peer import Http3Client, http3
from tests.dataplane.http.http3.test_listeners import http3_of, site
from tests.dataplane.http.site import answer
from tests.dataplane.loops import PATIENCE, looped, until
from tests.dataplane.quic.test_packets import initial


def endpoint(at: Desk) -> Endpoint:
    return next(iter(http3_of(at)._open.values()))


async def say(port: int, data: bytes, seconds: float = PATIENCE) -> bytes | None:
    """A datagram from a port of its own, and the answer; None: there is none."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        await loop.sock_connect(sock, ("127.0.0.1", port))
        await loop.sock_sendall(sock, data)
        try:
            return await asyncio.wait_for(loop.sock_recv(sock, 65536), seconds)
        except TimeoutError:
            return None


@looped
async def test_other_versions_are_answered_with_ours_if_that_is_no_more() -> None:
    async with site(answer()) as (at, _):
        strange = b"\xc0\x1a\x2a\x3a\x4a\x08" + b"destinat" + b"\x05" + b"mysrc"
        said = await say(at.port, strange.ljust(1200, b"\0"))
        assert said is not None
        found = pull_quic_header(Buffer(data=said))
        assert found.packet_type is QuicPacketType.VERSION_NEGOTIATION
        assert (found.destination_cid, found.source_cid) == (b"mysrc", b"destinat")
        assert await say(at.port, strange.ljust(1199, b"\0"), 0.2) is None
        # An offer of versions is not answered with another one.
        offer = b"\xc0\0\0\0\0\x08" + b"destinat" + b"\x05" + b"mysrc"
        assert await say(at.port, offer.ljust(1200, b"\0"), 0.2) is None


@looped
async def test_a_packet_for_nobody_is_answered_with_a_reset() -> None:
    async with site(answer()) as (at, _):
        lost = b"\x40" + os.urandom(60)
        said = await say(at.port, lost)
        assert said is not None
        assert len(said) < len(lost)
        assert said[-16:] == http3_of(at).steering.reset_token(lost[1:9])
        assert await say(at.port, b"\x40" + os.urandom(15), 0.2) is None
        for _ in range(endpoints.ANSWERS):
            await say(at.port, b"\x40" + os.urandom(60), 0.0)
        await asyncio.sleep(0.1)
        assert await say(at.port, b"\x40" + os.urandom(60), 0.2) is None


@looped
async def test_noise_leaves_nothing_behind() -> None:
    chosen = random.Random(11)
    whole = initial()
    async with site(answer()) as (at, _), http3(at.port) as client:
        await client.get()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(300):
                data = bytearray(whole)
                for _ in range(chosen.randrange(1, 6)):
                    data[chosen.randrange(len(data))] = chosen.randrange(256)
                sock.sendto(data[: chosen.choice([40, 1199, 1200, 1200])], ("127.0.0.1", at.port))
                sock.sendto(chosen.randbytes(chosen.randrange(1400)), ("127.0.0.1", at.port))
                # And what looks as if it were for the connection that there is.
                known = bytes([0x40 | chosen.randrange(64)]) + client.quic._peer_cid.cid
                sock.sendto(known + chosen.randbytes(40), ("127.0.0.1", at.port))
                await asyncio.sleep(0)
        assert (await client.get()).status == 200
        assert endpoint(at).handshakes.count <= EASY_PER_SOURCE
        assert len(endpoint(at)._every) <= EASY_PER_SOURCE + 1


@looped
async def test_an_unreadable_first_packet_is_not_remembered() -> None:
    async with site(answer()) as (at, _):
        broken = bytearray(initial())
        broken[100] ^= 1
        assert await say(at.port, bytes(broken), 0.3) is None
        assert not endpoint(at)._every
        assert not endpoint(at)._by_id
        assert endpoint(at).handshakes.count == 0


@looped
async def test_under_a_flood_clients_show_where_they_are_and_get_in() -> None:
    """Who begins a connection and does not answer holds a place; who is asked to come again needs none."""
    async with site(answer()) as (at, _):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for index in range(EASY_PER_SOURCE + 60):
                sock.sendto(initial(), ("127.0.0.1", at.port))
                await asyncio.sleep(0.002)
                assert endpoint(at).handshakes.count <= EASY_PER_SOURCE, index
        await until(lambda: endpoint(at).handshakes.count == EASY_PER_SOURCE)
        async with http3(at.port) as client:
            assert client.quic._retry_count == 1
            assert (await client.get()).status == 200


@looped
async def test_floods_in_the_names_of_many_hold_a_few_places() -> None:
    async with site(answer()) as (at, _):
        socks = []
        for index in range(EASY + 40):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind((f"127.0.{1 + index // 200}.{1 + index % 200}", 0))
            sock.sendto(initial(), ("127.0.0.1", at.port))
            socks.append(sock)
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.2)
        assert endpoint(at).handshakes.count <= EASY
        for sock in socks:
            sock.close()


@looped
async def test_a_token_of_another_address_is_worth_nothing() -> None:
    async with site(answer()) as (at, _):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(EASY_PER_SOURCE):
                sock.sendto(initial(), ("127.0.0.1", at.port))
                await asyncio.sleep(0.002)
        await until(lambda: endpoint(at).handshakes.count == EASY_PER_SOURCE)
        client = Http3Client(at.port, "proxy.example", "127.0.0.1")
        client.quic.connect(client.server, asyncio.get_running_loop().time())
        client._loop.remove_reader(client.socket)
        client.flush()
        retry = await client._loop.sock_recv(client.socket, 65536)
        assert pull_quic_header(Buffer(data=retry)).packet_type is QuicPacketType.RETRY
        client.quic.receive_datagram(retry, client.server, asyncio.get_running_loop().time())
        client.rebind()
        client.flush()
        assert (await client.end()).error_code == QuicErrorCode.INVALID_TOKEN
        client.stop()


@looped
async def test_a_handshake_that_goes_on_for_too_long_is_given_up() -> None:
    async with site(answer()) as (at, _):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(initial(), ("127.0.0.1", at.port))
            await until(lambda: endpoint(at).handshakes.count == 1)
        for connection in endpoint(at)._every:
            connection.began -= 11
        endpoint(at).tick()
        assert endpoint(at).handshakes.count == 0
        assert not endpoint(at)._by_id


@looped
async def test_what_is_sent_before_a_client_has_answered_is_bounded() -> None:
    """RFC 9000 section 8.1: three times what came."""
    async with site(answer()) as (at, _):
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            said = initial()
            sock.sendto(said, ("127.0.0.1", at.port))
            came = 0
            until_then = loop.time() + 2.5
            while loop.time() < until_then:
                try:
                    came += len(await asyncio.wait_for(loop.sock_recv(sock, 65536), 0.5))
                except TimeoutError:
                    continue
            assert 0 < came <= 3 * len(said)
