"""Records as IPFIX messages (RFC 7011).

A conversation is two records, one for each direction, that share a flowId. One record with the reverse fields
of RFC 5103 would be half as long, but a collector that does not know them loses one direction without a word.
What was denied has templates of its own, without octets, since nobody counted any.
"""

import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from marchproxy.model.reason import Reason
from marchproxy.telemetry.logs.records import FlowRecord, Record

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
_DENIED, _DELETED = 3, 2
"""firewallEvent (element 233 of IANA's registry)."""
_FORWARDED, _ACL_DENIED = 0x40, 0x81
"""forwardingStatus (element 89, RFC 7270 section 4.12)."""
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
_EVENT, _STATUS, _BACKEND_PORT = (233, 1), (89, 1), (228, 2)
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


def _templates(first: int, *elements: tuple[int, int], backend: bool = False) -> dict[int, _Template]:
    """One for each IP version, numbered from `first`, of addresses, ports, protocol and these elements."""
    return {
        version: _Template(
            first + family,
            (
                _SOURCE[family],
                _DESTINATION[family],
                *_PORTS_PROTOCOL,
                *elements,
                *((_BACKEND[family], _BACKEND_PORT) if backend else ()),
            ),
        )
        for family, version in enumerate((4, 6))
    }


_COUNTED = (_FLOW_ID, _OCTETS, _PACKETS, _START, _END, _END_REASON, _DIRECTION, _EVENT, _STATUS)
_SENT = _templates(256, *_COUNTED, backend=True)
_RECEIVED = _templates(258, *_COUNTED)
"""What comes back was rewritten to come from where the client had sent to: there it has no other address."""
_DENIALS = _templates(260, _PACKETS, _START, _END, _EVENT, _STATUS)
_ALL = (*_SENT.values(), *_RECEIVED.values(), *_DENIALS.values())
_COUNTS = "HHBQQQQQBBBB"
"""Of both directions: ports and protocol, and `_COUNTED`."""


def _layouts(behind: str, after: str = "") -> dict[int, struct.Struct]:
    """For each IP version two addresses, and these; `@` is another address."""
    sizes = {4: "4s", 6: "16s"}
    return {
        version: struct.Struct(f"!{size}{size}{behind}{after.replace('@', size)}")
        for version, size in sizes.items()
    }


_SENT_LAYOUTS, _RECEIVED_LAYOUTS = _layouts(_COUNTS, "@H"), _layouts(_COUNTS)
_DENIAL_LAYOUTS = _layouts("HHBQQQBB")


class IpfixEncoder:
    """Makes messages of one exporting process; see RFC 7011 section 3.1 for the sequence number."""

    def __init__(self, domain: int, enterprise: int, *, datagrams: bool) -> None:
        """`domain` tells sinks of one host apart (observation domain, 1 to 4294967295)."""
        self._domain = domain
        self._datagrams = datagrams
        self._templates = _set(
            _TEMPLATES,
            b"".join(each.record(enterprise) for each in _ALL),
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
            length = 0
            for _, data in made:
                length += len(data) + _SET.size
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
        version = record.source.version
        if record.destination.version != version:
            return []
        there, back = record.source.packed, record.destination.packed
        here, asked, protocol = record.source_port, record.destination_port, record.protocol_number
        at, carried = _milliseconds(record.time), record.carried
        own = _own(
            record.reason, record.mapping, record.source_service, record.destination_service, record.name
        )
        if carried is None:
            data = _DENIAL_LAYOUTS[version].pack(
                *(there, back, here, asked, protocol, record.count, at, at, _DENIED, _ACL_DENIED)
            )
            return [(_DENIALS[version].number, data + own)]

        began, why = _milliseconds(carried.started), _END_REASONS.get(record.reason, _OTHER_END)
        backend = carried.backend.packed if carried.backend.version == version else bytes(len(there))
        sent = _SENT_LAYOUTS[version].pack(
            *(there, back, here, asked, protocol, record.id, carried.bytes_sent, carried.packets_sent),
            *(began, at, why, 0, _DELETED, _FORWARDED, backend, carried.backend_port),
        )
        received = _RECEIVED_LAYOUTS[version].pack(
            *(back, there, asked, here, protocol, record.id, carried.bytes_received),
            *(carried.packets_received, began, at, why, 1, _DELETED, _FORWARDED),
        )
        return [(_SENT[version].number, sent + own), (_RECEIVED[version].number, received + own)]


@lru_cache(1024)
def _own(reason: Reason, *texts: str) -> bytes:
    """What records have under the enterprise number; most are of few services."""
    return reason.to_bytes(2) + b"".join(map(_text, texts))


def _text(text: str) -> bytes:
    """RFC 7011 section 7: one octet of length below 255; no name of ours is longer."""
    raw = text.encode(errors="replace")[:254]
    return bytes((len(raw),)) + raw


def _set(number: int, records: bytes) -> bytes:
    return _SET.pack(number, _SET.size + len(records)) + records


def _milliseconds(seconds: float) -> int:
    return max(int(seconds * 1000), 0)
