"""Connections of HTTP/3 whose clients move, ask for too much, or break the rules."""

import asyncio
from dataclasses import replace

import pytest
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import ErrorCode, FrameType, encode_frame
from aioquic.quic.packet import QuicErrorCode

from marchproxy.dataplane.http.http3 import client as connections
from marchproxy.dataplane.http.http3.client import MOST_WASTED
from marchproxy.dataplane.http.http3.framing import MOST_ENCODED
from marchproxy.dataplane.quic.engine import STREAMS, WINDOW
from tests.dataplane.http.http3.peer import Answered, Http3Client, http3
from tests.dataplane.http.http3.test_listeners import http3_of, live, never, plan, site
from tests.dataplane.http.site import QUICK, answer
from tests.dataplane.loops import looped, until
from tests.policy.build import mapping, service

GET = [(":method", "GET"), (":scheme", "https"), (":authority", "proxy.example"), (":path", "/here")]


def without(name: str) -> list[tuple[str, str]]:
    return [each for each in GET if each[0] != name]


@pytest.mark.parametrize(
    "head",
    [
        without(":method"),
        without(":authority"),
        [*GET, (":path", "/x")],
        [("x-first", "1"), *GET],
        [*GET, (":status", "200")],
        [*GET, ("X-Upper", "1")],
        [*GET, ("x-cr", "a\rb")],
        [*GET, ("x-lf", "a\nhost: evil")],
        [*GET, ("x-nul", "a\0b")],
        [*GET, ("x bad", "1")],
        [*GET, ("x-space", " a")],
        [*GET, ("connection", "close")],
        [*GET, ("transfer-encoding", "chunked")],
        [*GET, ("upgrade", "websocket")],
        [*GET, ("te", "gzip")],
        [*GET, ("content-length", "5")],
        [*GET, ("content-length", "+0")],
        [*GET, ("content-length", "0"), ("content-length", "0")],
        [*GET, ("host", "other.example")],
        [*without(":path"), (":path", "*")],
        [*without(":path"), (":path", "/a b")],
        [*without(":path"), (":path", "")],
        [*without(":path"), (":path", "http://x/y")],
        [*without(":scheme"), (":scheme", "ftp")],
        [*without(":scheme")],
        [*without(":method"), (":method", "CONNECT")],
        [*without(":method"), (":method", "CONNECT"), (":protocol", "websocket")],
        [*without(":method"), (":method", "G ET")],
    ],
)
@looped
async def test_malformed_heads_end_their_request_and_reach_nobody(head: list[tuple[str, str]]) -> None:
    """RFC 9114 sections 4.2 and 4.3; other requests of the connection go on."""
    async with site(answer()) as (at, backend), http3(at.port) as client:
        found = await client.answer(client.say(head))
        assert found.reset == ErrorCode.H3_MESSAGE_ERROR or 400 <= found.status < 600
        assert not backend.heads
        assert (await client.get()).status == 200


@pytest.mark.parametrize("sent", [b"ab", b"abcdef"])
@looped
async def test_a_body_that_is_not_as_long_as_it_says_is_no_second_request(sent: bytes) -> None:
    async with site(answer()) as (at, backend), http3(at.port) as client:
        client.h3._check_content_length = lambda stream: None  # type: ignore[method-assign]
        number = client.say([*GET, ("content-length", "4")], body=sent)
        found = await client.answer(number)
        assert found.status in (0, 400)
        assert all(not body or sent.startswith(body) for body in backend.bodies)
        assert (await client.get()).status == 200


