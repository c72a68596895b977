"""Questions as datagrams on real sockets."""

import asyncio
import socket
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.dns import udp as module
from marchproxy.dataplane.dns.udp import UdpServer
from marchproxy.dataplane.proxy.sockets import open_listener
from marchproxy.model.address import IPAddress
from marchproxy.model.protocol import Transport
from marchproxy.policy.plan import Listener
from tests.dataplane.loops import looped, until


def listening(address: str) -> socket.socket:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))
        port = probe.getsockname()[1]
    return open_listener(Listener(ip_address(address), port, Transport.UDP, ()))


async def echo(wire: bytes, client: IPAddress) -> bytes | None:
    return None if wire == b"silence" else wire + str(client).encode()


@pytest.mark.parametrize(
    ("bound", "asked"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.2"), ("::", "::1")]
)
@looped
async def test_an_answer_comes_from_the_address_that_was_asked(bound: str, asked: str) -> None:
    sock = listening(bound)
    port = sock.getsockname()[1]
    server = UdpServer(sock, echo)
    loop = asyncio.get_running_loop()
    with socket.socket(sock.family, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect((asked, port))
        client.send(b"silence")
        client.send(b"hello ")
        answer = await loop.sock_recv(client, 100)
        assert answer == b"hello " + client.getsockname()[0].encode()
    await server.close()


@looped
async def test_questions_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 5)
    waiting, speaks = 0, asyncio.Event()

    async def slow(wire: bytes, _: IPAddress) -> bytes | None:
        nonlocal waiting
        waiting += 1
        await speaks.wait()
        return wire

    sock = listening("127.0.0.1")
    server = UdpServer(sock, slow)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect(sock.getsockname())
        for number in range(20):
            client.send(bytes([number]))
        await until(lambda: waiting == 5)
        speaks.set()
        assert {await loop.sock_recv(client, 100) for _ in range(5)} == {
            bytes([number]) for number in range(5)
        }
        client.send(b"again")
        assert await loop.sock_recv(client, 100) == b"again"
    assert waiting == 6
    await server.close()
