"""HTTP/2 through a listener, from a client that speaks it to a backend that speaks HTTP/1.1."""

import asyncio
import time

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from marchproxy.dataplane.http.http2.client import MOST_STREAMS, RESETS, Http2Connection
from marchproxy.dataplane.http.http2.stream import ClientStream
from marchproxy.policy.plan import Plan
from tests.dataplane.admission.desk import TOKEN, Desk, blocking
from tests.dataplane.http.http2.peer import Client, client, codes
from tests.dataplane.http.site import QUICK, answer, response, routed, served
from tests.dataplane.http.site import get as get1
from tests.dataplane.loops import looped, until
from tests.dataplane.proxy.peers import dial
from tests.policy import build
from tests.policy.build import mapping, service


def only2(at: Desk) -> Http2Connection:
    """The one connection of HTTP/2 that there is."""
    [connection] = at.admission._reads_http().live
    assert isinstance(connection, Http2Connection)
    return connection


async def met(at: Desk, number: int = 1) -> ClientStream:
    """The stream of a request that has come, once it is with a backend."""
    live = at.admission._reads_http().live
    await until(lambda: any(isinstance(each, Http2Connection) and number in each.streams for each in live))
    stream = only2(at).streams[number]
    await until(lambda: stream.exchange._upstream is not None)
    return stream


@looped
async def test_a_request_goes_on_and_its_answer_comes_back() -> None:
    async with served(answer(b"hello", "200 OK", "Server: x", "Connection: keep-alive")) as (at, backend):
        async with client(at.port) as peer:
            heard = await peer.hear(peer.ask("/here/a?b=c"))
            assert (heard.status, bytes(heard.body)) == (200, b"hello")
            assert heard.fields["server"] == "x"
            assert "connection" not in heard.fields
            assert backend.heads[0].startswith("GET /here/a?b=c HTTP/1.1\r\nhost: h.example\r\n")
            assert backend.said("x-forwarded-for") == "127.0.0.1"
            assert backend.said("via") == "2 marchproxy"
        await until(lambda: ("flow-end", "CLOSED") in at.reasons())
        told = next(event.exchanged for event in at.events if event.exchanged)
        assert (told.version, told.status, told.path) == ("2", 200, "/here/a")


@looped
async def test_many_at_the_same_time() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        name = head.split(b" ")[1]
        await asyncio.sleep(0.01 if name.endswith(b"7") else 0)
        writer.write(answer(name))
        await reader.read()

    async with served(serve=slow) as (at, _), client(at.port) as peer:
        asked = {peer.ask(f"/here/{index}"): f"/here/{index}".encode() for index in range(40)}
        for number, path in asked.items():
            assert bytes((await peer.hear(number)).body) == path
        [flow] = await at.admission.flows(10)
        assert flow.decision.mapping == "www"
        assert not only2(at).streams


@pytest.mark.parametrize(
    ("pseudo", "more", "status"),
    [
        ({"path": "/here/../x"}, (), 400),
        ({"path": "/here HTTP/1.1\r\nx: y"}, (), 400),
        ({"scheme": "ftp"}, (), 400),
        ({"authority": "a@b"}, (), 400),
        ({"method": "TRACE"}, (), 405),
        ({}, (("transfer-encoding", "chunked"),), 400),
        ({}, (("connection", "close"),), 400),
        ({}, (("host", "other"),), 400),
        ({}, (("X", "y"),), 400),
        ({}, (("a", "b\r\nc: d"),), 400),
        ({}, (("a", "b" * 40_000),), 431),
        ({"path": "/here" + "x" * 9000}, (), 414),
        ({"path": "/other"}, (), 404),
    ],
)
@looped
async def test_what_is_wrong_with_one_is_nothing_to_the_others(
    pseudo: dict[str, str], more: tuple[tuple[str, str], ...], status: int
) -> None:
    async with served(answer()) as (at, backend), client(at.port) as peer:
        heard = await peer.hear(peer.ask("/here", *more, ends=True, **pseudo))
        assert heard.status == status
        assert heard.fields["x-marchproxy-reason"].encode() in heard.body
        assert backend.heads == []
        assert (await peer.hear(peer.ask())).status == 200


