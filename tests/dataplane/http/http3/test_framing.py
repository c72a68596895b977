"""Frames of HTTP/3 with our limits, without a network."""

import pytest
from aioquic.h3.connection import H3Connection, Setting
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.events import StreamDataReceived

from marchproxy.dataplane.http.http3.framing import Framing, Spoilt
from tests.dataplane.quic.test_engine import Pair

HEAD = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"h.example"), (b":path", b"/")]


class Spoken(Pair):
    """A client and our side of HTTP/3."""

    def __init__(self) -> None:
        super().__init__()
        self.framing = Framing(self.engine)
        self.h3 = H3Connection(self.client)
        self.hear()

    def hear(self) -> list[object]:
        """What our side makes of what comes."""
        return [each for event in self.run() for each in self.framing.handle_event(event)]


def test_settings_announce_our_limits() -> None:
    made = Spoken()
    assert made.framing.sent_settings == {
        Setting.QPACK_MAX_TABLE_CAPACITY: 0,
        Setting.QPACK_BLOCKED_STREAMS: 0,
        Setting.MAX_FIELD_SECTION_SIZE: 32_768,
        Setting.ENABLE_CONNECT_PROTOCOL: 1,
    }
    assert made.framing.received_settings is not None


def test_what_follows_a_malformed_head_is_thrown_away() -> None:
    made = Spoken()
    made.h3.send_headers(0, [(b"x-first", b"1"), *HEAD])
    made.h3.send_data(0, b"body", end_stream=True)
    found = made.hear()
    assert [type(each) for each in found] == [Spoilt, DataReceived]
    assert not made.engine.closing


def test_malformed_trailers_spoil_their_message_alone() -> None:
    made = Spoken()
    made.h3.send_headers(0, HEAD)
    made.h3.send_headers(0, [(b":status", b"200")], end_stream=True)
    made.h3.send_headers(4, HEAD, end_stream=True)
    found = made.hear()
    assert [type(each) for each in found] == [HeadersReceived, Spoilt, HeadersReceived]


@pytest.mark.parametrize("frame", [b"\x40\x41\x00", b"\x02\x00", b"\x04\x00", b"\x05\x01\x00"])
def test_frames_that_may_not_be_there_end_the_connection(frame: bytes) -> None:
    made = Spoken()
    made.client.send_stream_data(0, frame)
    made.hear()
    assert made.engine.closing


def test_unknown_frames_are_passed_over() -> None:
    made = Spoken()
    made.client.send_stream_data(0, b"\x21\x05grease"[:7])
    made.h3._get_or_create_stream(0)
    made.hear()
    assert not made.engine.closing


def test_a_client_cannot_make_us_keep_a_large_table() -> None:
    made = Spoken()
    settings = {int(Setting.QPACK_MAX_TABLE_CAPACITY): 1 << 30}
    made.framing._validate_settings(settings)
    assert settings[Setting.QPACK_MAX_TABLE_CAPACITY] <= 4096


def test_going_away_names_the_first_request_that_is_not_answered() -> None:
    made = Spoken()
    made.framing.go_away(8)
    told: list[bytes] = []
    for data, _ in made.engine.datagrams_to_send(made.now):
        made.client.receive_datagram(data, ("192.0.2.2", 443), made.now)
    while (event := made.client.next_event()) is not None:
        if isinstance(event, StreamDataReceived):
            told.append(event.data)
    assert b"\x07\x01\x08" in told
