"""One call of gRPC's health service, without I/O.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError

from marchproxy.dataplane.health.http import HEAD_LIMIT, BadAnswer

_METHOD = "/grpc.health.v1.Health/Check"
_SERVING = 1
_STATES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
_CODES = {"5": "the service is unknown there", "12": "there is no health service"}
_PREFIX = 5
"""Bytes before a message: whether it is compressed, and its length."""
_STRING, _VARINT = 0x0A, 0x08
"""Field 1 of a message of Protocol Buffers, by its wire type."""


class HealthCall:
    """Asks how a service is; the empty name stands for the whole server."""

    def __init__(self, service: str, authority: str, *, secure: bool) -> None:
        self._taken = 0
        self._message = b""
        self._http = ""
        self._code: str | None = None
        self._ended = False
        self._connection = H2Connection(H2Configuration(client_side=True, header_encoding="latin-1"))
        self._connection.initiate_connection()
        fields = [
            (":method", "POST"),
            (":scheme", "https" if secure else "http"),
            (":authority", authority),
            (":path", _METHOD),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("user-agent", "marchproxy-health"),
        ]
        self._connection.send_headers(1, fields)
        self._connection.send_data(1, _request(service), end_stream=True)

    def to_send(self) -> bytes:
        """What has to be written now."""
        return self._connection.data_to_send()

    def feed(self, data: bytes) -> str | None:
        """Take in what came; empty if the service is healthy, else why not; None: more has to come.

        Raises `BadAnswer`.
        """
        if not self._taken and data.startswith(b"HTTP/"):
            # The library would wait for more of it.
            raise BadAnswer("the answer is HTTP/1")
        self._taken += len(data)
        if self._taken > HEAD_LIMIT:
            raise BadAnswer(f"no answer of gRPC within {HEAD_LIMIT} bytes")
        try:
            events = self._connection.receive_data(data)
        except ProtocolError:
            raise BadAnswer("the answer is not HTTP/2") from None
        for event in events:
            self._take(event)
        return self._found() if self._ended else None

    def _take(self, event: Event) -> None:
        match event:
            case ResponseReceived() | TrailersReceived():
                fields = {str(name): str(value) for name, value in event.headers}
                self._http = fields.get(":status", self._http)
                self._code = fields.get("grpc-status", self._code)
            case DataReceived():
                self._message += event.data
            case StreamEnded():
                self._ended = True
            case StreamReset() | ConnectionTerminated():
                if not self._ended:
                    raise BadAnswer("the call was ended before its answer was complete")

    def _found(self) -> str:
        if self._http != "200":
            raise BadAnswer(f"HTTP {self._http}")
        if self._code is None:
            raise BadAnswer("the answer is not gRPC")
        if self._code != "0":
            return _CODES.get(self._code, f"gRPC status {self._code[:10]}")
        state = _state(self._message)
        return "" if state == _SERVING else _STATES[state].replace("_", " ").lower()


def _request(service: str) -> bytes:
    """The one message of the call."""
    name = service.encode()
    message = bytes((_STRING,)) + _varint(len(name)) + name if name else b""
    return b"\0" + len(message).to_bytes(_PREFIX - 1) + message


def _state(message: bytes) -> int:
    """The state in a message. One that is 0 may be left out. Raises `BadAnswer`."""
    length = int.from_bytes(message[1:_PREFIX])
    body = message[_PREFIX:]
    if len(message) < _PREFIX or message[0] or length != len(body):
        raise BadAnswer("the answer has not one message")
    if not body:
        return 0
    if len(body) != 2 or body[0] != _VARINT or body[1] >= len(_STATES):
        raise BadAnswer("the answer is not one of a health service")
    return body[1]


def _varint(number: int) -> bytes:
    """Seven bits in each byte, the low ones first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
