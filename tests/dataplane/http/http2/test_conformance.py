"""What RFC 9113 and RFC 7541 say that a peer must not do, and what it must be told for it.

After the list that h2spec goes through, section by section; it is in no package.
"""

import asyncio
from dataclasses import dataclass, field

import pytest
from h2.errors import ErrorCodes as Code
from hpack import Encoder

from marchproxy.dataplane.http.http2.frames import PREFACE, Kind
from tests.dataplane.http.site import answer, served
from tests.dataplane.loops import looped
from tests.dataplane.proxy.peers import dial

ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY = 0x20
BOTH = END_STREAM | END_HEADERS


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One, whatever is in it."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def block(method: str = "GET", *more: tuple[str, str]) -> bytes:
    """A head without a table to remember."""
    fields = [(":method", method), (":scheme", "http"), (":authority", "h"), (":path", "/here"), *more]
    data: bytes = Encoder().encode([(name.encode(), value.encode(), True) for name, value in fields])
    return data


GET = block()
POST = block("POST", ("content-length", "4"))
ASK = frame(Kind.HEADERS, BOTH, 1, GET)
OPEN = frame(Kind.HEADERS, END_HEADERS, 1, POST)
PROTOCOL = {Code.PROTOCOL_ERROR}
UNREADABLE = {Code.COMPRESSION_ERROR, Code.PROTOCOL_ERROR}
SIZE = {Code.FRAME_SIZE_ERROR, Code.PROTOCOL_ERROR}
PING = frame(Kind.PING, 0, 0, b"settled?")


@dataclass
class Told:
    """What came back."""

    goodbye: Code | None = None
    resets: dict[int, Code] = field(default_factory=dict)
    statuses: int = 0
    pongs: list[bytes] = field(default_factory=list)
    settings: int = 0

    @property
    def codes(self) -> set[Code]:
        """Of all errors."""
        return {*self.resets.values(), *([self.goodbye] if self.goodbye is not None else [])} - {
            Code.NO_ERROR
        }


async def tell(*frames: bytes, preface: bytes = PREFACE + frame(Kind.SETTINGS, 0, 0)) -> Told:
    """Say that, and a ping; hear what comes until its answer or the end."""
    told = Told()
    async with served(answer()) as (at, _), dial(at.port) as (reader, writer):
        writer.write(preface)
        for each in frames:
            writer.write(each)
            await asyncio.sleep(0)
        writer.write(PING)
        try:
            while b"settled?" not in told.pongs or told.statuses + len(told.resets) < 1:
                head = await asyncio.wait_for(reader.readexactly(9), 1)
                payload = await reader.readexactly(int.from_bytes(head[:3]))
                stream = int.from_bytes(head[5:])
                match head[3]:
                    case Kind.GOAWAY:
                        told.goodbye = Code(int.from_bytes(payload[4:8]))
                    case Kind.RST_STREAM:
                        told.resets[stream] = Code(int.from_bytes(payload))
                    case Kind.HEADERS:
                        told.statuses += 1
                    case Kind.PING:
                        told.pongs.append(payload)
                    case Kind.SETTINGS:
                        told.settings += head[4] & ACK
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            pass
    return told


