"""Records as syslog messages (RFC 5424): for UDP (RFC 5426), TCP (RFC 6587 section 3.4.1), TLS (RFC 5425)."""

import os
import socket
import time
from collections.abc import Hashable, Iterator, Sequence
from functools import lru_cache

from marchproxy.model.address import IPAddress
from marchproxy.telemetry.logs.records import FlowRecord, LogClass, Message, Record, RequestRecord

APP_NAME = "marchproxy"
LONGEST = 2048
"""Octets of a message: what a receiver should take (RFC 5424 section 6.1). Only texts can be that long."""
LONGEST_PATH = 512
"""Characters of a path, of which a client may send 32 KiB; files and log platforms get the whole."""
AUTHPRIV, LOCAL0 = 10, 16
"""Facilities, RFC 5424 table 1: what is of class `auth`, and everything else."""

_BOM = "\ufeff"
# RFC 5424 section 6.3.3; control characters are legal there, and trouble for whoever reads lines.
_ESCAPES = str.maketrans(
    {'"': '\\"', "\\": "\\\\", "]": "\\]"} | {chr(code): "?" for code in (*range(32), *range(127, 160))}
)
_REMEMBERED = 4096
"""Addresses and names that are written as they were before: those of the few that talk all the time."""
_PHRASES = 1024
"""What records of one sink have alike: most are of few services. A scan makes new ones all the time."""
_CONTROLS = str.maketrans({chr(code): " " for code in (*range(32), *range(127, 160))})


class SyslogEncoder:
    """Makes messages of one sink's records."""

    def __init__(
        self, classes: frozenset[LogClass], enterprise: int, *, counted: bool, host: str | None = None
    ) -> None:
        """`classes` are those that are switched on; `counted` puts its length before each message."""
        self._classes = classes
        self._element = f"flow@{enterprise}"
        self._fault = f"event@{enterprise}"
        self._access = f"request@{enterprise}"
        self._counted = counted
        own = host if host is not None else socket.gethostname()
        self._middle = f"{_printable(own, 255)} {APP_NAME} {os.getpid()}"
        self._second = 0
        self._stamp = ""
        self._phrases: dict[Hashable, tuple[str, str, str, str, str]] = {}

    def begin(self) -> None:
        """Nothing of an earlier connection matters."""

    def encode(self, records: Sequence[Record]) -> Iterator[tuple[bytes, int]]:
        """Each message, and that it holds one record."""
        for record in records:
            message = self.message(record)
            yield (b"%d %b" % (len(message), message) if self._counted else message), 1

    def message(self, record: Record) -> bytes:
        """The message without a frame around it."""
        if isinstance(record, Message):
            return self._text(record)
        if isinstance(record, RequestRecord):
            return self._request(record)
        return self._flow(record)

    def _flow(self, record: FlowRecord) -> bytes:
        """A flow or a refusal. What such records repeat is not put together again for each of them."""
        source, port, carried = _shown(record.source), record.source_port, record.carried
        key = (
            *(record.happening, record.classes, _shown(record.destination), record.destination_port),
            *(record.protocol, record.tier, record.verdict, record.reason, record.revision, record.cluster),
            *(record.mapping, record.source_service, record.destination_service, record.name),
            *(
                record.interface,
                _shown(carried.backend) if carried else "",
                carried.backend_port if carried else 0,
            ),
        )
        phrase = self._phrases.get(key)
        if phrase is None:
            if len(self._phrases) >= _PHRASES:
                self._phrases.clear()
            phrase = self._phrases[key] = self._phrase(record)
        priority, kind, middle, what, end = phrase
        number = f' id="{record.id}"' if record.id else ""
        if carried is None:
            counts = f' count="{record.count}"] '
        else:
            counts = (
                f' packets_sent="{carried.packets_sent}" bytes_sent="{carried.bytes_sent}"'
                f' packets_received="{carried.packets_received}" bytes_received="{carried.bytes_received}"'
                f' duration="{max(record.time - carried.started, 0):.3f}"] '
            )
        start = (
            f"{priority}{self._moment(record.time)}{kind}{number}"
            f' source="{source}" source_port="{port}"{middle}{counts}'
        )
        text = f"{what}[{source}]:{port}{end}" if ":" in source else f"{what}{source}:{port}{end}"
        if len(start) + len(text) <= LONGEST and start.isascii() and text.isascii():
            return f"{start}{text}".encode()
        return _cut(start.encode(), text)

    def _phrase(self, record: FlowRecord) -> tuple[str, str, str, str, str]:
        """What stands in front of the time, behind it, behind the source, and around it in the sentence."""
        shown = LogClass.AUTH if LogClass.AUTH in record.classes & self._classes else LogClass.NETFLOW
        facility = AUTHPRIV if shown is LogClass.AUTH else LOCAL0
        return (
            f"<{facility * 8 + record.severity}>1 ",
            f' {self._middle} {record.happening.value} [{self._element} class="{shown.value}"',
            "".join(_parameters(record)),
            f"{record.happening.value} {record.protocol} ",
            _end(record),
        )

    def _text(self, record: Message) -> bytes:
        head = self._head(LOCAL0, record.severity, record.time, record.kind)
        fields = "".join(f' {name}="{value.translate(_ESCAPES)}"' for name, value in record.fields)
        data = f'[{self._fault} class="debug"{fields}]'
        return _cut(f"{head} {data} ".encode(), record.text.translate(_CONTROLS))

    def _request(self, record: RequestRecord) -> bytes:
        head = self._head(LOCAL0, record.severity, record.time, "request")
        fields = "".join(
            f' {name}="{value.translate(_ESCAPES)}"' for name, value in _of_request(record) if value
        )
        text = f"{record.method} {record.host}{record.path[:LONGEST_PATH]} {record.status}"
        data = f'[{self._access} class="access"{fields}]'
        return _cut(f"{head} {data} ".encode(), text.translate(_CONTROLS))

    def _head(self, facility: int, severity: int, when: float, kind: str) -> str:
        return f"<{facility * 8 + severity}>1 {self._moment(when)} {self._middle} {kind}"

    def _moment(self, when: float) -> str:
        second = int(when)
        if second != self._second:
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        milli = min(round((when - second) * 1000), 999)
        return f"{self._stamp}.{milli:03}Z"


