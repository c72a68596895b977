"""Tunnels as they live: credentials that expire, and the kernel that may take over."""

import asyncio
import gc
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from marchproxy.dataplane.admission.tunnels import FEW, LONGEST_PAUSE, PAUSE, SETTLE, TRIES, Tunnel
from marchproxy.dataplane.proxy.relay import Pump, Relay
from marchproxy.model.reason import Reason
from tests.dataplane.admission.desk import TOKEN, Desk, Keys, desk, explicit
from tests.dataplane.loops import looped, until
from tests.dataplane.proxy.peers import Streams, dial, echo, tcp_server
from tests.dataplane.proxy.protocol.hellos import real_hello
from tests.policy.build import mapping, plan, service

LAN = service("lan", "127.0.0.1")
VAULT = service("vault", "127.0.0.3", auth="token")


async def connect(streams: Streams, port: int) -> None:
    reader, writer = streams
    target = f"127.0.0.3:{port}"
    writer.write(
        f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Bearer {TOKEN}\r\n\r\n".encode()
    )
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("on_expiry", "age", "ends"),
    [
        ("keep", 9000, False),
        ("cut", -1, False),
        ("cut", 1, True),
        ("grace:60", 59, False),
        ("grace:60", 61, True),
    ],
)
@looped
async def test_a_credential_that_expires(on_expiry: str, age: int, ends: bool) -> None:
    keys = Keys(ends=datetime.now(UTC) + timedelta(hours=1))
    out = mapping("m", "lan", "vault", on_expiry=on_expiry)
    async with (
        desk(LAN, VAULT, out, keys=keys) as at,
        tcp_server(echo, "127.0.0.3") as port,
        dial(at.port) as streams,
    ):
        await connect(streams, port)
        (tunnel,) = at.admission._tunnels.live
        assert tunnel.verified is not None
        object.__setattr__(tunnel.verified, "expires", datetime.now(UTC) - timedelta(seconds=age))
        at.admission._expired_at = 0.0
        at.admission.poll()
        assert (at.reasons()[-1] == ("flow-end", "AUTH_EXPIRED")) is ends


@looped
async def test_how_long_it_goes_on_says_the_plan_in_force() -> None:
    async with (
        desk(LAN, VAULT, mapping("m", "lan", "vault", on_expiry="keep")) as at,
        tcp_server(echo, "127.0.0.3") as port,
        dial(at.port) as streams,
    ):
        await connect(streams, port)
        (tunnel,) = at.admission._tunnels.live
        assert tunnel.verified is not None
        object.__setattr__(tunnel.verified, "expires", datetime.now(UTC) - timedelta(seconds=1))
        at.apply(explicit(at.port, LAN, VAULT, mapping("m", "lan", "vault", on_expiry="cut")))
        at.admission._expired_at = 0.0
        at.admission.poll()
        assert at.reasons()[-1] == ("flow-end", "AUTH_EXPIRED")


@pytest.mark.parametrize("listens", [False, True])
@looped
async def test_a_credential_taken_back_while_a_tunnel_is_opened_opens_nothing(listens: bool) -> None:
    async with desk() as at, tcp_server(echo, "127.0.0.3") as port:
        vault = service("vault", "127.0.0.3", "www.shop.test", auth="token", port=port)
        if listens:
            at.apply(plan(LAN, vault, mapping("m", "lan", "vault", f"127.0.0.1:{at.port}", sni=True)))
        else:
            at.apply(explicit(at.port, LAN, vault, mapping("m", "lan", "vault", sni=True)))
        async with dial(at.port) as streams:
            if listens:
                streams[1].write(f"MARCHPROXY/1 {TOKEN}\n".encode())
                assert await streams[0].readline() == b"OK\n"
            else:
                await connect(streams, port)
            at.keys.revoke()
            assert await at.admission.revoke("1") == 0
            streams[1].write(real_hello("www.shop.test"))
            with pytest.raises(ConnectionResetError):
                await streams[0].readexactly(1)
        assert at.reasons()[-1] == ("flow-end", "AUTH_REVOKED")


