"""HTTP/2 towards backends: many exchanges over one connection."""

import asyncio
import os

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame

from marchproxy.dataplane.http.http2.link import CONNECTION_WINDOW, STREAM_WINDOW
from tests.dataplane.http.http2.backend import Session, routed2, served2
from tests.dataplane.http.http2.peer import client
from tests.dataplane.http.site import answer, ask, get, said, served
from tests.dataplane.loops import looped, until

CALL = (("content-type", "application/grpc"), ("te", "trailers"))


@looped
async def test_http_1_goes_on_as_http_2() -> None:
    async with served2() as (at, backend):
        [(head, body)] = await ask(at, get("/here/a?b", "h.example", "Cookie: a=1", "Connection: close"))
        assert head.startswith("HTTP/1.1 200 OK\r\n")
        assert body == b"hello"
        assert len(backend.asked[0].pop("x-request-id")) == 32
        assert backend.asked == [
            {
                ":method": "GET",
                ":scheme": "http",
                ":authority": "h.example",
                ":path": "/here/a?b",
                "cookie": "a=1",
                "x-forwarded-for": "127.0.0.1",
                "x-forwarded-proto": "http",
                "x-forwarded-host": "h.example",
                "forwarded": 'for=127.0.0.1;proto=http;host="h.example"',
                "via": "1.1 marchproxy",
            }
        ]


@looped
async def test_many_share_a_connection() -> None:
    async with served2() as (at, backend), client(at.port) as peer, client(at.port) as other:
        numbers = [(each, each.ask(f"/here/{index}")) for index in range(20) for each in (peer, other)]
        for each, number in numbers:
            assert bytes((await each.hear(number)).body) == b"hello"
        assert len(backend.sessions) == 1
        assert len(backend.asked) == 40
        assert backend.resets == []


@looped
async def test_a_backend_that_takes_few_gets_more_connections() -> None:
    waiting: list[tuple[Session, int]] = []

    async with served2(lambda *each: waiting.append(each), most=4) as (at, backend), client(at.port) as peer:
        first = peer.ask()
        await until(lambda: len(waiting) == 1)
        numbers = [first, *(peer.ask() for _ in range(11))]
        await peer.settled()
        await until(lambda: len(waiting) == 12)
        assert len(backend.sessions) >= 3
        for session, number in waiting:
            session.answer(number)
        for number in numbers:
            assert (await peer.hear(number)).status == 200


@looped
async def test_bodies_and_trailers_pass_both_ways() -> None:
    body = os.urandom(200_000)

    def echo(session: Session, number: int) -> None:
        session.h2.send_headers(number, [(":status", "200")])
        data = bytes(session.backend.bodies[number, session])
        window = session.h2.local_flow_control_window(number)
        assert window >= STREAM_WINDOW > len(data)
        for start in range(0, len(data), 16_384):
            session.h2.send_data(number, data[start : start + 16_384])
        session.h2.send_headers(number, [("grpc-status", "0")], end_stream=True)

    async with served2(echo) as (at, backend), client(at.port) as peer:
        number = peer.ask("/here", *CALL, method="POST", ends=False)
        sent = 0
        while sent < len(body):
            room = min(peer.h2.local_flow_control_window(number), len(body) - sent)
            if room:
                peer.send(number, body[sent : sent + room])
                sent += room
            else:
                await peer.read()
        peer.h2.send_headers(number, [("x-sum", "1")], end_stream=True)
        peer.flush()
        heard = await peer.hear(number)
        assert bytes(heard.body) == body
        assert heard.trailers == {"grpc-status": "0"}
        assert backend.trailers == [{"x-sum": "1"}]
        assert backend.asked[0]["te"] == "trailers"


@looped
async def test_a_backend_that_takes_nothing_holds_up_its_client() -> None:
    async with served2() as (at, backend), client(at.port) as peer:
        backend.takes = False
        number = peer.ask("/here", method="POST", ends=False)
        await until(lambda: bool(backend.asked))
        total = 0
        while True:
            room = peer.h2.local_flow_control_window(number)
            if not room:
                await peer.settled()
                if not peer.h2.local_flow_control_window(number):
                    break
                continue
            peer.send(number, bytes(room))
            total += room
        # What the backend's window takes, what is held for it, and the client's own window.
        assert total < 65_535 + 3 * STREAM_WINDOW + 256 * 1024
        [session] = backend.sessions
        backend.takes = True
        session.h2.acknowledge_received_data(65_535, 1)
        session.flush()
        await peer.read()
        peer.send(number, b"", ends=True)
        assert (await peer.hear(number)).status == 200
        await until(lambda: len(backend.bodies[1, session]) == total)


@looped
async def test_a_client_that_takes_nothing_holds_up_its_backend_alone() -> None:
    sent = 0

    def flood(session: Session, number: int) -> None:
        nonlocal sent
        if "/here/other" in session.backend.heads[number, session].values():
            session.answer(number, b"other")
            return
        session.h2.send_headers(number, [(":status", "200")])
        while window := session.h2.local_flow_control_window(number):
            size = min(window, 16_384)
            session.h2.send_data(number, bytes(size))
            sent += size

    async with served2(flood) as (at, backend), client(at.port) as peer, client(at.port) as other:
        peer.takes = False
        number = peer.ask()
        await peer.heard(number)
        assert bytes((await other.hear(other.ask("/here/other"))).body) == b"other"
        [session] = backend.sessions
        assert sent == STREAM_WINDOW
        assert session.h2.outbound_flow_control_window <= CONNECTION_WINDOW