def _end(record: FlowRecord) -> str:
    """A record for people, behind its source."""
    text = f" to {_place(record.destination, record.destination_port)}"
    if record.name:
        text += f" ({record.name.translate(_CONTROLS)})"
    text += f": {record.reason.name}"
    return f"{text} by {record.mapping}" if record.mapping else text


def _parameters(record: FlowRecord) -> Iterator[str]:
    """What there is to say behind the source, but for counts; what is empty is left out."""
    yield (
        f' destination="{_shown(record.destination)}"'
        f' destination_port="{record.destination_port}" protocol="{record.protocol}"'
        f' tier="{record.tier.label}" verdict="{record.verdict.value}" reason="{record.reason.name}"'
        f' revision="{record.revision}" cluster="{record.cluster}"'
    )
    for name, value in (
        ("mapping", record.mapping),
        ("source_service", record.source_service),
        ("destination_service", record.destination_service),
        ("name", record.name),
        ("interface", record.interface),
    ):
        if value:
            yield f' {name}="{_escaped(value)}"'
    if record.carried:
        backend = record.carried.backend
        yield f' backend="{_shown(backend)}" backend_port="{record.carried.backend_port}"'


def _of_request(record: RequestRecord) -> Iterator[tuple[str, str]]:
    """What there is to say, in a fixed order; what is empty is left out."""
    yield "request_id", record.request_id
    yield "id", str(record.id or "")
    yield "source", str(record.source)
    yield "source_port", str(record.source_port)
    yield "method", record.method
    yield "scheme", "https" if record.tls else "http"
    yield "host", record.host
    yield "path", record.path[:LONGEST_PATH]
    yield "version", record.version
    yield "tls", record.tls
    yield "status", str(record.status)
    yield "verdict", record.verdict.value
    yield "reason", record.reason.name
    yield "revision", str(record.revision)
    yield "cluster", record.cluster
    yield "mapping", record.mapping
    yield "route", record.route
    yield "source_service", record.source_service
    yield "destination_service", record.service
    yield "backend", record.backend
    yield "bytes_sent", str(record.bytes_sent)
    yield "bytes_received", str(record.bytes_received)
    yield "attempts", str(record.attempts)
    yield "mirror", record.mirror
    yield "early_data", str(record.early_data).lower()
    for name, seconds in (
        ("connected_ms", record.connected),
        ("waited_ms", record.waited),
        ("took_ms", record.took),
    ):
        yield name, f"{seconds * 1000:.3f}"
    yield "traceparent", record.traceparent


@lru_cache(_REMEMBERED)
def _shown(address: IPAddress) -> str:
    return str(address)


@lru_cache(_REMEMBERED)
def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)


def _place(address: IPAddress, port: int) -> str:
    text = _shown(address)
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"


def _cut(start: bytes, text: str) -> bytes:
    """The message, no longer than `LONGEST` as long as `start` is not.

    What is not ASCII is announced by a BOM; plain ASCII has none, which many receivers would store
    (MSG-ANY, RFC 5424 section 6.4).
    """
    body = (text if text.isascii() else _BOM + text).encode(errors="replace")
    room = max(LONGEST - len(start), 0)
    if len(body) > room:
        body = body[:room].decode(errors="ignore").encode()
    return start + body


def _printable(text: str, most: int) -> str:
    """PRINTUSASCII, or the NILVALUE."""
    return "".join(letter for letter in text if "!" <= letter <= "~")[:most] or "-"