REFUSED: dict[str, tuple[tuple[bytes, ...], set[Code]]] = {
    "4.2 DATA above the size": ((OPEN, frame(Kind.DATA, 0, 1, bytes(16_385))), {Code.FRAME_SIZE_ERROR}),
    "4.2 HEADERS above the size": ((frame(Kind.HEADERS, BOTH, 1, bytes(16_385)),), {Code.FRAME_SIZE_ERROR}),
    "4.3 a head that cannot be read": (
        (frame(Kind.HEADERS, BOTH, 1, b"\x40\x85\xff\xff\xff\xff\xff"),),
        UNREADABLE,
    ),
    "4.3 another frame within a head": (
        (frame(Kind.HEADERS, END_STREAM, 1, GET), frame(Kind.PRIORITY, 0, 1, bytes(5))),
        PROTOCOL,
    ),
    "4.3 another head within a head": (
        (frame(Kind.HEADERS, END_STREAM, 1, GET), frame(Kind.HEADERS, BOTH, 3, GET)),
        PROTOCOL,
    ),
    "5.1 idle: DATA": ((frame(Kind.DATA, END_STREAM, 1, b"x"),), {Code.PROTOCOL_ERROR, Code.STREAM_CLOSED}),
    "5.1 idle: RST_STREAM": ((frame(Kind.RST_STREAM, 0, 1, bytes(4)),), PROTOCOL),
    "5.1 idle: WINDOW_UPDATE": ((frame(Kind.WINDOW_UPDATE, 0, 1, b"\0\0\0\1"),), PROTOCOL),
    "5.1 idle: CONTINUATION": ((frame(Kind.CONTINUATION, END_HEADERS, 1, GET),), PROTOCOL),
    "5.1 half closed: DATA": ((ASK, frame(Kind.DATA, END_STREAM, 1, b"x")), {Code.STREAM_CLOSED}),
    "5.1 half closed: HEADERS": (
        (ASK, frame(Kind.HEADERS, BOTH, 1, GET)),
        {Code.STREAM_CLOSED, Code.PROTOCOL_ERROR},
    ),
    "5.1 closed: DATA": (
        (OPEN, frame(Kind.RST_STREAM, 0, 1, b"\0\0\0\x08"), frame(Kind.DATA, END_STREAM, 1, b"x")),
        {Code.STREAM_CLOSED},
    ),
    "5.1 closed: HEADERS": (
        (OPEN, frame(Kind.RST_STREAM, 0, 1, b"\0\0\0\x08"), frame(Kind.HEADERS, BOTH, 1, GET)),
        {Code.STREAM_CLOSED},
    ),
    "5.1.1 an even number": ((frame(Kind.HEADERS, BOTH, 2, GET),), PROTOCOL),
    "5.1.1 a lower number": (
        (frame(Kind.HEADERS, BOTH, 5, GET), frame(Kind.HEADERS, BOTH, 3, GET)),
        {Code.PROTOCOL_ERROR, Code.STREAM_CLOSED},
    ),
    "6.1 DATA on stream 0": ((frame(Kind.DATA, 0, 0, b"x"),), PROTOCOL),
    "6.1 DATA with too much padding": (
        (OPEN, frame(Kind.DATA, PADDED | END_STREAM, 1, b"\x05abcd")),
        PROTOCOL,
    ),
    "6.2 HEADERS on stream 0": ((frame(Kind.HEADERS, BOTH, 0, GET),), PROTOCOL),
    "6.2 HEADERS with too much padding": (
        (frame(Kind.HEADERS, BOTH | PADDED, 1, bytes((len(GET) + 1,)) + GET),),
        PROTOCOL,
    ),
    "6.3 PRIORITY on stream 0": ((frame(Kind.PRIORITY, 0, 0, bytes(5)),), PROTOCOL),
    "6.3 PRIORITY of the wrong size": ((frame(Kind.PRIORITY, 0, 1, bytes(4)),), {Code.FRAME_SIZE_ERROR}),
    "6.4 RST_STREAM on stream 0": ((frame(Kind.RST_STREAM, 0, 0, bytes(4)),), PROTOCOL),
    "6.4 RST_STREAM of the wrong size": (
        (OPEN, frame(Kind.RST_STREAM, 0, 1, bytes(3))),
        {Code.FRAME_SIZE_ERROR},
    ),
    # The library says PROTOCOL_ERROR.
    "6.5 SETTINGS that answer and ask": ((frame(Kind.SETTINGS, ACK, 0, bytes(6)),), SIZE),
    "6.5 SETTINGS on a stream": ((frame(Kind.SETTINGS, 0, 1),), PROTOCOL),
    "6.5 SETTINGS of the wrong size": ((frame(Kind.SETTINGS, 0, 0, bytes(3)),), SIZE),
    "6.5.2 ENABLE_PUSH is 2": ((frame(Kind.SETTINGS, 0, 0, b"\0\2\0\0\0\2"),), PROTOCOL),
    "6.5.2 a window that is too large": (
        (frame(Kind.SETTINGS, 0, 0, b"\0\4\x80\0\0\0"),),
        {Code.FLOW_CONTROL_ERROR},
    ),
    "6.5.2 frames that are too small": (
        (frame(Kind.SETTINGS, 0, 0, b"\0\5\0\0\x3f\xff"),),
        PROTOCOL,
    ),
    "6.5.2 frames that are too large": (
        (frame(Kind.SETTINGS, 0, 0, b"\0\5\1\0\0\0"),),
        PROTOCOL,
    ),
    "6.6 PUSH_PROMISE of a client": (
        (OPEN, frame(Kind.PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + GET)),
        PROTOCOL,
    ),
    "6.7 PING on a stream": ((frame(Kind.PING, 0, 1, bytes(8)),), PROTOCOL),
    "6.7 PING of the wrong size": ((frame(Kind.PING, 0, 0, bytes(6)),), {Code.FRAME_SIZE_ERROR}),
    "6.8 GOAWAY on a stream": ((frame(Kind.GOAWAY, 0, 1, bytes(8)),), PROTOCOL),
    "6.8 GOAWAY of the wrong size": ((frame(Kind.GOAWAY, 0, 0, bytes(7)),), {Code.FRAME_SIZE_ERROR}),
    "6.9 WINDOW_UPDATE by nothing": ((frame(Kind.WINDOW_UPDATE, 0, 0, bytes(4)),), PROTOCOL),
    "6.9 WINDOW_UPDATE of a stream by nothing": (
        (OPEN, frame(Kind.WINDOW_UPDATE, 0, 1, bytes(4))),
        PROTOCOL,
    ),
    "6.9 WINDOW_UPDATE of the wrong size": (
        (frame(Kind.WINDOW_UPDATE, 0, 0, bytes(3)),),
        {Code.FRAME_SIZE_ERROR},
    ),
    "6.9.1 a window above the largest": (
        (frame(Kind.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"),),
        {Code.FLOW_CONTROL_ERROR},
    ),
    "6.9.1 a stream's window above the largest": (
        (OPEN, frame(Kind.WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff")),
        {Code.FLOW_CONTROL_ERROR},
    ),
    "6.10 CONTINUATION behind a whole head": (
        (OPEN, frame(Kind.CONTINUATION, END_HEADERS, 1, GET)),
        PROTOCOL,
    ),
    "6.10 CONTINUATION of another stream": (
        (frame(Kind.HEADERS, END_STREAM, 1, GET[:3]), frame(Kind.CONTINUATION, END_HEADERS, 3, GET[3:])),
        PROTOCOL,
    ),
    "8.1 trailers that do not end": (
        (OPEN, frame(Kind.HEADERS, END_HEADERS, 1, b"\x00\x01a\x01b")),
        PROTOCOL,
    ),
    "8.1.1 a body longer than said": (
        (OPEN, frame(Kind.DATA, END_STREAM, 1, b"12345")),
        PROTOCOL,
    ),
    "8.1.1 a body shorter than said": (
        (OPEN, frame(Kind.DATA, END_STREAM, 1, b"123")),
        PROTOCOL,
    ),
    "8.1 trailers with a pseudo-field": (
        (OPEN, frame(Kind.DATA, 0, 1, b"1234"), frame(Kind.HEADERS, BOTH, 1, b"\x00\x05:path\x01/")),
        PROTOCOL,
    ),
    "HPACK 2.3.3 index 0": (
        (frame(Kind.HEADERS, BOTH, 1, b"\x80"),),
        UNREADABLE,
    ),
    "HPACK 2.3.3 an index that is not there": (
        (frame(Kind.HEADERS, BOTH, 1, GET + b"\xc6"),),
        UNREADABLE,
    ),
    "HPACK 4.2 a table size behind fields": (
        (frame(Kind.HEADERS, BOTH, 1, GET + b"\x20"),),
        UNREADABLE,
    ),
    "HPACK 5.2 padding of Huffman's above 7 bits": (
        (frame(Kind.HEADERS, BOTH, 1, GET + b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff"),),
        UNREADABLE,
    ),
    "HPACK 6.3 a table above the largest": (
        (frame(Kind.HEADERS, BOTH, 1, b"\x3f\xe1\xff\x03" + GET),),
        UNREADABLE,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
@looped
async def test_what_must_not_be_said_is_an_error(name: str) -> None:
    frames, codes = REFUSED[name]
    told = await tell(*frames)
    assert told.codes, "it was taken"
    assert told.codes <= codes


TAKEN: dict[str, tuple[bytes, ...]] = {
    "4.1 a type that nobody knows": (frame(0x16, 0, 0, bytes(8)), ASK),
    "4.1 flags that nobody knows": (frame(Kind.PING, 0x16, 0, bytes(8)), ASK),
    "4.1 the reserved bit": (frame(Kind.PING, 0, 0x80000000, bytes(8)), ASK),
    "5.3 a priority": (frame(Kind.HEADERS, BOTH | PRIORITY, 1, bytes(5) + GET),),
    "5.3 a priority before": (frame(Kind.PRIORITY, 0, 1, b"\0\0\0\3\1"), ASK),
    "6.1 padding": (OPEN, frame(Kind.DATA, PADDED | END_STREAM, 1, b"\x031234\0\0\0")),
    "6.2 padding": (frame(Kind.HEADERS, BOTH | PADDED, 1, b"\x03" + GET + bytes(3)),),
    "6.5.2 a setting that nobody knows": (frame(Kind.SETTINGS, 0, 0, b"\0\xff\0\0\0\1"), ASK),
    "6.7 an answer that nobody asked for": (frame(Kind.PING, ACK, 0, bytes(8)), ASK),
    "6.10 a head in pieces": (
        frame(Kind.HEADERS, END_STREAM, 1, GET[:1]),
        frame(Kind.CONTINUATION, 0, 1, GET[1:4]),
        frame(Kind.CONTINUATION, END_HEADERS, 1, GET[4:]),
    ),
    "7 a code that nobody knows": (
        OPEN,
        frame(Kind.RST_STREAM, 0, 1, b"\0\0\0\xff"),
        frame(Kind.HEADERS, BOTH, 3, GET),
    ),
    "8.1 trailers": (
        OPEN,
        frame(Kind.DATA, 0, 1, b"1234"),
        frame(Kind.HEADERS, BOTH, 1, b"\x00\x01a\x01b"),
    ),
    "HPACK 6.3 a table size": (frame(Kind.HEADERS, BOTH, 1, b"\x20\x3f\xe1\x1f" + GET),),
}


@pytest.mark.parametrize("name", TAKEN)
@looped
async def test_what_may_be_said_is_no_error(name: str) -> None:
    told = await tell(*TAKEN[name])
    assert told.codes == set()
    assert told.statuses == 1
    assert told.settings >= 1
    assert b"settled?" in told.pongs


@looped
async def test_another_preface_is_the_end() -> None:
    told = await tell(preface=b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")
    assert told.goodbye is Code.PROTOCOL_ERROR