def vaulted(at: Desk, port: int) -> Plan:
    """A plan whose one service wants a token."""
    vault = service("vault", "127.0.0.2", auth="token", port=port)
    made = mapping("keys", "lan", "vault", f"127.0.0.1:{at.port}", "http")
    return build.plan(service("lan", "127.0.0.1"), vault, made)


@looped
async def test_credentials_are_asked_for_as_in_http_1() -> None:
    async with served(answer()) as (at, backend), client(at.port) as peer:
        at.apply(vaulted(at, backend.port), 3)
        heard = await peer.hear(peer.ask())
        assert (heard.status, heard.fields["x-marchproxy-reason"]) == (401, "AUTH_MISSING")
        heard = await peer.hear(peer.ask("/here", ("authorization", f"Bearer {TOKEN}")))
        assert heard.status == 200
        assert backend.said("authorization") is None
        assert backend.said("x-marchproxy-service") == "vault"


@looped
async def test_revoking_ends_the_requests_that_the_credential_opened_and_no_others() -> None:
    silent = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await silent.wait()

    async with served(serve=wait) as (at, backend), client(at.port) as peer:
        at.apply(vaulted(at, backend.port), 3)
        number = peer.ask("/here", ("authorization", f"Bearer {TOKEN}"))
        stream = await met(at)
        assert stream.exchange.verified is not None
        assert at.admission._reads_http().revoke(stream.exchange.verified.token) == 1
        assert (await peer.hear(number)).reset == ErrorCodes.CANCEL
        assert at.admission._reads_http().live


@looped
async def test_what_the_plan_no_longer_allows_ends() -> None:
    silent = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await silent.wait()

    async with served(serve=wait) as (at, backend), client(at.port) as peer:
        number = peer.ask()
        await met(at)
        at.apply(routed(at, backend.port, path="/elsewhere/"), 3)
        assert (await peer.hear(number)).reset == ErrorCodes.CANCEL
        assert (await peer.hear(peer.ask())).status == 404
        at.apply(blocking(routed(at, backend.port), "127.0.0.1"), 4)
        await peer.goodbye()


@looped
async def test_who_leaves_takes_its_requests_with_it() -> None:
    gone = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.read()
        gone.set()

    async with served(serve=wait) as (at, _):
        async with client(at.port) as peer:
            number = peer.ask()
            await met(at)
            peer.h2.reset_stream(number, ErrorCodes.CANCEL)
            peer.flush()
            await gone.wait()
            gone.clear()
            number = peer.ask()
            await met(at, number)
        await gone.wait()
        await until(lambda: not at.admission._reads_http().live and not at.admission._gate.inside)
        assert at.reasons()[-1] == ("flow-end", "RESET")


@looped
async def test_more_streams_than_agreed_are_refused_and_may_be_asked_again() -> None:
    goes_on = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await goes_on.wait()
        writer.write(answer())
        await reader.read()

    async with served(serve=wait) as (at, _), client(at.port) as peer:
        peer.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 1000
        peer.h2.remote_settings.acknowledge()
        numbers = [peer.ask() for _ in range(MOST_STREAMS + 5)]
        refused = [await peer.hear(number) for number in numbers[MOST_STREAMS:]]
        assert {heard.reset for heard in refused} == {ErrorCodes.REFUSED_STREAM}
        goes_on.set()
        assert {(await peer.hear(number)).status for number in numbers[:MOST_STREAMS]} == {200}


