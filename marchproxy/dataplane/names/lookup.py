"""From a host name to its addresses: /etc/hosts, then DNS, A and AAAA side by side, through CNAMEs."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

from marchproxy.dataplane.names.asker import Asker
from marchproxy.dataplane.names.exchange import ExchangeFailed, Question, Reply
from marchproxy.dataplane.names.found import Failure, Found, LookupFailed
from marchproxy.dataplane.names.system import HOSTS, Hosts, Upstreams, Watched, read_hosts
from marchproxy.model.address import IPAddress

HOSTS_TTL = 30.0
"""Seconds after which a name of the hosts file is looked up again."""
NEGATIVE_TTL = 60.0
"""Seconds until a name without addresses is asked for again, at most: somebody waits for it."""
MOST_ADDRESSES = 256
"""Of one answer; the rest is left out."""
_LONGEST_CHAIN = 8
"""Questions that one name may take because its aliases lead elsewhere."""

_KINDS = {4: dns.rdatatype.A, 6: dns.rdatatype.AAAA}


@dataclass(frozen=True, slots=True)
class _Chain:
    """Where a reply leads."""

    last: dns.name.Name
    """The name that the last alias points to."""
    addresses: tuple[IPAddress, ...]
    ttl: float
    exists: bool


class Lookup:
    """Looks names up, as `asker` can."""

    def __init__(
        self, asker: Asker, upstreams: Callable[[], Upstreams], hosts: Watched[Hosts] | None = None
    ) -> None:
        self._asker = asker
        self._upstreams = upstreams
        self._hosts = hosts or Watched(HOSTS, read_hosts)

    async def find(self, name: str) -> Found:
        """The addresses of a host name in lower case. Raises `LookupFailed`.

        The search list is for names of one label. What has a dot is a whole name: a policy must not come to
        mean another host because a search list has changed.
        """
        if local := self._hosts.get().get(name):
            return Found(local, HOSTS_TTL, is_local=True)
        for domain in () if "." in name else self._upstreams().search:
            try:
                return await self._resolve(f"{name}.{domain}")
            except LookupFailed as error:
                if error.failure not in (Failure.NXDOMAIN, Failure.NODATA):
                    raise
        return await self._resolve(name)

    async def _resolve(self, name: str) -> Found:
        try:
            absolute = dns.name.from_text(name)
        except dns.exception.DNSException:
            raise LookupFailed(Failure.NXDOMAIN) from None
        outcomes = await asyncio.gather(*(self._family(absolute, kind) for kind in _KINDS.values()))
        found = [outcome for outcome in outcomes if isinstance(outcome, Found)]
        failures = [outcome for outcome in outcomes if isinstance(outcome, LookupFailed)]
        if not found:
            # That a name has none of one family says less than that the other cannot be found out.
            raise max(
                failures, key=lambda each: (not each.failure.is_answer, each.failure is Failure.NXDOMAIN)
            )
        silent = frozenset(
            version
            for version, outcome in zip(_KINDS, outcomes, strict=True)
            if isinstance(outcome, LookupFailed) and not outcome.failure.is_answer
        )
        addresses = tuple(address for each in found for address in each.addresses)
        return Found(addresses[:MOST_ADDRESSES], min(each.ttl for each in found), silent)

    async def _family(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> Found | LookupFailed:
        ttl = float("inf")
        for _ in range(_LONGEST_CHAIN):
            try:
                chain = read_chain(await self._asker.ask(Question(name, kind)), kind)
            except ExchangeFailed as error:
                return LookupFailed(error.failure)
            ttl = min(ttl, chain.ttl)
            if chain.addresses:
                return Found(chain.addresses, ttl)
            if not chain.exists or chain.last == name:
                failure = Failure.NODATA if chain.exists else Failure.NXDOMAIN
                return LookupFailed(failure, min(ttl, NEGATIVE_TTL))
            # A server that does not follow aliases by itself.
            name = chain.last
        return LookupFailed(Failure.MALFORMED)


def read_chain(reply: Reply, kind: dns.rdatatype.RdataType) -> _Chain:
    """Follow the aliases in a reply (RFC 1034 section 3.6.2). Raises `ExchangeFailed`."""
    message = reply.message
    if not isinstance(message, dns.message.QueryMessage):
        raise ExchangeFailed(Failure.MALFORMED)
    try:
        result = message.resolve_chaining()
    except dns.exception.DNSException:
        raise ExchangeFailed(Failure.MALFORMED) from None
    records = result.answer if result.answer is not None and result.answer.rdtype == kind else ()
    return _Chain(
        last=result.canonical_name,
        addresses=tuple(ip_address(record.address) for record in records),
        ttl=float(result.minimum_ttl),
        exists=message.rcode() != dns.rcode.NXDOMAIN,
    )
