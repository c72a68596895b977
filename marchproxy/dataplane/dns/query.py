"""What a client sent: a question that may be asked, an error to answer, or nothing worth an answer."""

from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from marchproxy.dataplane.names.exchange import PAYLOAD, Question

_HEADER = 12
_SMALLEST = 512
"""Bytes of a UDP answer that every client takes, RFC 1035 section 4.2.1."""
_META = range(128, 256)
"""Types that are no data: transfers, ANY, and others (RFC 6895 section 3.1)."""


@dataclass(frozen=True, slots=True)
class Query:
    """A question of a client."""

    message: dns.message.Message
    question: Question
    name: str
    """In lower case, without the trailing dot; the root is a dot."""
    payload: int
    """Bytes of a UDP answer that the client takes and every path carries."""


class Unanswered(Exception):
    """What was sent is no question for us; `wire` is what to say to that, None: nothing."""

    def __init__(self, wire: bytes | None) -> None:
        super().__init__()
        self.wire = wire


def read_query(wire: bytes) -> Query:
    """Read a client's message. Raises `Unanswered`.

    Answers to answers would let two servers talk for ever, and fragments of a header are nobody's question:
    both get silence.
    """
    if len(wire) < _HEADER or wire[2] & 0x80:
        raise Unanswered(None)
    if wire[2] >> 3 & 0x0F != dns.opcode.QUERY:
        raise Unanswered(bare_error(wire, dns.rcode.NOTIMP))
    try:
        message = dns.message.from_wire(wire)
    except (dns.exception.DNSException, ValueError):
        raise Unanswered(bare_error(wire, dns.rcode.FORMERR)) from None
    if len(message.question) != 1 or message.answer or message.authority:
        raise Unanswered(bare_error(wire, dns.rcode.FORMERR))
    rcode = _objection(message)
    if rcode != dns.rcode.NOERROR:
        raise Unanswered(_error(message, rcode))
    asked = message.question[0]
    payload = min(max(message.payload, _SMALLEST), PAYLOAD) if message.edns >= 0 else _SMALLEST
    return Query(
        message,
        Question(
            asked.name,
            asked.rdtype,
            dnssec=bool(message.ednsflags & dns.flags.DO),
            unchecked=bool(message.flags & dns.flags.CD),
        ),
        asked.name.to_text(omit_final_dot=True).lower(),
        payload,
    )


def bare_error(wire: bytes, rcode: int) -> bytes:
    """A header that says `rcode` to a message that could not be read further."""
    flags = 0x80 | wire[2] & 0x79
    return wire[:2] + bytes((flags, rcode)) + bytes(8)


def _objection(message: dns.message.Message) -> dns.rcode.Rcode:
    """Why a well-formed question is not answered; NOERROR: it is."""
    asked = message.question[0]
    if message.edns > 0:
        return dns.rcode.BADVERS
    # RFC 8482 leaves ANY to us; without RD only our cache would be asked, which tells what others asked.
    if asked.rdclass != dns.rdataclass.IN or asked.rdtype in _META or not message.flags & dns.flags.RD:
        return dns.rcode.REFUSED
    return dns.rcode.NOERROR


def _error(message: dns.message.Message, rcode: dns.rcode.Rcode) -> bytes:
    response = dns.message.make_response(message, recursion_available=True, our_payload=PAYLOAD)
    response.set_rcode(rcode)
    return response.to_wire()