class Kernel:
    """Takes tunnels over when told, or never."""

    def __init__(self, takes: bool, *, passes: bool = True) -> None:
        self.takes = takes
        self.passes = passes
        self.lifted = 0
        self.offered = 0
        self.expected = 0

    def expect(self, client: socket.socket, upstream: socket.socket) -> None:
        assert client is not upstream
        self.expected += 1

    def offer(self, tunnel: Tunnel, gone: Callable[[], None]) -> None:
        self.offered += 1
        relay = tunnel.relay
        assert relay is not None

        def quiet() -> None:
            if self.takes:
                relay.leave()
                gone()
                relay.client.close()
                relay.upstream.close()
            else:
                self.lifted += tunnel.refused(passes=self.passes)
                relay.start()

        relay.when_quiet(quiet)


async def said(at: Desk, streams: Streams, port: int, size: int) -> None:
    await connect(streams, port)
    streams[1].write(bytes(size))
    assert len(await streams[0].readexactly(size)) == size


@looped
async def test_the_kernel_takes_what_has_carried_enough() -> None:
    out = mapping("m", "lan", "vault")
    async with desk(LAN, VAULT, out) as at, tcp_server(echo, "127.0.0.3") as port, dial(at.port) as streams:
        tunnels = at.admission._tunnels
        tunnels.handover = kernel = Kernel(takes=True)
        await said(at, streams, port, 1000)
        tunnels.offer(0, 0)
        tunnels.offer(2001, 60)
        assert kernel.offered == 0
        tunnels.offer(2000, 60)
        assert (kernel.offered, len(tunnels.live), at.admission._gate.inside) == (1, 0, 0)
        assert at.reasons() == [("flow-start", "FORWARDED")]
        assert at.admission.counters()[Reason.HANDED_OFF].packets == 1
        assert tunnels.empty.is_set()


@looped
async def test_a_single_request_is_not_expected_to_go() -> None:
    """Its answer may be long, and small queues would slow it down to the end."""
    out = mapping("m", "lan", "vault")
    async with desk(LAN, VAULT, out) as at, tcp_server(echo, "127.0.0.3") as port:
        at.admission._tunnels.handover = kernel = Kernel(takes=True)
        target = f"127.0.0.3:{port}"
        lines = f"GET http://{target}/ HTTP/1.1", f"Host: {target}", f"Proxy-Authorization: Bearer {TOKEN}"
        async with dial(at.port) as streams:
            streams[1].write("\r\n".join((*lines, "", "")).encode())
            assert (await streams[0].readline()).startswith(b"GET / ")
            assert kernel.expected == 0
        async with dial(at.port) as streams:
            await said(at, streams, port, 1)
            assert kernel.expected == 0, "most ask once"
            streams[1].write(bytes(FEW))
            await until(lambda: kernel.expected == 1)


@looped
async def test_what_carries_enough_is_offered_without_delay() -> None:
    out = mapping("m", "lan", "vault")
    async with desk(LAN, VAULT, out) as at, tcp_server(echo, "127.0.0.3") as port, dial(at.port) as streams:
        tunnels = at.admission._tunnels
        tunnels.handover = kernel = Kernel(takes=True)
        # Each way a read, which counts as a kilobyte at least.
        tunnels.ripe_bytes = 3 * 1024
        await said(at, streams, port, 700)
        assert kernel.offered == 0
        streams[1].write(bytes(700))
        await until(lambda: not tunnels.live, "the kernel to have it")
        assert kernel.offered == 1


@looped
async def test_what_was_not_taken_is_offered_again_when_it_has_carried_more() -> None:
    out = mapping("m", "lan", "vault")
    async with desk(LAN, VAULT, out) as at, tcp_server(echo, "127.0.0.3") as port, dial(at.port) as streams:
        tunnels = at.admission._tunnels
        tunnels.handover = kernel = Kernel(takes=False)
        tunnels.ripe_bytes = 1024
        await said(at, streams, port, 1)
        await until(lambda: kernel.offered == 1, "the first offer")
        for expected, echoes in ((2, 1), (3, 2), (4, 4)):
            for _ in range(echoes):
                streams[1].write(b"x")
                assert await streams[0].readexactly(1) == b"x"
            await until(lambda expected=expected: kernel.offered == expected, "another offer")  # type: ignore[misc]


