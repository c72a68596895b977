"""Random snapshots over a world so small that names, prefixes, ports and priorities collide."""

from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_address
from typing import Any

from hypothesis import strategies as st

from marchproxy.model.address import IPAddress
from marchproxy.model.appliance import Settings
from marchproxy.model.entities import Balance, Mapping, Service
from marchproxy.model.protocol import Protocol, Transport
from marchproxy.model.snapshot import Cluster, Snapshot
from marchproxy.policy.checks import BackendKey
from marchproxy.policy.evaluate import Query
from tests.policy.build import NOW, OWN, cluster, mapping, service, snapshot

CLIENTS = ["10.0.0.1", "10.0.0.2", "10.0.1.1", "10.9.9.9", "203.0.113.7", "2001:db8:a::1", "2001:db8:b::1"]
ELSEWHERE = ["198.51.100.1", "2001:db8:ffff::1", "10.0.0.2", "10.0.1.1", "2001:db8:a::1"]
SINGLES = ["10.0.0.1", "10.0.0.2", "2001:db8:a::1"]
PREFIXES = ["10.0.0.0/24", "10.0.0.0/16", "0.0.0.0/0", "2001:db8:a::/48", "2001:db8::/32"]
HOSTS = ["a.example.com", "b.example.com"]
SERVICES = ["s1", "s2", "s3", "s4"]
MAPPINGS = ["m1", "m2", "m3", "m4", "m5", "m6"]
COLLECTIONS = ["red", "blue"]
REFERENCES = [*SERVICES, *SERVICES, "collection:red", "collection:blue", "external", "all", "missing"]
LISTEN = [
    *("*:80", "*:80", "*:81", "0.0.0.0:80", "[::]:80", "192.0.2.1:80", "192.0.2.2:81", "[2001:db8::1]:80"),
    *("*:80-81", "192.0.2.1:80-82", "[::]:81-82"),
]
INSTANTS = [NOW + timedelta(hours=hour) for hour in range(4)]
QUERIES = [
    Query(ip_address(source), destination, port, transport, OWN)
    for destination in [*sorted(OWN, key=str), *(ip_address(text) for text in ELSEWHERE)]
    for source in CLIENTS
    if ip_address(source).version == destination.version
    for port, transport in [(0, None), *((port, each) for port in (80, 81, 82) for each in Transport)]
]
"""Every question that such snapshots answer differently; both ends are of one family."""


