"""One question to one DNS server, over UDP and, where the answer is cut off, TCP (RFC 1035, RFC 7766).

Every question goes out from a socket of its own with a port that the kernel picks at random, and with a
random id: both have to be guessed by who wants to answer in the server's place (RFC 5452). Mixed case in the
name (0x20) is left out: some servers do not give it back, and telling them from liars costs more than the few
bits are worth.
"""

import asyncio
import secrets
import socket
from contextlib import closing
from dataclasses import dataclass

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from marchproxy.dataplane.names.found import Failure
from marchproxy.model.endpoint import Endpoint

PAYLOAD = 1232
"""Bytes of a UDP answer that we take: what passes every path unfragmented (DNS Flag Day 2020)."""
_STRANGERS = 8
"""Datagrams that do not fit, after which somebody is guessing and TCP is asked instead."""
_NO_EDNS = frozenset({dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS})
_HEADER = 12


class ExchangeFailed(Exception):
    """No usable answer; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.value)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. The class is always IN."""

    name: dns.name.Name
    """Absolute."""
    kind: dns.rdatatype.RdataType
    dnssec: bool = False
    """The DO bit: signatures are wanted."""
    unchecked: bool = False
    """The CD bit: the resolver must not validate."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that fits its question, as it came and as it reads."""

    wire: bytes
    message: dns.message.Message


async def exchange(server: Endpoint, question: Question, seconds: float) -> Reply:
    """Ask one server. Raises `ExchangeFailed`. Any rcode is an answer here."""
    try:
        async with asyncio.timeout(seconds):
            reply = await _exchange(server, _query(question, edns=True))
            if reply.message.rcode() in _NO_EDNS and reply.message.edns < 0:
                # RFC 6891 section 7: a server that does not know EDNS.
                reply = await _exchange(server, _query(question, edns=False))
            return reply
    except TimeoutError:
        raise ExchangeFailed(Failure.TIMEOUT) from None
    except (OSError, EOFError):
        raise ExchangeFailed(Failure.UNREACHABLE) from None


async def _exchange(server: Endpoint, query: dns.message.Message) -> Reply:
    wire = query.to_wire()
    reply = await _over_udp(server, query, wire)
    return reply if reply is not None else await _over_tcp(server, query, wire)


async def _over_udp(server: Endpoint, query: dns.message.Message, wire: bytes) -> Reply | None:
    """None: TCP has to be asked. Connected, the socket gets datagrams of this very server only."""
    loop = asyncio.get_running_loop()
    with closing(socket.socket(_family(server), socket.SOCK_DGRAM)) as sock:
        sock.setblocking(False)
        sock.connect((str(server.address), server.port))
        sock.send(wire)
        for _ in range(_STRANGERS):
            data = await loop.sock_recv(sock, 65535)
            if not _may_answer(query, data):
                continue
            if data[2] & 0x02:
                return None
            message = _read(data)
            if query.is_response(message):
                return Reply(data, message)
    return None


async def _over_tcp(server: Endpoint, query: dns.message.Message, wire: bytes) -> Reply:
    reader, writer = await asyncio.open_connection(str(server.address), server.port)
    try:
        writer.write(len(wire).to_bytes(2) + wire)
        data = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
    finally:
        writer.transport.abort()
    if not _may_answer(query, data):
        raise ExchangeFailed(Failure.MALFORMED)
    message = _read(data)
    if not query.is_response(message) or message.flags & dns.flags.TC:
        raise ExchangeFailed(Failure.MALFORMED)
    return Reply(data, message)


def _query(question: Question, *, edns: bool) -> dns.message.Message:
    query = dns.message.make_query(
        question.name, question.kind, dns.rdataclass.IN, id=secrets.randbelow(1 << 16)
    )
    if question.unchecked:
        query.flags |= dns.flags.CD
    if edns:
        query.use_edns(0, dns.flags.DO if question.dnssec else 0, PAYLOAD)
    return query


def _may_answer(query: dns.message.Message, data: bytes) -> bool:
    """Whether the header is that of an answer to `query`."""
    return len(data) >= _HEADER and int.from_bytes(data[:2]) == query.id and bool(data[2] & 0x80)


def _read(data: bytes) -> dns.message.Message:
    try:
        return dns.message.from_wire(data, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError):
        raise ExchangeFailed(Failure.MALFORMED) from None


def _family(server: Endpoint) -> socket.AddressFamily:
    return socket.AF_INET if server.address is None or server.address.version == 4 else socket.AF_INET6