@looped
async def test_draining_says_so_and_finishes_what_runs() -> None:
    goes_on = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await goes_on.wait()
        writer.write(answer(b"whole"))

    async with served(serve=wait) as (at, _), client(at.port) as peer:
        number = peer.ask()
        await met(at)
        raw = bytearray()
        at.admission._reads_http().drain()
        # The library's client takes GOAWAY for the end of everything, so it is read by hand.
        frames: list[Frame] = []
        while not any(isinstance(each, DataFrame) for each in frames):
            frames += await read_frames(peer, raw)
            if any(isinstance(each, PingFrame) and "ACK" not in each.flags for each in frames):
                frame = PingFrame(0, b"draining")
                frame.flags.add("ACK")
                peer.writer.write(frame.serialize())
                await until(lambda: not at.admission._reads_http().live or only2(at)._last == number)
                goes_on.set()
        farewells = [each for each in frames if isinstance(each, GoAwayFrame)]
        assert [each.last_stream_id for each in farewells] == [2**31 - 1, number]
        assert [each.data for each in frames if isinstance(each, DataFrame)] == [b"whole"]
        assert await peer.reader.read() == b""
        await until(lambda: not at.admission._reads_http().live)


async def read_frames(peer: Client, held: bytearray) -> list[Frame]:
    """The frames of one read."""
    data = await peer.reader.read(65_536)
    assert data, "the connection has ended"
    held += data
    found = []
    while len(held) >= 9:
        frame, length = Frame.parse_frame_header(memoryview(bytes(held[:9])))
        if len(held) < 9 + length:
            break
        frame.parse_body(memoryview(bytes(held[9 : 9 + length])))
        del held[: 9 + length]
        found.append(frame)
    return found


@looped
async def test_who_says_goodbye_still_gets_its_answers() -> None:
    goes_on = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await goes_on.wait()
        writer.write(answer(b"whole"))

    async with served(serve=wait) as (at, _), client(at.port) as peer:
        number = peer.ask()
        peer.writer.write(GoAwayFrame(0, last_stream_id=0, error_code=0).serialize())
        await met(at)
        goes_on.set()
        raw = bytearray()
        frames: list[Frame] = []
        while not any(isinstance(each, DataFrame) for each in frames):
            frames += await read_frames(peer, raw)
        assert number == 1
        assert await peer.reader.read() == b""


@looped
async def test_who_asks_nothing_is_not_kept() -> None:
    async with served(answer()) as (at, _), client(at.port) as peer:
        await peer.hear(peer.ask())
        await asyncio.sleep(QUICK.keepalive + 0.1)
        at.admission._reads_http().tick()
        assert codes(await peer.goodbye()) == [ErrorCodes.NO_ERROR]


@looped
async def test_a_head_that_does_not_end_ends_its_connection() -> None:
    async with served(answer()) as (at, _), client(at.port) as peer:
        await peer.hear(peer.ask())
        peer.writer.write(HeadersFrame(3, data=b"\x82").serialize())
        await until(lambda: only2(at).frames.since is not None)
        only2(at).tick(time.monotonic() + QUICK.head + 1)
        await peer.goodbye()


def raw(*frames: Frame) -> bytes:
    return b"".join(frame.serialize() for frame in frames)


def ping() -> Frame:
    return PingFrame(0, b"12345678")


FLOODS: dict[str, list[Frame]] = {
    "pings": [ping() for _ in range(2000)],
    "settings": [SettingsFrame(0, {}) for _ in range(2000)],
    "window updates": [WindowUpdateFrame(0, window_increment=1) for _ in range(20_000)],
    "continuation": [HeadersFrame(5, data=b"\x82"), *[ContinuationFrame(5, data=b"") for _ in range(50)]],
    "a head": [
        HeadersFrame(5, data=b"\x82"),
        *[ContinuationFrame(5, data=b"\x82" * 16_000) for _ in range(5)],
    ],
}


