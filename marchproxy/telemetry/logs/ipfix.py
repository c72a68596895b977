"""Records as IPFIX messages (RFC 7011).

A conversation is two records, one for each direction, that share a flowId. One record with the reverse fields
of RFC 5103 would be half as long, but a collector that does not know them loses one direction without a word.
What was denied has templates of its own, without octets, since nobody counted any.
"""

import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from marchproxy.model.reason import Reason
from marchproxy.telemetry.logs.records import FlowRecord, Happening, Record

VERSION = 10
LARGEST = 1400
"""Octets of a message: with UDP it must not be fragmented (RFC 7011 section 10.3.3)."""
RESEND = 60.0
"""Seconds after which templates are sent again (RFC 7011 section 8.1): a collector that starts late can read
nothing before."""
RESEND_MESSAGES = 20
"""With UDP also after so many messages."""
_HEADER = struct.Struct("!HHIII")
_SET = struct.Struct("!HH")
_TEMPLATES = 2
_VARIABLE = 0xFFFF
_OURS = 0x8000
_DENIED, _CREATED, _DELETED = 3, 1, 2
"""firewallEvent (element 233 of IANA's registry)."""
_END_REASONS = {
    Reason.IDLE: 1,
    Reason.CLOSED: 3,
    Reason.RESET: 3,
    Reason.POLICY_CHANGED: 4,
    Reason.CUT: 4,
    Reason.LIFETIME: 4,
    Reason.AUTH_REVOKED: 4,
    Reason.AUTH_EXPIRED: 4,
    Reason.REROUTED: 4,
}
"""flowEndReason (element 136): idle timeout, end of flow detected, forced end."""
_OTHER_END = 3

# Elements of IANA's registry, as (number, octets).
_SOURCE, _DESTINATION, _BACKEND = ((8, 4), (27, 16)), ((12, 4), (28, 16)), ((226, 4), (282, 16))
_PORTS_PROTOCOL = ((7, 2), (11, 2), (4, 1))
_FLOW_ID, _OCTETS, _PACKETS = (148, 8), (1, 8), (2, 8)
_START, _END, _END_REASON, _DIRECTION = (152, 8), (153, 8), (136, 1), (61, 1)
_EVENT, _BACKEND_PORT = (233, 1), (228, 2)
_OWN = ((1, 2), (2, _VARIABLE), (3, _VARIABLE), (4, _VARIABLE), (5, _VARIABLE))
"""Under the enterprise number: reason, mapping, source service, destination service, name asked for."""


@dataclass(frozen=True, slots=True)
class _Template:
    number: int
    elements: tuple[tuple[int, int], ...]

    def record(self, enterprise: int) -> bytes:
        """RFC 7011 section 3.4.1."""
        parts = [struct.pack("!HH", self.number, len(self.elements) + len(_OWN))]
        parts += [struct.pack("!HH", *element) for element in self.elements]
        parts += [struct.pack("!HHI", number | _OURS, size, enterprise) for number, size in _OWN]
        return b"".join(parts)


def _flow_template(number: int, family: int) -> _Template:
    place = (_SOURCE[family], _DESTINATION[family], *_PORTS_PROTOCOL)
    counts = (_FLOW_ID, _OCTETS, _PACKETS, _START, _END, _END_REASON, _DIRECTION, _EVENT)
    return _Template(number, (*place, *counts, _BACKEND[family], _BACKEND_PORT))


def _denial_template(number: int, family: int) -> _Template:
    place = (_SOURCE[family], _DESTINATION[family], *_PORTS_PROTOCOL)
    return _Template(number, (*place, _PACKETS, _START, _END, _EVENT))


_FLOWS = {4: _flow_template(256, 0), 6: _flow_template(257, 1)}
_DENIALS = {4: _denial_template(258, 0), 6: _denial_template(259, 1)}
_ENDPOINTS = struct.Struct("!HHB")
_COUNTS = struct.Struct("!QQQQQBBB")
_REFUSED = struct.Struct("!QQQB")


