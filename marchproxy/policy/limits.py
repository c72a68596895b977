"""Rate limits: from what an operator wrote to what a tier counts, and for whom.

Every limit that holds for an address must be kept. A limit for services, or for all, together has one bucket
that many addresses share, and each of them holds. Of limits per source address one of each kind of rate holds
for an address: that which names the longest prefix around it, so that a service can be given more than
everybody else.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import NamedTuple

from marchproxy.model.address import IPAddress, Prefix
from marchproxy.model.appliance import Limit, Per
from marchproxy.model.names import ALL, COLLECTION_PREFIX, cluster_of
from marchproxy.model.snapshot import Snapshot
from marchproxy.policy.directory import Directory, Entry
from marchproxy.policy.plan import Finding, RateLimit, Severity

ROOTS: tuple[Prefix, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))
"""Every address of a family."""
SHORTEST_BURST = 1000
"""A burst of less than a second divided by this gives less than the rate: traffic comes in bunches."""


class Allowance(NamedTuple):
    """One rate of a limit."""

    per_second: int
    burst: int
    """How many may come at once; at least 1."""


def allowances(limit: Limit) -> tuple[Allowance | None, Allowance | None, Allowance | None]:
    """Of packets, bytes and flows; None: no such rate."""
    rates = (limit.packets_per_second, limit.bytes_per_second, limit.flows_per_second)
    counted = next(filter(None, rates), 1)

    def allowance(rate: int | None) -> Allowance | None:
        if rate is None:
            return None
        burst = rate // 10 if limit.burst is None else limit.burst * rate // counted
        return Allowance(rate, max(burst, 1))

    packets, octets, flows = map(allowance, rates)
    return packets, octets, flows


class Bucket(NamedTuple):
    """What many addresses share."""

    limit: str
    service: str
    """Qualified name; empty for a limit per total."""


class Held(NamedTuple):
    """The limits that hold for an address."""

    own: tuple[str, str, str] = ("", "", "")
    """Names of the limits per source that say how many packets, bytes and flows; empty: none does."""
    shared: tuple[Bucket, ...] = ()
    """Sorted."""


NOTHING = Held()


def classify(limits: Sequence[RateLimit]) -> dict[Prefix, Held]:
    """What holds for an address, by the longest prefix here around it; NOTHING where there is none."""
    marks: dict[Prefix, list[_Mark]] = {}
    for mark, prefixes in _marks(limits):
        for prefix in prefixes:
            marks.setdefault(prefix, []).append(mark)
    known: dict[_Marks, Held] = {}
    found: dict[Prefix, Held] = {}
    around: list[tuple[Prefix, _Marks]] = []
    for prefix in sorted(marks, key=_outside_in):
        while around and not _contains(around[-1][0], prefix):
            around.pop()
        outer = around[-1][1] if around else ()
        inner = (*outer, tuple(marks[prefix]))
        around.append((prefix, inner))
        if inner not in known:
            known[inner] = _held(inner)
        found[prefix] = known[inner]
    return found


class HeldIndex:
    """`classify`, to be asked for single addresses: one step for each prefix length in use."""

    def __init__(self, limits: Sequence[RateLimit]) -> None:
        lengths: dict[int, dict[int, dict[int, Held]]] = {4: {}, 6: {}}
        for prefix, held in classify(limits).items():
            of_length = lengths[prefix.version].setdefault(prefix.prefixlen, {})
            of_length[int(prefix.network_address) >> (prefix.max_prefixlen - prefix.prefixlen)] = held
        self._lengths = {version: sorted(found.items(), reverse=True) for version, found in lengths.items()}

    def find(self, address: IPAddress) -> Held:
        """The limits that hold for an address."""
        number, width = int(address), address.max_prefixlen
        for length, prefixes in self._lengths[address.version]:
            held = prefixes.get(number >> (width - length))
            if held is not None:
                return held
        return NOTHING


class _Mark(NamedTuple):
    """What a prefix says about one limit: for whom, or for whom not."""

    limit: str
    per: Per
    rates: tuple[bool, ...]
    """Whether it has one of packets, bytes and flows."""
    service: str
    exempt: bool = False


type _Marks = tuple[tuple[_Mark, ...], ...]
"""Of all prefixes around an address, from the outside in."""


def _marks(limits: Sequence[RateLimit]) -> Iterator[tuple[_Mark, Iterable[Prefix]]]:
    for rate in limits:
        head = rate.limit.name, rate.limit.per, tuple(each is not None for each in allowances(rate.limit))
        yield _Mark(*head, "", exempt=True), rate.limit.exempt
        if not rate.limit.services:
            yield _Mark(*head, ""), ROOTS
        for service, prefixes in rate.sources:
            yield _Mark(*head, service), prefixes


def _held(marks: _Marks) -> Held:
    """Of limits per source for the same prefix, one that names a service comes first, then by name."""
    spared = {mark.limit for level in marks for mark in level if mark.exempt}
    own = ["", "", ""]
    shared: set[Bucket] = set()
    for level in marks:
        holding = [mark for mark in level if mark.limit not in spared]
        for rate in range(len(own)):
            sources = [mark for mark in holding if mark.per is Per.SOURCE and mark.rates[rate]]
            if sources:
                own[rate] = min(sources, key=lambda mark: (not mark.service, mark.limit)).limit
        shared.update(Bucket(mark.limit, mark.service) for mark in holding if mark.per is Per.SERVICE)
        shared.update(Bucket(mark.limit, "") for mark in holding if mark.per is Per.TOTAL)
    return Held((own[0], own[1], own[2]), tuple(sorted(shared)))


def _outside_in(prefix: Prefix) -> tuple[int, int, int]:
    return (prefix.version, int(prefix.network_address), prefix.prefixlen)


def _contains(outer: Prefix, inner: Prefix) -> bool:
    if outer.version != inner.version or outer.prefixlen > inner.prefixlen:
        return False
    shift = outer.max_prefixlen - outer.prefixlen
    return int(outer.network_address) >> shift == int(inner.network_address) >> shift


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a plan, the host names that they wait for, and what is to be said about them."""

    rates: tuple[RateLimit, ...] = ()
    hosts: frozenset[str] = frozenset()
    findings: tuple[Finding, ...] = ()