@pytest.mark.parametrize("name", FLOODS)
@looped
async def test_floods_end_the_connection(name: str) -> None:
    async with served(answer()) as (at, _), client(at.port) as peer:
        await peer.hear(peer.ask())
        peer.writer.write(raw(*FLOODS[name]))
        assert codes(await peer.goodbye()) == [ErrorCodes.ENHANCE_YOUR_CALM]
        assert ("denied", "RATE_LIMITED") in at.reasons()


@looped
async def test_a_flood_of_empty_data_ends_the_connection() -> None:
    async with served(answer()) as (at, _):
        for padding in (0, 5):
            async with client(at.port) as peer:
                number = peer.ask(method="POST", ends=False)
                frame = DataFrame(number, b"", pad_length=padding)
                if padding:
                    frame.flags.add("PADDED")
                peer.writer.write(frame.serialize() * 500)
                assert codes(await peer.goodbye()) == [ErrorCodes.ENHANCE_YOUR_CALM]


@looped
async def test_rapid_resets_end_the_connection() -> None:
    async with served(answer()) as (at, backend), client(at.port) as peer:
        for _ in range(RESETS * 2):
            number = peer.ask()
            peer.h2.reset_stream(number, ErrorCodes.CANCEL)
            peer.flush()
        assert codes(await peer.goodbye()) == [ErrorCodes.ENHANCE_YOUR_CALM]
        assert ("denied", "RATE_LIMITED") in at.reasons()
        assert len(backend.heads) <= RESETS + 1


@looped
async def test_resets_that_the_client_makes_us_do_count_too() -> None:
    async with served(answer()) as (at, _), client(at.port) as peer:
        for _ in range(RESETS + 50):
            number = peer.ask(method="POST", ends=False)
            peer.writer.write(WindowUpdateFrame(number, window_increment=2**31 - 1).serialize())
        farewells = await peer.goodbye()
        assert codes(farewells) in ([ErrorCodes.ENHANCE_YOUR_CALM], [ErrorCodes.FLOW_CONTROL_ERROR])


@looped
async def test_a_header_bomb_ends_the_connection() -> None:
    async with served(answer()) as (at, backend), client(at.port) as peer:
        fields = [("a", "b" * 4000)] * 100
        number = peer.ask("/here", *fields)
        assert number == 1
        assert codes(await peer.goodbye()) == [ErrorCodes.ENHANCE_YOUR_CALM]
        assert backend.heads == []


@looped
async def test_http_2_only_begins_a_connection() -> None:
    async with served(answer()) as (at, _), dial(at.port) as (reader, writer):
        writer.write(get1())
        await response(reader)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        head, _ = await response(reader)
        assert head.startswith("HTTP/1.1 505 ")


@looped
async def test_garbage_behind_the_preface_is_answered_with_goodbye() -> None:
    async with served(answer()) as (at, _), dial(at.port) as (reader, writer):
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert b"\x07" in await reader.read()
    async with served(answer()) as (at, _), dial(at.port) as (reader, writer):
        writer.write(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + bytes(100))
        assert b"\x07" in await reader.read()


@looped
async def test_what_requests_count_for_lasts_until_the_last_of_them_ends() -> None:
    goes_on = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"host: first" in head:
            await goes_on.wait()
        writer.write(answer(b"hello", "200 OK", "Connection: close"))
        writer.close()

    async with served(serve=wait) as (at, _), client(at.port) as peer:
        first = peer.ask(authority="first.example")
        await met(at)
        for name in ("second", "third"):
            assert (await peer.hear(peer.ask(authority=f"{name}.example"))).status == 200
        await until(lambda: len(only2(at).streams) == 1)
        assert {each.name for each in only2(at).conversations} == {"first.example", "third.example"}
        goes_on.set()
        assert (await peer.hear(first)).status == 200
        await until(lambda: len(only2(at).conversations) == 1)
        ended = [event.flow for event in at.events if event.flow and event.decision.reason.name == "CLOSED"]
        assert {each.decision.name for each in ended} == {"second.example", "first.example"}