def _mostly(usual: Any, other: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from([*[usual] * 7, other])


def services(name: str) -> st.SearchStrategy[Service]:
    """A service of that name, mostly with something that traffic can be sent to."""
    addresses = [
        st.lists(st.sampled_from(SINGLES + HOSTS), min_size=1, max_size=3, unique=True),
        st.lists(st.sampled_from(SINGLES + HOSTS + PREFIXES), min_size=1, max_size=4, unique=True),
    ]
    return st.builds(
        lambda addresses, fields: service(name, *addresses, **_own_drain(addresses, fields)),
        st.one_of(addresses),
        st.fixed_dictionaries(
            {},
            optional={
                "port": st.sampled_from([80, 81, 8080]),
                "collection": st.sampled_from(COLLECTIONS),
                "auth": _mostly("none", "token"),
                "weight": st.integers(1, 3),
                "health": st.sampled_from(["none", "tcp", "icmp"]),
                "drain": st.lists(st.sampled_from(SINGLES), max_size=2, unique=True),
            },
        ),
    )


def _own_drain(addresses: list[str], fields: dict[str, Any]) -> dict[str, Any]:
    """Only a service's own addresses can be drained."""
    return fields | {"drain": [address for address in fields.get("drain", ()) if address in addresses]}


def down() -> st.SearchStrategy[frozenset[BackendKey]]:
    """What checks find: also about backends that nobody checks."""
    keys = st.builds(
        BackendKey,
        st.sampled_from([*SERVICES, *(f"other/{name}" for name in SERVICES)]),
        st.sampled_from([ip_address(text) for text in SINGLES]),
        st.sampled_from([0, 80, 81, 8080]),
    )
    return st.frozensets(keys, max_size=12)


def mappings(name: str) -> st.SearchStrategy[Mapping]:
    """A mapping of that name: one that listens, or one that does not."""
    carried = st.sampled_from(["tcp", "tcp", "udp", "tcp,udp"])
    listening = st.sampled_from(LISTEN), st.sampled_from(["allow", "allow", "deny"]), carried
    return _mappings(name, *listening) | transit(name)


def transit(name: str) -> st.SearchStrategy[Mapping]:
    """A mapping without listen address: what passes through, and a restriction of listeners if it denies."""
    carried = st.sampled_from(["tcp", "tcp", "udp", "tcp,udp", "tcp,icmp"])
    routed = _mappings(name, st.none(), st.sampled_from(["allow", "deny"]), carried)
    echo = (Protocol.ICMP,)
    return routed | routed.map(lambda held: replace(held, protocols=echo, ports=(), path_prefix=None))


def _mappings(
    name: str,
    listen: st.SearchStrategy[str | None],
    action: st.SearchStrategy[str],
    protocols: st.SearchStrategy[str],
) -> st.SearchStrategy[Mapping]:
    def references(*more: str) -> st.SearchStrategy[str]:
        return st.lists(st.sampled_from([*REFERENCES, *more]), min_size=1, max_size=3).map(",".join)

    common = {
        "listen": listen,
        "ports": st.sampled_from(["", "", "", "", "80", "81-82", "8080", "8080,9000-9100", "80-8080"]),
        "priority": st.sampled_from([50, 100]),
        "action": action,
        "balance": st.sampled_from(Balance),
        "expires": st.sampled_from([None] * 4 + [f"{instant:%Y-%m-%dT%H:%M:%SZ}" for instant in INSTANTS]),
    }
    at_layer_4 = st.fixed_dictionaries(
        {
            **common,
            "protocols": protocols,
            "auth_required": _mostly(False, True),
            "audit": _mostly(False, True),
        }
    )
    at_layer_7 = st.fixed_dictionaries(
        {
            **common,
            "protocols": st.just("http"),
            "path_prefix": st.sampled_from([None, None, None, "/x", "/x/y/", "/"]),
            "audit": st.booleans(),
        }
    )
    return st.builds(
        lambda sources, destinations, fields: mapping(name, sources, destinations, **fields),
        references("all", "all", "external"),
        references(*SERVICES),
        at_layer_4 | at_layer_4 | at_layer_7,
    )


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """One or two clusters with up to four services and six mappings each."""
    clusters = []
    for name in draw(st.sampled_from([["default"], ["default", "other"]])):
        chosen = draw(st.sampled_from([*[SERVICES] * 4, SERVICES[:2], []]))
        count = draw(st.sampled_from([6, 6, 6, 6, 3, 0]))
        items = [draw(services(item)) for item in chosen] + [
            draw(mappings(item)) for item in MAPPINGS[:count]
        ]
        clusters.append(draw(_audited(cluster(*items, name=name))))
    return draw(_settled(snapshot(*clusters)))


def _audited(held: Cluster) -> st.SearchStrategy[Cluster]:
    return _mostly(False, True).map(lambda audit: replace(held, audit=audit))


def _settled(held: Snapshot) -> st.SearchStrategy[Snapshot]:
    return _mostly(False, True).map(lambda audit: replace(held, settings=Settings(audit=audit)))


@st.composite
def successors(draw: st.DrawFn, before: Snapshot) -> Snapshot:
    """`before` after some work: one or two entities added, changed or removed, maybe in a new cluster."""
    held = {item.name: {part.name: part for part in _parts(item)} for item in before.clusters}
    for _ in range(draw(st.integers(1, 2))):
        parts = held.setdefault(draw(st.sampled_from(["default", "other"])), {})
        name = draw(st.sampled_from([*SERVICES, *MAPPINGS]))
        if draw(st.booleans()):
            parts[name] = draw(services(name)) if name in SERVICES else draw(mappings(name))
        else:
            parts.pop(name, None)
    clusters = [cluster(*parts.values(), name=name) for name, parts in held.items() if parts]
    return draw(_settled(snapshot(*[draw(_audited(item)) for item in clusters])))


def _parts(item: Cluster) -> tuple[Service | Mapping, ...]:
    return (*item.services, *item.mappings)


def names() -> st.SearchStrategy[dict[str, tuple[IPAddress, ...]]]:
    """What host names resolve to."""
    addresses = st.sampled_from([ip_address(text) for text in ("10.0.1.1", "10.9.9.9", "2001:db8:b::1")])
    return st.dictionaries(st.sampled_from(HOSTS), st.lists(addresses, max_size=2).map(tuple))


def queries() -> st.SearchStrategy[Query]:
    """New flows to the appliance's own addresses, which listeners or the host answer."""
    return st.sampled_from([query for query in QUERIES if query.transport and query.is_local()])
