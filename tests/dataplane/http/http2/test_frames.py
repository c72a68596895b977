"""Frames looked at before the library reads them, whatever way their bytes come in."""

from itertools import pairwise

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from marchproxy.dataplane.http.http2.frames import PREFACE, Allowance, Broken, Farewell, Flood, Frames


def flagged(frame: Frame, *flags: str) -> Frame:
    for flag in flags:
        frame.flags.add(flag)
    return frame


FRAMES: list[Frame] = [
    SettingsFrame(0, {3: 100}),
    flagged(HeadersFrame(1, data=b"\x82\x86"), "END_HEADERS"),
    DataFrame(1, data=b"abc" * 50),
    GoAwayFrame(0, last_stream_id=7, error_code=2, additional_data=b"why"),
    DataFrame(1, data=b""),
    HeadersFrame(3, data=b"\x82"),
    flagged(ContinuationFrame(3, data=b"\x86"), "END_HEADERS"),
    GoAwayFrame(0, last_stream_id=2**31 - 1),
    PingFrame(0, b"12345678"),
    WindowUpdateFrame(1, window_increment=5),
    RstStreamFrame(1, error_code=8),
]
WHOLE = PREFACE + b"".join(frame.serialize() for frame in FRAMES)
KEPT = PREFACE + b"".join(frame.serialize() for frame in FRAMES if not isinstance(frame, GoAwayFrame))


@settings(max_examples=300, database=None)
@given(cuts=st.lists(st.integers(1, len(WHOLE) - 1), max_size=30, unique=True))
def test_all_but_goodbyes_goes_on_however_it_comes(cuts: list[int]) -> None:
    frames = Frames(preface=True, resets=10)
    places = [0, *sorted(cuts), len(WHOLE)]
    assert b"".join(frames.feed(WHOLE[start:end], 1.0) for start, end in pairwise(places)) == KEPT
    assert frames.farewell == Farewell(2**31 - 1, 0)
    assert frames.since is None


def test_what_needs_no_change_is_not_copied() -> None:
    frames = Frames(preface=False, resets=10)
    data = DataFrame(1, data=bytes(1000)).serialize() * 3
    assert frames.feed(data, 0.0) is data
    assert frames.feed(data[:500], 0.0) is not None
    assert frames.feed(data[500:], 0.0) is not None


def began(frames: Frames) -> float | None:
    return frames.since


def test_what_is_not_complete_is_known_since_it_began() -> None:
    frames = Frames(preface=False, resets=10)
    frames.feed(DataFrame(1, data=bytes(1000)).serialize()[:500], 1.0)
    assert began(frames) is None, "a body may take its time"
    frames.feed(DataFrame(1, data=bytes(1000)).serialize()[500:], 1.0)
    ping = PingFrame(0, b"12345678").serialize()
    for size, now in ((3, 2.0), (10, 3.0)):
        frames.feed(ping[size - 3 : size] if size == 3 else ping[3:10], now)
        assert began(frames) == 2.0
    frames.feed(ping[10:], 4.0)
    assert began(frames) is None
    frames.feed(HeadersFrame(1, data=b"\x82").serialize(), 5.0)
    frames.feed(ContinuationFrame(1, data=b"\x82").serialize(), 6.0)
    assert began(frames) == 5.0
    frames.feed(flagged(ContinuationFrame(1, data=b"\x82"), "END_HEADERS").serialize(), 7.0)
    assert began(frames) is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        PREFACE[:10] + b"x",
        PREFACE[:-1] + b"\0",
    ],
)
def test_another_beginning_is_refused(data: bytes) -> None:
    with pytest.raises(Broken):
        Frames(preface=True, resets=1).feed(data, 0.0)


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x40\x01\x00\x00\x00\x00\x00\x01",
        b"HTTP/1.1 400",
        b"\x00\x00\x07\x07\x00\x00\x00\x00\x00" + bytes(7),
    ],
)
def test_what_no_peer_may_send_is_refused_by_its_header(data: bytes) -> None:
    with pytest.raises(Broken):
        Frames(preface=False, resets=1).feed(data, 0.0)


def test_an_allowance_is_filled_up_by_time() -> None:
    allowance = Allowance("x", 3, 2)
    for _ in range(3):
        allowance.spend(10.0)
    with pytest.raises(Flood):
        allowance.spend(10.4)
    allowance.spend(10.5)
    with pytest.raises(Flood):
        allowance.spend(10.5)
    for _ in range(3):
        allowance.spend(1000.0)
    with pytest.raises(Flood):
        allowance.spend(1000.0)
    allowance.earn(100)
    for _ in range(3):
        allowance.spend(1000.0)
    with pytest.raises(Flood):
        allowance.spend(1000.0)
