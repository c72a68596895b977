"""What a client is told: the records that answer its question, and none besides."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.rdtypes.svcbbase import IPv4HintParam, IPv6HintParam, SVCBBase

from marchproxy.dataplane.dns.query import Query
from marchproxy.dataplane.names.exchange import PAYLOAD
from marchproxy.model.address import IPAddress

LONGEST_TTL = 3600
"""Seconds for which a client may remember an address: for as long the policy has to."""
_PROOFS = frozenset({dns.rdatatype.RRSIG, dns.rdatatype.NSEC, dns.rdatatype.NSEC3})
_ADDRESSES = frozenset({dns.rdatatype.A, dns.rdatatype.AAAA})


@dataclass(slots=True)
class Answer:
    """An answer in the making."""

    rcode: dns.rcode.Rcode = dns.rcode.NOERROR
    records: list[dns.rrset.RRset] = field(default_factory=list)
    authority: list[dns.rrset.RRset] = field(default_factory=list)
    authentic: bool = False
    """The resolver has validated it (AD)."""
    note: dns.edns.EDECode | None = None
    """Why it is as it is, for clients that can say so (RFC 8914)."""
    aliases: tuple[str, ...] = ()
    """Names that the question's leads to, in lower case."""


def read_answer(wire: bytes, query: Query, *, age: int, ttl: int | None = None) -> Answer:
    """The part of a resolver's answer that answers `query`. `wire` has been read before.

    A record that nobody asked about is what poisons caches. `age`: seconds since it came; `ttl`: seconds for
    all its records, in place of their own.
    """
    message = dns.message.from_wire(wire, ignore_trailing=True)
    message.answer = [rrset for rrset in message.answer if rrset.rdclass == dns.rdataclass.IN]
    message.authority = [rrset for rrset in message.authority if rrset.rdclass == dns.rdataclass.IN]
    chain = _chain(message, query.question.name)
    wanted = {query.question.kind, dns.rdatatype.CNAME}
    records = [
        rrset
        for rrset in message.answer
        if (rrset.name in chain and (rrset.rdtype in wanted or _is_proof(rrset, query)))
        or (rrset.rdtype == dns.rdatatype.DNAME and query.question.name.is_subdomain(rrset.name))
    ]
    authority = [
        rrset for rrset in message.authority if rrset.rdtype == dns.rdatatype.SOA or _is_proof(rrset, query)
    ]
    for rrset in (*records, *authority):
        rrset.ttl = min(max(rrset.ttl - age, 0), LONGEST_TTL) if ttl is None else ttl
    return Answer(
        dns.rcode.Rcode(message.rcode()),
        records,
        authority,
        bool(message.flags & dns.flags.AD),
        aliases=tuple(name.to_text(omit_final_dot=True).lower() for name in chain[1:]),
    )


def addresses(records: Iterable[dns.rrset.RRset]) -> Iterator[tuple[IPAddress, int]]:
    """Every address that records tell a client, and for how many seconds."""
    for rrset in records:
        for record in rrset:
            for address in told(record):
                yield address, rrset.ttl


def told(record: dns.rdata.Rdata) -> list[IPAddress]:
    """The addresses in one record: its own, or the hints of SVCB and HTTPS (RFC 9460 section 7.3)."""
    if record.rdtype in _ADDRESSES:
        return [ip_address(record.to_text())]
    if isinstance(record, SVCBBase):
        hints = (each for each in record.params.values() if isinstance(each, IPv4HintParam | IPv6HintParam))
        return [ip_address(text) for hint in hints for text in hint.addresses]
    return []


def without(records: list[dns.rrset.RRset], refused: Iterable[IPAddress]) -> list[dns.rrset.RRset]:
    """The records that tell none of these addresses; signatures over what is cut go too."""
    unwanted = frozenset(refused)
    kept, cut = [], set()
    for rrset in records:
        good = [record for record in rrset if unwanted.isdisjoint(told(record))]
        if len(good) == len(rrset):
            kept.append(rrset)
            continue
        cut.add((rrset.name, rrset.rdtype))
        if good:
            kept.append(dns.rrset.from_rdata_list(rrset.name, rrset.ttl, good))
    return [rrset for rrset in kept if (rrset.name, rrset.covers) not in cut]


def render(query: Query, answer: Answer, limit: int) -> bytes:
    """The message, cut off and marked so (TC) where it is longer than `limit` bytes."""
    response = dns.message.make_response(query.message, recursion_available=True, our_payload=PAYLOAD)
    response.set_rcode(answer.rcode)
    response.answer = answer.records
    response.authority = answer.authority
    # RFC 6840 section 5.7: only who asked for it learns that it was validated.
    if answer.authentic and (query.question.dnssec or query.message.flags & dns.flags.AD):
        response.flags |= dns.flags.AD
    if query.question.unchecked:
        response.flags |= dns.flags.CD
    if answer.note is not None and response.edns >= 0:
        response.use_edns(
            0, response.ednsflags, PAYLOAD, options=[*response.options, dns.edns.EDEOption(answer.note)]
        )
    return response.to_wire(max_size=limit, prefer_truncation=True)


def _chain(message: dns.message.Message, name: dns.name.Name) -> list[dns.name.Name]:
    """The name and its aliases, in order."""
    aliases = {rrset.name: rrset[0] for rrset in message.answer if rrset.rdtype == dns.rdatatype.CNAME}
    chain = [name]
    while chain[-1] in aliases and len(chain) <= len(aliases):
        chain.append(aliases[chain[-1]].target)
    return chain


def _is_proof(rrset: dns.rrset.RRset, query: Query) -> bool:
    return query.question.dnssec and rrset.rdtype in _PROOFS