@looped
async def test_what_a_backend_refuses_unread_is_asked_once_more() -> None:
    refusals = 1

    def refuse(session: Session, number: int) -> None:
        nonlocal refusals
        if refusals:
            refusals -= 1
            session.h2.reset_stream(number, ErrorCodes.REFUSED_STREAM)
        else:
            session.answer(number, bytes(session.backend.bodies[number, session]))

    async with served2(refuse) as (at, backend), client(at.port) as peer:
        number = peer.ask("/here", method="POST", ends=False)
        peer.send(number, b"body", ends=True)
        assert bytes((await peer.hear(number)).body) == b"body"
        assert len(backend.asked) == 2
        refusals = 100
        heard = await peer.hear(peer.ask())
        assert (heard.status, heard.fields["x-marchproxy-reason"]) == (502, "UPSTREAM_REFUSED")
        assert len(backend.asked) == 2 + 2 * 2


@looped
async def test_what_a_goodbye_leaves_unread_goes_to_another_connection() -> None:
    def leave(session: Session, number: int) -> None:
        if len(session.backend.sessions) > 1:
            session.answer(number, b"second")
        elif number == 3:
            session.writer.write(GoAwayFrame(0, last_stream_id=1, error_code=0).serialize())
            session.answer(1, b"first")

    async with served2(leave) as (at, backend), client(at.port) as peer:
        one = peer.ask("/here/1", method="POST", ends=False)
        peer.send(one, b"1", ends=True)
        await until(lambda: len(backend.asked) == 1)
        two = peer.ask("/here/2", method="POST", ends=False)
        peer.send(two, b"2", ends=True)
        assert bytes((await peer.hear(one)).body) == b"first"
        assert bytes((await peer.hear(two)).body) == b"second"
        assert len(backend.sessions) == 2
        await until(lambda: len(at.admission._reads_http()._http2._links) == 1)


@looped
async def test_what_a_backend_may_have_read_is_not_repeated() -> None:
    def breaks(session: Session, number: int) -> None:
        session.writer.close()

    async with served2(breaks) as (at, backend), client(at.port) as peer:
        number = peer.ask("/here", method="POST", ends=False)
        peer.send(number, b"body", ends=True)
        heard = await peer.hear(number)
        assert (heard.status, heard.fields["x-marchproxy-reason"]) == (502, "RESET")
        assert len(backend.asked) == 1


@looped
async def test_a_get_whose_kept_connection_has_ended_is_said_again() -> None:
    def once(session: Session, number: int) -> None:
        if session is session.backend.sessions[0] and number > 1:
            session.writer.close()
        else:
            session.answer(number)

    async with served2(once) as (at, backend), client(at.port) as peer:
        await peer.hear(peer.ask())
        assert (await peer.hear(peer.ask())).status == 200
        assert len(backend.sessions) == 2


@looped
async def test_who_leaves_resets_its_stream_and_no_other() -> None:
    held: list[tuple[Session, int]] = []
    async with served2(lambda *each: held.append(each)) as (at, backend), client(at.port) as peer:
        one, two = peer.ask(), peer.ask()
        await until(lambda: len(held) == 2)
        peer.h2.reset_stream(one, ErrorCodes.CANCEL)
        peer.flush()
        await until(lambda: backend.resets == [ErrorCodes.CANCEL])
        session, number = held[1]
        session.answer(number)
        assert (await peer.hear(two)).status == 200
        assert len(backend.sessions) == 1


@pytest.mark.parametrize(
    "fields",
    [
        [(":status", "200"), ("a", "b\x01")],
        [(":status", "200"), ("connection", "close")],
        [(":status", "200"), ("transfer-encoding", "chunked")],
        [(":status", "101")],
    ],
)
@looped
async def test_an_answer_with_two_readings_goes_no_further(fields: list[tuple[str, str]]) -> None:
    def bad(session: Session, number: int) -> None:
        session.h2.config.validate_outbound_headers = False
        session.h2.config.normalize_outbound_headers = False
        session.h2.send_headers(number, fields, end_stream=fields[0][1] != "101")

    async with served2(bad) as (at, _):
        [(head, _)] = await ask(at, get())
        assert head.startswith("HTTP/1.1 502 ")


@looped
async def test_a_backend_that_speaks_http_1_is_told_apart() -> None:
    async with served(answer()) as (at, backend):
        at.apply(routed2(at, backend.port), 3)
        [(head, _)] = await ask(at, get())
        assert head.startswith("HTTP/1.1 502 ")


@looped
async def test_with_http_in_the_mapping_only_calls_go_by_http_2() -> None:
    async with served2(protocol="http,grpc") as (at, backend), client(at.port) as peer:
        assert (await peer.hear(peer.ask("/here", *CALL, method="POST"))).status == 200
        [(head, _)] = await ask(at, get())
        assert head.startswith("HTTP/1.1 502 ")
        assert len(backend.asked) == 1


@looped
async def test_unused_connections_end() -> None:
    async with served2() as (at, backend):
        await ask(at, get())
        [[link]] = at.admission._reads_http()._http2._links.values()
        link.idle_since -= 100
        at.admission._reads_http().tick()
        await until(lambda: not at.admission._reads_http()._http2._links)
        assert said((await ask(at, get()))[0][0], "content-length") == []
        assert len(backend.sessions) == 2
        assert asyncio.current_task()


@looped
async def test_a_connection_that_nothing_comes_from_gets_no_more_requests() -> None:
    async with served2(lambda *_: None) as (at, backend), client(at.port) as peer:
        number = peer.ask()
        await until(lambda: len(backend.asked) == 1)
        [[link]] = at.admission._reads_http()._http2._links.values()
        [stream] = link.streams.values()
        stream._began = link.heard = link.heard - 100
        peer.h2.reset_stream(number, ErrorCodes.CANCEL)
        peer.flush()
        await until(lambda: link.over)
        backend.on_end = Session.answer
        assert (await peer.hear(peer.ask())).status == 200
        assert len(backend.sessions) == 2
