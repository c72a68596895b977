"""aioquic's frames of HTTP/3 (RFC 9114) and field compression, with our limits. As of aioquic 1.7.2; all that
depends on its inside is here and in `quic/engine.py`.

* There is no dynamic table (RFC 9204 section 3.2.3): one entry of 4 KiB can be named thousands of times in a
  few kilobytes, and streams would wait for one another. Backends are told the same fields either way.
* A message that is malformed ends its stream (section 4.1.2); aioquic ends the connection.
* Everything that is gathered before it is understood has a limit.
"""

from dataclasses import dataclass

import pylsqpack
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import (
    ErrorCode,
    FrameType,
    FrameUnexpected,
    H3Connection,
    H3Stream,
    HeadersState,
    MessageError,
    ProtocolError,
    Setting,
    encode_frame,
)
from aioquic.h3.events import H3Event

from marchproxy.dataplane.proxy.protocol.http_head import MAX_HEAD
from marchproxy.dataplane.quic.engine import Engine

MOST_ENCODED = 2 * MAX_HEAD
"""Bytes of a head before it is decoded: more end the connection. Above `MAX_HEAD` decoded it is answered."""
_MOST_CONTROL = 4096
"""Bytes of a frame on the control stream."""
_OUR_TABLE = 4096
"""Bytes that we use of the table that a client offers for what it is answered."""


class ExcessiveLoad(ProtocolError):
    """More than we take."""

    error_code = ErrorCode.H3_EXCESSIVE_LOAD


@dataclass
class Spoilt(H3Event):
    """A message that breaks the rules; nothing more is said of its stream."""

    stream_id: int
    why: str


class Framing(H3Connection):
    """The server's side."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)

    def go_away(self, first: int) -> None:
        """Tell the client that requests from stream `first` on are not answered (section 5.2)."""
        if self._local_control_stream_id is not None:
            frame = encode_frame(FrameType.GOAWAY, encode_uint_var(first))
            self._quic.send_stream_data(self._local_control_stream_id, frame)

    def knows(self, stream_id: int) -> bool:
        """Whether anything has come on a stream that is not over."""
        return stream_id in self._stream

    def forget(self, stream_id: int) -> None:
        """Nothing more is said on a stream, whatever still comes."""
        stream = self._stream.get(stream_id)
        if stream is not None:
            stream.sending_ended = True
            if stream.is_ended():
                self._stream.pop(stream_id)

    # ---- of H3Connection

    def _init_connection(self) -> None:
        self._max_table_capacity = self._blocked_streams = 0
        self._decoder = pylsqpack.Decoder(0, 0)
        super()._init_connection()

    def _get_local_settings(self) -> dict[int, int]:
        return {
            Setting.QPACK_MAX_TABLE_CAPACITY: 0,
            Setting.QPACK_BLOCKED_STREAMS: 0,
            Setting.MAX_FIELD_SECTION_SIZE: MAX_HEAD,
            Setting.ENABLE_CONNECT_PROTOCOL: 1,
        }

    def _validate_settings(self, settings: dict[int, int]) -> None:
        super()._validate_settings(settings)
        offered = settings.get(Setting.QPACK_MAX_TABLE_CAPACITY, 0)
        settings[Setting.QPACK_MAX_TABLE_CAPACITY] = min(offered, _OUR_TABLE)

    def _check_control_frame_type(self, frame_type: int) -> None:
        super()._check_control_frame_type(frame_type)
        stream = self._stream.get(self._peer_control_stream_id or 0)
        gathered = frame_type in (FrameType.SETTINGS, FrameType.MAX_PUSH_ID)
        if gathered and stream is not None and (stream.frame_size or 0) > _MOST_CONTROL:
            raise ExcessiveLoad("a frame on the control stream is too large")

    def _check_request_or_push_frame_type(self, frame_type: int, stream: H3Stream) -> None:
        super()._check_request_or_push_frame_type(frame_type, stream)
        if frame_type == FrameType.WEBTRANSPORT_STREAM:
            raise FrameUnexpected("WebTransport was not agreed on")
        if frame_type == FrameType.HEADERS and (stream.frame_size or 0) > MOST_ENCODED:
            raise ExcessiveLoad("the fields of a message are too large")

    def _check_content_length(self, stream: H3Stream) -> None:
        """Who takes the body counts it, before it goes on."""

    def _handle_request_or_push_frame(
        self, frame_type: int, frame_data: bytes | None, stream: H3Stream, stream_ended: bool
    ) -> list[H3Event]:
        try:
            return super()._handle_request_or_push_frame(frame_type, frame_data, stream, stream_ended)
        except MessageError as error:
            # What follows on the stream is taken for its body, and thrown away.
            begins = stream.headers_recv_state is HeadersState.INITIAL
            stream.headers_recv_state = HeadersState.AFTER_HEADERS if begins else HeadersState.AFTER_TRAILERS
            return [Spoilt(stream.stream_id, error.reason_phrase)]