def compile_limits(
    limits: Sequence[Limit], directories: Mapping[str, Directory], before: Sequence[RateLimit]
) -> Limits:
    """Find the services of `limits`. What is equal to one of `before` is that very object."""
    old = {rate.limit.name: rate for rate in before}
    rates: list[RateLimit] = []
    findings: list[Finding] = []
    hosts: set[str] = set()
    for limit in limits:
        entries, unknown = _entries(limit, directories)
        rate = RateLimit(limit, tuple((entry.name, entry.prefixes) for entry in entries))
        known = old.get(limit.name)
        rates.append(known if known == rate else rate)
        hosts.update(host for entry in entries for host in entry.hosts)
        findings += [_unknown(limit, service) for service in unknown]
        findings += _burst_findings(limit)
    findings += _rival_findings(limits)
    same = len(rates) == len(before) and all(map(lambda new, held: new is held, rates, before))
    return Limits(tuple(before) if same else tuple(rates), frozenset(hosts), tuple(findings))


def _entries(limit: Limit, directories: Mapping[str, Directory]) -> tuple[list[Entry], list[str]]:
    """Its services, and the names that are none."""
    found, unknown = [], []
    for service in limit.services:
        directory = directories.get(cluster_of(service))
        entry = directory.entries.get(service.rpartition("/")[2]) if directory else None
        if entry:
            found.append(entry)
        else:
            unknown.append(service)
    return found, unknown


def _unknown(limit: Limit, service: str) -> Finding:
    message = f"names service {service}, which does not exist"
    return Finding(Severity.ERROR, f"limit {limit.name}", message, "add the service")


def _burst_findings(limit: Limit) -> Iterator[Finding]:
    allowed = next(filter(None, allowances(limit)), None)
    if limit.burst is not None and allowed and limit.burst * SHORTEST_BURST < allowed.per_second:
        message = f"lets through {limit.burst} at once, less than come in a millisecond at that rate"
        hint = f"give it a burst of at least {allowed.per_second // SHORTEST_BURST}, or it will pass less"
        yield Finding(Severity.WARNING, f"limit {limit.name}", message, hint)


def _rival_findings(limits: Sequence[Limit]) -> Iterator[Finding]:
    """Limits per source that leave each other nothing: the same rate, for the same services."""
    first: dict[tuple[str, int], str] = {}
    for limit in sorted(limits, key=lambda each: each.name):
        if limit.per is not Per.SOURCE:
            continue
        for number, rate in enumerate(("packets", "bytes", "flows")):
            services = (limit.services or ("",)) if allowances(limit)[number] else ()
            holding = {first.setdefault((service, number), limit.name) for service in services} - {limit.name}
            for other in sorted(holding):
                message = f"its rate of {rate} does not hold where limit {other} is for the same clients"
                yield Finding(Severity.WARNING, f"limit {limit.name}", message, "remove one of them")


def idle_limits(snapshot: Snapshot) -> Iterator[Finding]:
    """Limits for services that no mapping names as a source: their traffic is denied anyhow."""
    asking: dict[str, set[str]] = {}
    for cluster in snapshot.clusters:
        named = {source for mapping in cluster.mappings for source in mapping.sources}
        for service in cluster.services:
            if {ALL, service.name, f"{COLLECTION_PREFIX}{service.collection}"} & named:
                asking.setdefault(cluster.name, set()).add(service.name)
    for limit in snapshot.limits:
        for name in limit.services:
            if name.rpartition("/")[2] not in asking.get(cluster_of(name), ()):
                message = f"is for {name}, which no mapping names as a source"
                yield Finding(Severity.WARNING, f"limit {limit.name}", message)