@looped
async def test_heads_that_are_too_large() -> None:
    async with site(answer()) as (at, _), http3(at.port) as client:
        client.h3._encoder.apply_settings(0, 0)
        found = await client.answer(client.say([*GET, ("x-large", "y" * 40_000)]))
        assert found.status == 431
        client.say([*GET, *((f"x-large-{each}", "~" * (MOST_ENCODED // 4)) for each in range(5))])
        assert (await client.end()).error_code == ErrorCode.H3_EXCESSIVE_LOAD


@looped
async def test_a_bomb_of_names_from_the_static_table_is_refused() -> None:
    """One byte each, some dozens of bytes decoded."""
    async with site(answer()) as (at, backend), http3(at.port) as client:
        # Indexed field lines of the static table (RFC 9204 section 4.5.2): :method GET, then many of one.
        block = b"\x00\x00" + bytes([0xC0 | 17]) + bytes([0xC0 | 29]) * 30_000
        number = client.quic.get_next_available_stream_id()
        client.answers[number] = Answered()
        client.quic.send_stream_data(number, encode_frame(FrameType.HEADERS, block), True)
        client.flush()
        found = await client.answer(number)
        assert found.reset is not None or found.status == 431
        assert not backend.heads
        assert (await client.get()).status == 200


@looped
async def test_a_dynamic_table_is_not_there() -> None:
    async with site(answer()) as (at, _), http3(at.port) as client:
        await client.get()
        # Set the capacity to 4,096 (RFC 9204 section 4.3.1).
        client.quic.send_stream_data(client.h3._local_encoder_stream_id or 0, b"\x3f\xe1\x1f")
        client.flush()
        assert (await client.end()).error_code == ErrorCode.QPACK_ENCODER_STREAM_ERROR


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (encode_uint_var(FrameType.SETTINGS) + encode_uint_var(1 << 30), ErrorCode.H3_FRAME_UNEXPECTED),
        (encode_frame(FrameType.DATA, b"x"), ErrorCode.H3_FRAME_UNEXPECTED),
        (encode_uint_var(FrameType.MAX_PUSH_ID) + encode_uint_var(1 << 20), ErrorCode.H3_EXCESSIVE_LOAD),
    ],
)
@looped
async def test_frames_that_may_not_be_on_the_control_stream(frame: bytes, code: ErrorCode) -> None:
    async with site(answer()) as (at, _), http3(at.port) as client:
        await client.get()
        client.quic.send_stream_data(client.h3._local_control_stream_id or 0, frame)
        client.flush()
        assert (await client.end()).error_code == code


@looped
async def test_asking_and_taking_back_without_end_is_the_end() -> None:
    async with site(b"", serve=never) as (at, _), http3(at.port) as client:
        for _ in range(MOST_WASTED + 40):
            number = client.ask()
            client.quic.reset_stream(number, ErrorCode.H3_REQUEST_CANCELLED)
            client.quic.stop_stream(number, ErrorCode.H3_REQUEST_CANCELLED)
            client.flush()
            await asyncio.sleep(0)
            if client.ended:
                break
        assert (await client.end()).error_code == ErrorCode.H3_EXCESSIVE_LOAD
        assert not http3_of(at).live


def take_back_unsaid(client: Http3Client, *, stops: bool) -> None:
    """Take a request back of which nothing was sent: what a client does that was not let send, or lost it.

    `stops`: it says that it wants no answer, too, and that comes first.
    """
    number = client.quic.get_next_available_stream_id()
    client.quic.reset_stream(number, ErrorCode.H3_REQUEST_CANCELLED)
    if stops:
        client.quic.stop_stream(number, ErrorCode.H3_REQUEST_CANCELLED)
    client.flush()


STOPS = pytest.mark.parametrize("stops", [False, True])


@STOPS
@looped
async def test_requests_that_are_taken_back_before_they_are_said_leave_room_for_others(stops: bool) -> None:
    """Each is a stream that the client may have open, until both halves of it are over."""
    async with site(answer()) as (at, _), http3(at.port) as client:
        for _ in range(STREAMS + 20):
            take_back_unsaid(client, stops=stops)
            assert (await client.get()).status == 200
        assert not client.ended
        await until(lambda: len(live(at).engine._streams) < 20, "what is over to be forgotten")


@looped
async def test_what_was_taken_back_before_it_came_is_not_carried_out() -> None:
    """Packets overtake one another; nor is it a way to have more carried out at one time than is counted."""
    async with site(answer()) as (at, backend), http3(at.port) as client:
        for _ in range(20):
            number = client.quic.get_next_available_stream_id()
            client.quic._get_or_create_stream_for_send(number)
            client.quic.stop_stream(number, ErrorCode.H3_REQUEST_CANCELLED)
            client.flush()
            client.h3.send_headers(number, [(name.encode(), value.encode()) for name, value in GET], True)
            client.flush()
        await until(lambda: bool(http3_of(at).live) and live(at)._wasted == 20, "each to be counted")
        assert (await client.get("/here/wanted")).status == 200
        assert [head.split()[1] for head in backend.heads] == ["/here/wanted"]
        await until(lambda: not live(at)._streams)


@STOPS
@looped
async def test_taking_back_without_end_what_was_never_said_is_the_end(stops: bool) -> None:
    async with site(b"", serve=never) as (at, _), http3(at.port) as client:
        for _ in range(MOST_WASTED + 40):
            take_back_unsaid(client, stops=stops)
            await asyncio.sleep(0)
            if client.ended:
                break
        assert (await client.end()).error_code == ErrorCode.H3_EXCESSIVE_LOAD
        assert not http3_of(at).live


@looped
async def test_a_request_that_is_taken_back_ends_at_the_backend() -> None:
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.set()

    async with site(serve=serve) as (at, _), http3(at.port) as client:
        number = client.ask()
        await until(lambda: bool(http3_of(at).live) and bool(live(at).conversations))
        client.quic.stop_stream(number, ErrorCode.H3_REQUEST_CANCELLED)
        client.flush()
        await ended.wait()
        assert not live(at)._streams


@looped
async def test_a_head_that_never_ends_is_given_up() -> None:
    async with site(answer(), limits=replace(QUICK, keepalive=20)) as (at, _), http3(at.port) as client:
        number = client.quic.get_next_available_stream_id()
        client.quic.send_stream_data(number, b"\x01\x40\x80abc")
        client.flush()
        await until(lambda: bool(http3_of(at).live) and bool(live(at)._streams))
        for _ in range(40):
            at.admission.poll()
            await asyncio.sleep(0.1)
            if not live(at)._streams:
                break
        assert not live(at)._streams
        assert ("denied", "TOO_SLOW") in at.reasons()


@looped
async def test_a_connection_without_requests_ends() -> None:
    async with site(answer(), limits=replace(QUICK, keepalive=0.3)) as (at, _), http3(at.port) as client:
        await client.get()
        for _ in range(40):
            http3_of(at).tick()
            await asyncio.sleep(0.05)
            if client.ended:
                break
        assert client.ended is not None
        assert client.ended.error_code == ErrorCode.H3_NO_ERROR


@looped
async def test_another_port_changes_nothing() -> None:
    """What a NAT does that has forgotten a client."""
    async with site(answer(b"z" * 3000)) as (at, _), http3(at.port) as client:
        assert (await client.get()).status == 200
        before = live(at).conversations
        client.rebind()
        found = await client.get()
        assert (found.status, len(found.body)) == (200, 3000)
        await until(lambda: live(at).visitor.who.port == client.socket.getsockname()[1])
        assert live(at).conversations == before


@looped
async def test_a_client_that_is_somewhere_else_is_who_is_there() -> None:
    """Requests are decided by where it is now, once it has shown that it is there."""
    async with site(answer()) as (at, backend):
        far = service("far", "127.0.0.9")
        listen = f"127.0.0.1:{at.port}"
        deny = mapping("no", "far", "all", listen, "https", path_prefix="/here/x", action="deny")
        at.apply(plan(at, backend, far, deny, sources="all"))
        async with http3(at.port) as client:
            assert (await client.get("/here/x")).status == 200
            client.rebind("127.0.0.9")
            client.quic.change_connection_id()
            assert (await client.get("/here/y")).status == 200
            await until(lambda: str(live(at).visitor.who.source) == "127.0.0.9")
            found = await client.get("/here/x")
            assert (found.status, found.fields["x-marchproxy-reason"]) == (403, "DENY_MAPPING")
            assert (await client.get("/here/y")).status == 200
            assert {str(each.query.source) for each in live(at).conversations} == {"127.0.0.9"}
            assert at.admission._gate.inside == 1


@looped
async def test_an_address_that_is_not_shown_opens_nothing() -> None:
    """Whoever may not speak sends in the name of one who may: that one never answers a challenge."""
    async with site(answer()) as (at, backend):
        near, far = service("near", "127.0.0.1"), service("far", "127.0.0.9")
        listen = f"127.0.0.1:{at.port}"
        only = mapping("only", "far", "web", listen, "https", path_prefix="/far", tls="proxy")
        at.apply(plan(at, backend, near, far, only, sources="near"))
        async with http3(at.port) as client:
            assert (await client.get("/far/secret")).status == 404
            client.rebind("127.0.0.9")
            # What comes there, its owner knows nothing of.
            asyncio.get_running_loop().remove_reader(client.socket)
            seen = len(at.events)
            client.ask("/far/secret")
            await until(lambda: any(each.exchanged for each in at.events[seen:]))
            told = [each for each in at.events[seen:] if each.exchanged is not None]
            assert [(str(each.decision.source), each.decision.reason.name) for each in told] == [
                ("127.0.0.1", "NO_MAPPING")
            ]
            assert not backend.heads


@looped
async def test_a_client_that_breaks_rules_of_quic_harms_itself_alone() -> None:
    async with site(answer()) as (at, _), http3(at.port) as client, http3(at.port) as other:
        await client.get()
        client.quic._remote_max_streams_bidi = 10_000
        client.quic._streams_blocked_bidi.clear()
        client.quic.send_stream_data(4 * 5000, b"x")
        client.flush()
        assert (await client.end()).error_code == QuicErrorCode.STREAM_LIMIT_ERROR
        assert (await other.get()).status == 200


@looped
async def test_a_client_that_is_silent_is_forgotten_by_close() -> None:
    async with site(answer()) as (at, _):
        client = Http3Client(at.port, "proxy.example", "127.0.0.1")
        await client.connect()
        await until(lambda: bool(http3_of(at).live))
        client.close()
        await until(lambda: not http3_of(at).live)
        assert at.admission._gate.inside == 0


@looped
async def test_a_head_in_single_bytes_is_not_gathered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_PIECES", 20)
    async with site(answer()) as (at, _), http3(at.port) as client:
        number = client.quic.get_next_available_stream_id()
        client.quic.send_stream_data(number, b"\x01\x60\x00")
        client.flush()
        for _ in range(100):
            client.quic.send_stream_data(number, b"a")
            client.flush()
            await asyncio.sleep(0.01)
            if client.ended:
                break
        assert (await client.end()).error_code == ErrorCode.H3_EXCESSIVE_LOAD


@looped
async def test_what_is_gathered_of_heads_is_within_the_window() -> None:
    async with site(answer()) as (at, _), http3(at.port) as client:
        for _ in range(40):
            number = client.quic.get_next_available_stream_id()
            client.quic.send_stream_data(number, b"\x01\x80\x00\xff\xff" + bytes(60_000))
            client.flush()
            await asyncio.sleep(0.01)
        await until(lambda: bool(http3_of(at).live))
        for _ in range(10):
            await asyncio.sleep(0.05)
        assert live(at).engine._local_max_data.used <= WINDOW
        for stream in tuple(live(at)._streams.values()):
            stream.give_up(ErrorCode.H3_REQUEST_CANCELLED)
        live(at).quic.flush()
        assert (await client.get()).status == 200