class IpfixEncoder:
    """Makes messages of one exporting process; see RFC 7011 section 3.1 for the sequence number."""

    def __init__(self, domain: int, enterprise: int, *, datagrams: bool) -> None:
        """`domain` tells sinks of one host apart (observation domain, 1 to 4294967295)."""
        self._domain = domain
        self._datagrams = datagrams
        self._templates = _set(
            _TEMPLATES,
            b"".join(each.record(enterprise) for each in (*_FLOWS.values(), *_DENIALS.values())),
        )
        self._sequence = 0
        self.begin()

    def begin(self) -> None:
        """A new session: the collector knows nothing (RFC 7011 section 8)."""
        self._told = float("-inf")
        self._messages = 0
        # A session on UDP has no beginning that a collector would see: there the number goes on.
        if not self._datagrams:
            self._sequence = 0

    def encode(self, records: Sequence[Record]) -> Iterator[tuple[bytes, int]]:
        """Each message, and how many of `records` it tells about."""
        pending: list[tuple[int, bytes]] = []
        size = told = 0
        for record in records:
            made = self._data(record)
            length = sum(len(data) + _SET.size for _, data in made)
            if pending and size + length > LARGEST - _HEADER.size:
                yield from self._messages_of(pending, told)
                pending, size, told = [], 0, 0
            pending += made
            size += length
            told += 1
        if pending:
            yield from self._messages_of(pending, told)

    def _messages_of(self, pending: Sequence[tuple[int, bytes]], told: int) -> Iterator[tuple[bytes, int]]:
        """Data records as a message, behind one with the templates when it is time for these."""
        if self._is_time():
            yield self._message(self._templates, 0), 0
        sets, at = [], 0
        while at < len(pending):
            number, data = pending[at][0], []
            while at < len(pending) and pending[at][0] == number:
                data.append(pending[at][1])
                at += 1
            sets.append(_set(number, b"".join(data)))
        yield self._message(b"".join(sets), len(pending)), told
        self._messages += 1

    def _message(self, body: bytes, count: int) -> bytes:
        """`count` data records; their number before this message is its sequence number."""
        header = _HEADER.pack(
            VERSION, _HEADER.size + len(body), int(time.time()), self._sequence & 0xFFFFFFFF, self._domain
        )
        self._sequence += count
        return header + body

    def _is_time(self) -> bool:
        now = time.monotonic()
        again = self._datagrams and (self._messages % RESEND_MESSAGES == 0 or now - self._told >= RESEND)
        if self._told == float("-inf") or again:
            self._told = now
            return True
        return False

    def _data(self, record: Record) -> list[tuple[int, bytes]]:
        """The data records, each with the number of its template."""
        if not isinstance(record, FlowRecord):
            return []
        family = record.source.version
        if record.destination.version != family:
            return []
        forward = record.source.packed + record.destination.packed
        ports = record.source_port, record.destination_port
        protocol = record.protocol_number
        own = _own(record)
        at = _milliseconds(record.time)
        carried = record.carried
        if carried is None:
            fixed = _ENDPOINTS.pack(*ports, protocol) + _REFUSED.pack(record.count, at, at, _DENIED)
            return [(_DENIALS[family].number, forward + fixed + own)]
        began = _milliseconds(carried.started)
        why = _END_REASONS.get(record.reason, _OTHER_END)
        backend = (
            carried.backend.packed if carried.backend.version == family else bytes(4 if family == 4 else 16)
        ) + carried.backend_port.to_bytes(2)
        event = _DELETED if record.happening is Happening.END else _CREATED
        made = []
        for direction, (addresses, (source, destination), octets, packets) in enumerate(
            (
                (forward, ports, carried.bytes_sent, carried.packets_sent),
                (
                    record.destination.packed + record.source.packed,
                    ports[::-1],
                    carried.bytes_received,
                    carried.packets_received,
                ),
            )
        ):
            fixed = _ENDPOINTS.pack(source, destination, protocol) + _COUNTS.pack(
                record.id, octets, packets, began, at, why, direction, event
            )
            made.append((_FLOWS[family].number, addresses + fixed + backend + own))
        return made


def _own(record: FlowRecord) -> bytes:
    texts = (record.mapping, record.source_service, record.destination_service, record.name)
    return record.reason.to_bytes(2) + b"".join(map(_text, texts))


def _text(text: str) -> bytes:
    """RFC 7011 section 7: one octet of length below 255; no name of ours is longer."""
    raw = text.encode(errors="replace")[:254]
    return bytes((len(raw),)) + raw


def _set(number: int, records: bytes) -> bytes:
    return _SET.pack(number, _SET.size + len(records)) + records


def _milliseconds(seconds: float) -> int:
    return max(int(seconds * 1000), 0)
