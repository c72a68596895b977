"""Both ends of a connection in memory: windows, turns, what is held."""

import asyncio
from typing import cast

from h2.events import DataReceived, Event, RequestReceived, StreamEnded, TrailersReceived
from h2.settings import SettingCodes

from marchproxy.dataplane.http.http2.frames import Frames
from marchproxy.dataplane.http.http2.link import (
    HIGH,
    LOW,
    MAX_TABLE,
    MOST_HELD,
    Link,
    Outgoing,
    header_fields,
    speak,
)
from marchproxy.dataplane.http.messages import Fields
from tests.dataplane.loops import looped

HEAD: Fields = ((":method", "GET"), (":scheme", "http"), (":authority", "h"), (":path", "/"))


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.closed = False

    def set_write_buffer_limits(self, high: int) -> None: ...

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return len(self.written)


class Owner:
    """Hears what an `Outgoing` says."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def sending_full(self) -> None:
        self.heard.append("full")

    def sending_ready(self) -> None:
        self.heard.append("ready")

    def sending_over(self) -> None:
        self.heard.append("over")


class End(Link):
    """One that remembers events."""

    def __init__(self, *, client: bool, window: int) -> None:
        settings = {SettingCodes.INITIAL_WINDOW_SIZE: window}
        super().__init__(speak(client=client, settings=settings), Frames(preface=not client, resets=100))
        self.events: list[Event] = []
        for kind in (RequestReceived, DataReceived, StreamEnded, TrailersReceived):
            self.handle(kind, self.events.append)
        self.wire = Wire()
        self.connection_made(cast(asyncio.Transport, self.wire))


def pair(window: int = 65_535) -> tuple[End, End]:
    """A client and a server, which takes so much of a stream at first."""
    return End(client=True, window=window), End(client=False, window=window)


async def exchange(*ends: End) -> None:
    """Until neither has anything to say."""
    one, other = ends
    while True:
        await asyncio.sleep(0)
        if not one.wire.written and not other.wire.written:
            return
        for left, right in ((one, other), (other, one)):
            said, left.wire.written = bytes(left.wire.written), bytearray()
            if said:
                right.data_received(said)


def begin(link: End, number: int) -> tuple[Outgoing, Owner]:
    owner = Owner()
    link.h2.send_headers(number, header_fields(HEAD))
    return Outgoing(link, number, owner), owner


def carried(end: End, number: int) -> int:
    return sum(len(e.data) for e in end.events if isinstance(e, DataReceived) and e.stream_id == number)


@looped
async def test_who_sends_too_much_is_told_to_wait_and_to_go_on() -> None:
    client, server = pair()
    await exchange(client, server)
    out, owner = begin(client, 1)
    for _ in range(10):
        out.data(bytes(16_384))
    out.end((("x-sum", "1"),))
    assert owner.heard == ["full"]
    await exchange(client, server)
    assert carried(server, 1) == 65_535
    assert client.held == 10 * 16_384 - 65_535 > HIGH
    while carried(server, 1) < 10 * 16_384:
        server.taken(16_384, 1)
        await exchange(client, server)
        assert ("ready" in owner.heard) is (client.held <= LOW)
    assert owner.heard == ["full", "ready", "over"]
    assert [type(e) for e in server.events[-2:]] == [TrailersReceived, StreamEnded]
    assert client.held == 0


@looped
async def test_a_stream_without_window_does_not_hold_up_others() -> None:
    client, server = pair(20_000)
    await exchange(client, server)
    one, two = begin(client, 1)[0], begin(client, 3)[0]
    one.data(bytes(60_000))
    two.data(bytes(10_000))
    two.end(())
    await exchange(client, server)
    assert (carried(server, 1), carried(server, 3)) == (20_000, 10_000)
    assert [e.stream_id for e in server.events if isinstance(e, StreamEnded)] == [3]


@looped
async def test_streams_take_turns() -> None:
    client, server = pair(200_000)
    await exchange(client, server)
    one, two = begin(client, 1)[0], begin(client, 3)[0]
    for out in (one, two):
        out.data(bytes(100_000))
    await exchange(client, server)
    order = [e.stream_id for e in server.events if isinstance(e, DataReceived)]
    assert order[:6] == [1, 3, 1, 3, 1, 3]


@looped
async def test_all_streams_together_have_a_limit() -> None:
    client, server = pair()
    await exchange(client, server)
    owners = []
    number = 1
    while client.held <= MOST_HELD:
        out, owner = begin(client, number)
        out.data(bytes(HIGH))
        owners.append(owner)
        number += 2
    assert not any(owner.heard for owner in owners[:-1])
    out, owner = begin(client, number)
    out.data(bytes(LOW + 1))
    assert owner.heard == ["full"]
    out.drop()
    assert client.held == len(owners) * HIGH


@looped
async def test_nothing_is_sent_to_who_takes_nothing() -> None:
    client, server = pair(1_000_000)
    await exchange(client, server)
    out, _ = begin(client, 1)
    client.pause_writing()
    out.data(bytes(50_000))
    await exchange(client, server)
    assert carried(server, 1) == 0
    client.resume_writing()
    await exchange(client, server)
    assert carried(server, 1) == 50_000


@looped
async def test_a_stream_that_the_other_side_has_reset_is_forgotten() -> None:
    client, server = pair()
    await exchange(client, server)
    out, _ = begin(client, 1)
    out.data(b"x")
    await exchange(client, server)
    server.reset(1, 8)  # type: ignore[arg-type]
    out.data(bytes(50_000))
    await exchange(server, client)
    out.data(bytes(50_000))
    await exchange(server, client)
    assert client.held == 0


def test_secrets_are_not_compressed() -> None:
    fields = header_fields(
        (("authorization", "Bearer x"), ("cookie", "a=1"), ("cookie", "a" * 30), ("a", "b"))
    )
    assert [getattr(field, "indexable", True) for field in fields] == [False, False, True, True]


@looped
async def test_a_peer_that_remembers_much_does_not_make_us() -> None:
    client, server = pair()
    await exchange(client, server)
    client.h2.update_settings({SettingCodes.HEADER_TABLE_SIZE: 2**30})
    client.flush_soon()
    await exchange(client, server)
    assert server.h2.encoder.header_table_size == MAX_TABLE
    begin(client, 1)
    await exchange(client, server)
    out = Outgoing(server, 1, Owner())
    out.head(((":status", "200"), ("a", "b")))
    await exchange(client, server)
    assert not client.over