@looped
async def test_what_the_kernel_does_not_take_goes_on_here() -> None:
    out = mapping("m", "lan", "vault")
    async with desk(LAN, VAULT, out) as at, tcp_server(echo, "127.0.0.3") as port, dial(at.port) as streams:
        tunnels = at.admission._tunnels
        tunnels.handover = kernel = Kernel(takes=False)
        await said(at, streams, port, 1000)
        for _ in range(TRIES + 5):
            tunnels.offer(1, 0)
        assert (kernel.offered, kernel.lifted) == (TRIES, 1)
        streams[1].write(b"on")
        assert await streams[0].readexactly(2) == b"on"


@looped
async def test_what_it_can_never_take_is_offered_once() -> None:
    out = mapping("m", "lan", "vault")
    async with desk(LAN, VAULT, out) as at, tcp_server(echo, "127.0.0.3") as port, dial(at.port) as streams:
        tunnels = at.admission._tunnels
        tunnels.handover = kernel = Kernel(takes=False, passes=False)
        await said(at, streams, port, 1000)
        for _ in range(3):
            tunnels.offer(1, 0, urgent=True)
        assert (kernel.offered, kernel.lifted) == (1, 1)


@looped
async def test_what_it_could_not_take_is_offered_again_more_and_more_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each time its queues are made small first, and it takes a moment until they are."""
    out = mapping("m", "lan", "vault")
    async with desk(LAN, VAULT, out) as at, tcp_server(echo, "127.0.0.3") as port, dial(at.port) as streams:
        tunnels = at.admission._tunnels
        tunnels.handover = kernel = Kernel(takes=False)
        await said(at, streams, port, 1000)
        for _ in range(TRIES):
            tunnels.offer(1, 0)
        (tunnel,) = tunnels.live
        loop, now = asyncio.get_running_loop(), asyncio.get_running_loop().time()
        monkeypatch.setattr(loop, "time", lambda: now)
        tunnel.again = now + PAUSE
        for number, pause in enumerate((PAUSE, 2 * PAUSE, 4 * PAUSE), start=1):
            now += pause - 0.01
            tunnels.offer(1, 0)
            assert kernel.expected == number
            now += 0.01
            tunnels.offer(1, 0)
            now += SETTLE - 0.01
            tunnels.offer(1, 0)
            assert (kernel.expected, kernel.offered) == (number + 1, TRIES + number - 1)
            now += 0.01
            tunnels.offer(1, 0)
            assert (kernel.offered, kernel.lifted) == (TRIES + number, number + 1)
        tunnel.tries = 5000
        now += LONGEST_PAUSE
        tunnels.offer(1, 0)
        now += SETTLE
        tunnels.offer(1, 0)
        assert tunnel.again == now + LONGEST_PAUSE
        kernel.takes = True
        # A daemon that stops does not wait.
        tunnels.offer(1, 0, urgent=True)
        assert not tunnels.live


@looped
async def test_a_daemon_that_stops_leaves_its_tunnels_to_the_kernel() -> None:
    out = mapping("m", "lan", "vault")
    async with desk(LAN, VAULT, out) as at, tcp_server(echo, "127.0.0.3") as port, dial(at.port) as streams:
        at.admission._tunnels.handover = kernel = Kernel(takes=True)
        await said(at, streams, port, 1)
        await at.admission.drain(10.0)
        assert kernel.offered == 1
        assert at.reasons() == [("flow-start", "FORWARDED")]


@contextmanager
def uncollected() -> Iterator[None]:
    """Only what is in no cycle goes, as when the collector was frozen."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize("takes", [True, False])
@looped
async def test_a_tunnel_that_is_gone_leaves_nothing_to_collect(takes: bool) -> None:
    out = mapping("m", "lan", "vault")
    async with desk(LAN, VAULT, out) as at, tcp_server(echo, "127.0.0.3") as port:
        tunnels = at.admission._tunnels
        tunnels.handover = Kernel(takes)

        def left() -> int:
            return sum(isinstance(each, Tunnel | Relay | Pump) for each in gc.get_objects())

        with uncollected():
            before = left()
            async with dial(at.port) as streams:
                await said(at, streams, port, 1000)
                assert left() == before + 4
                tunnels.offer(1, 0)
                tunnels.close()
            await until(lambda: left() <= before, "nothing to be left")
