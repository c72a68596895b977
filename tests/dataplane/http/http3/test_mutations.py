"""Whatever comes on the streams of a connection ends that connection at most, and leaves nothing behind."""

import asyncio
import logging
import random

import pylsqpack
import pytest
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import FrameType, encode_frame

from tests.dataplane.http.http3.peer import Http3Client, http3
from tests.dataplane.http.http3.test_listeners import http3_of, site
from tests.dataplane.http.site import answer
from tests.dataplane.loops import looped, until

GET = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"proxy.example"), (b":path", b"/here")]
POST = [(b":method", b"POST"), *GET[1:], (b"content-length", b"40")]
STEPS = 60


def block(chosen: random.Random) -> bytes:
    """A head, whole or not."""
    fields = list(chosen.choice((GET, POST)))
    for _ in range(chosen.randrange(3)):
        name, value = chosen.choice(
            ((b"x-a", b"1"), (b"cookie", b"a=b"), (b":path", b"/x"), (b"te", b"trailers"), (b"X", b"\r\n"))
        )
        fields.insert(chosen.randrange(len(fields) + 1), (name, value))
    _, encoded = pylsqpack.Encoder().encode(0, fields)
    return mutated(chosen, encoded) if chosen.random() < 0.3 else encoded


def mutated(chosen: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(chosen.randrange(1, 4)):
        if changed:
            changed[chosen.randrange(len(changed))] = chosen.randrange(256)
    return bytes(changed)


def frame(chosen: random.Random) -> bytes:
    kind = chosen.choice([0, 0, 0, 1, 1, 1, 1, 3, 4, 5, 7, 13, 0x21, 0x41, chosen.randrange(1 << 20)])
    if kind == FrameType.HEADERS:
        made = encode_frame(kind, block(chosen))
    else:
        made = encode_frame(kind, chosen.randbytes(chosen.choice([0, 1, 20, 40, 2000])))
    if chosen.random() < 0.15:
        made = mutated(chosen, made)
    return made[: chosen.randrange(len(made))] if chosen.random() < 0.1 else made


def step(chosen: random.Random, client: Http3Client) -> None:
    quic = client.quic
    match chosen.randrange(10):
        case 0:
            number = quic.get_next_available_stream_id(is_unidirectional=True)
            kind = encode_uint_var(chosen.choice([0, 1, 2, 3, 0x54, 0x21]))
            quic.send_stream_data(number, kind + frame(chosen), chosen.random() < 0.3)
        case 1:
            streams = [each for each in quic._streams if each % 4 == 0]
            if streams:
                quic.reset_stream(chosen.choice(streams), chosen.randrange(1 << 16))
        case 2:
            streams = [each for each in quic._streams if each % 4 == 0]
            if streams:
                quic.stop_stream(chosen.choice(streams), chosen.randrange(1 << 16))
        case 3:
            client.rebind()
        case _:
            requests = [each for number, each in quic._streams.items() if number % 4 == 0]
            streams = [each.stream_id or 0 for each in requests if each.sender._buffer_fin is None]
            fresh = quic.get_next_available_stream_id()
            number = chosen.choice(streams) if streams and chosen.random() < 0.5 else fresh
            data = b"".join(frame(chosen) for _ in range(chosen.randrange(1, 4)))
            quic.send_stream_data(number, data, chosen.random() < 0.4)
    client.flush()


@pytest.mark.parametrize("seed", range(8))
@looped
async def test_any_frames_on_any_streams(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    chosen = random.Random(seed)
    async with site(answer(b"x" * 300)) as (at, _), http3(at.port) as other:
        with caplog.at_level(logging.ERROR, logger="marchproxy"):
            for _ in range(3):
                async with http3(at.port) as client:
                    for _ in range(STEPS):
                        try:
                            step(chosen, client)
                        except (ValueError, RuntimeError, AssertionError):
                            # The client's own library will not say that.
                            continue
                        await asyncio.sleep(0)
                        if client.ended:
                            break
            assert (await other.get()).status == 200
        # A request that breaks off may break the test's own backend.
        assert not [each for each in caplog.records if "dataplane.tasks" not in each.name]
        await until(lambda: len(http3_of(at).live) == 1)
        assert at.admission._gate.inside == 1
        assert all(not each.counting._uses for each in http3_of(at).live)
