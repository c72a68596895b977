"""Documents as operators could write them, over the whole range of every field; snapshots made of them."""

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from hypothesis import strategies as st

from marchproxy.model.appliance import (
    MAX_BURST,
    MAX_ENTRIES,
    MAX_RATE,
    MAX_TIMEOUT,
    MAX_WARNING,
    ApplianceListener,
    Block,
    BlockList,
    Limit,
    ListenerKind,
    Per,
    Refusal,
    Settings,
)
from marchproxy.model.documents import Document, read_entity, read_mapping, read_service
from marchproxy.model.entities import (
    MAX_GRACE,
    Action,
    Auth,
    Balance,
    ClusterHead,
    Interface,
    Mapping,
    Mode,
    Role,
    Service,
    WithoutSni,
)
from marchproxy.model.names import DEFAULT_CLUSTER
from marchproxy.model.protocol import Protocol
from marchproxy.model.publickey import MAX_KEYS
from marchproxy.model.snapshot import FORMAT, Cluster, Snapshot, read_snapshot

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True)
SERVICE_NAMES = NAMES.filter(lambda name: name.lower() not in ("all", "external"))
HOSTS = st.from_regex(
    r"([a-z0-9_]([a-z0-9_-]{0,10}[a-z0-9_])?\.){0,4}[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True
)
INTERFACE_NAMES = st.from_regex(r"[a-z][a-z0-9.@_-]{0,14}", fullmatch=True)
PORTS = st.integers(1, 65535)
LINES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=60)
PATHS = LINES.map(lambda text: f"/{text}")
REFERENCES = st.one_of(SERVICE_NAMES, NAMES.map("collection:{}".format), st.sampled_from(["all", "external"]))


@st.composite
def prefixes(draw: st.DrawFn) -> str:
    """An IPv4 or IPv6 prefix without host bits, and outside the IPv4-mapped range, which is refused."""
    if draw(st.booleans()):
        return str(IPv4Network((draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 32))), strict=False))
    address = draw(st.integers(2**64, 2**128 - 1))
    return str(IPv6Network((address, draw(st.integers(65, 128))), strict=False))


@st.composite
def ports(draw: st.DrawFn) -> str:
    """Ports and ranges that may touch, overlap and repeat."""
    pairs = draw(st.lists(st.tuples(PORTS, PORTS), min_size=1, max_size=5))
    return ",".join(str(low) if low == high else f"{min(low, high)}-{max(low, high)}" for low, high in pairs)


LISTENS = st.builds(
    "{}:{}".format, st.sampled_from(["*", "0.0.0.0", "[::]", "192.0.2.1", "[2001:db8::1]"]), PORTS
)
LISTEN_RANGES = st.builds(
    "{}:{}-{}".format,
    st.sampled_from(["*", "0.0.0.0", "[::]", "192.0.2.1", "[2001:db8::1]"]),
    st.integers(20000, 30000),
    st.integers(30000, 36383),
)
HOST_RULES = st.builds(str.__add__, st.sampled_from(["", "*."]), HOSTS)
ADDRESSES = st.lists(prefixes() | HOST_RULES, min_size=1, max_size=4)
SINGLES = st.sampled_from(["10.0.0.1", "10.9.9.9", "2001:db8::1", "2001:DB8::2"])
INSTANTS = st.datetimes().map(lambda instant: instant.replace(microsecond=0).isoformat() + "Z")


def services() -> st.SearchStrategy[Document]:
    """The document of a service, each optional field there or not."""
    drained = {"addresses": st.just(["10.0.0.0/8", "db.example"]), "drain": st.lists(SINGLES, max_size=2)}
    return _services({"addresses": ADDRESSES}) | _services(drained) | _services(_jwt(None)) | _jwts()


KEYS: dict[str, list[Document]] = {
    "RS256": [{"kty": "RSA", "n": "w" * 342, "e": "AQAB"}],
    "ES256": [
        {
            "kty": "EC",
            "crv": "P-256",
            "kid": "k1",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        }
    ],
    "EdDSA": [
        {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43, "kid": "größer"},
    ],
}
"""Public keys of each algorithm that has any."""
URLS = st.sampled_from(
    ["https://issuer.example/keys?a=b", "http://127.0.0.1:8080/", "https://[2001:db8::1]/k"]
)


def _jwts() -> st.SearchStrategy[Document]:
    named = st.sampled_from(list(KEYS)).flatmap(
        lambda algorithm: _services(
            _jwt(algorithm)
            | {"jwt_keys": st.lists(st.sampled_from(KEYS[algorithm]), min_size=1, max_size=MAX_KEYS)}
        )
    )
    found = st.sampled_from(list(KEYS)).flatmap(
        lambda algorithm: _services(_jwt(algorithm) | {"jwks_url": URLS})
    )
    return named | found


def _jwt(algorithm: str | None) -> dict[str, st.SearchStrategy[Any]]:
    return {
        "addresses": ADDRESSES,
        "auth": st.just("jwt"),
        "jwt_algorithm": st.sampled_from(["HS256", "HS384", "hs512"])
        if algorithm is None
        else st.just(algorithm),
        "jwt_audience": st.none() | LINES.filter(bool),
        "jwt_issuer": st.none() | LINES.filter(bool),
    }


def _services(required: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Document]:
    return st.fixed_dictionaries(
        {"name": SERVICE_NAMES, **required},
        optional={
            "port": st.none() | PORTS,
            "protocol": st.none() | st.sampled_from([str(protocol) for protocol in Protocol]),
            "collection": st.none() | NAMES,
            "tags": st.lists(NAMES, max_size=3),
            **({} if "auth" in required else {"auth": st.sampled_from([str(auth) for auth in Auth])}),
            "weight": st.integers(1, 256),
            "tls": st.booleans(),
            "health": st.sampled_from(["none", "tcp", "icmp"]) | PATHS.map("https:{}".format),
            "health_interval": st.none() | st.integers(1, 3600),
            "health_timeout": st.none() | st.integers(1, 60),
            "health_rise": st.none() | st.integers(1, 100),
            "health_fall": st.none() | st.integers(1, 100),
            "description": LINES,
        },
    )


@st.composite
def mappings(draw: st.DrawFn) -> Document:
    """The document of a mapping that keeps the rules between its fields."""
    references = st.lists(REFERENCES, min_size=1, max_size=3)
    document = draw(
        st.fixed_dictionaries(
            {"name": NAMES, "sources": references, "destinations": references},
            optional={
                "priority": st.integers(0, 65535),
                "action": st.sampled_from([str(action) for action in Action]),
                "auth_required": st.booleans(),
                "expires": st.none() | INSTANTS,
                "audit": st.booleans(),
                "balance": st.sampled_from([str(balance) for balance in Balance]),
                "on_expiry": st.sampled_from(["keep", "cut"])
                | st.integers(1, MAX_GRACE).map("grace:{}".format),
                "description": LINES,
            },
        )
    )
    kinds = [["icmp"], ["tcp", "udp", "quic"], ["http", "https", "grpc"]]
    allowed = draw(st.sampled_from(kinds))
    protocols = draw(st.lists(st.sampled_from(allowed), min_size=1))
    document["protocols"] = protocols
    if allowed != ["icmp"]:
        document["ports"] = draw(ports() | st.just(""))
        document["listen"] = draw(st.none() | LISTENS | LISTEN_RANGES)
    if set(protocols) == {"tcp"} and document["listen"] is not None:
        optional = {
            "proxy_from": st.lists(prefixes(), max_size=2),
            "send_proxy": st.sampled_from(["none", "v1", "v2"]),
        }
        document |= draw(st.fixed_dictionaries({}, optional=optional))
    if "http" in allowed and document["listen"] is not None and draw(st.booleans()):
        document["tls"] = draw(NAMES)
    elif "http" in allowed:
        document |= draw(
            st.fixed_dictionaries({}, optional={"sni": st.just(True)})
            | st.fixed_dictionaries(
                {"sni": st.just(True), "sni_missing": st.sampled_from([str(item) for item in WithoutSni])}
            )
        )
    if "http" in allowed:
        document |= {"host": draw(st.none() | HOST_RULES), "path_prefix": draw(st.none() | PATHS)}
    return document


def interfaces() -> st.SearchStrategy[Document]:
    """The document of an interface."""
    own = {"name": INTERFACE_NAMES, "role": st.sampled_from([str(role) for role in Role])}
    modes = st.sampled_from([str(mode) for mode in Mode])
    masked = {"masquerade": st.just(True), "nat_addresses": st.lists(SINGLES, max_size=3)}
    return st.fixed_dictionaries(own, optional={"mode": modes}) | st.fixed_dictionaries(own | masked)


def blocks() -> st.SearchStrategy[Document]:
    """The document of a block."""
    names = prefixes() | HOST_RULES
    optional = {"reason": LINES, "origin": LINES, "expires": st.none() | INSTANTS}
    return st.fixed_dictionaries({"name": names}, optional=optional)


def block_lists() -> st.SearchStrategy[Document]:
    """The document of a block list."""
    hashes = st.from_regex("[0-9a-f]{64}", fullmatch=True)
    return st.fixed_dictionaries(
        {"name": NAMES, "sha256": hashes, "entries": st.integers(0, MAX_ENTRIES)},
        optional={"reason": LINES, "origin": LINES, "expires": st.none() | INSTANTS},
    )


def limits() -> st.SearchStrategy[Document]:
    """The document of a limit."""
    rates = st.integers(1, MAX_RATE)
    return st.fixed_dictionaries(
        {"name": NAMES, "per": st.sampled_from([str(per) for per in Per]), "flows_per_second": rates},
        optional={
            "packets_per_second": st.none() | rates,
            "bytes_per_second": st.none() | rates,
            "burst": st.none() | st.integers(1, MAX_BURST),
            "exempt": st.lists(prefixes(), max_size=3),
        },
    ).map(
        lambda document: document | ({"services": ["web", "lab/web"]} if document["per"] == "service" else {})
    )


def listeners() -> st.SearchStrategy[Document]:
    """The document of a listener of the appliance, without the name that the rest gives it."""
    kinds = st.sampled_from([str(kind) for kind in ListenerKind])
    secured = st.fixed_dictionaries(
        {"kind": st.just("explicit"), "bind": LISTENS, "tls": NAMES},
        optional={"proxy_from": st.lists(prefixes(), max_size=2)},
    )
    return st.fixed_dictionaries({"kind": kinds, "bind": LISTENS}) | secured


def settings() -> st.SearchStrategy[Document]:
    """The document of the settings."""
    timeouts = ("tcp_established", "tcp_closing", "tcp_opening", "udp", "udp_unanswered", "icmp")
    resolvers = st.lists(SINGLES | LISTENS.filter(lambda text: not text.startswith("*")), max_size=3)
    return st.fixed_dictionaries(
        {},
        optional={
            "audit": st.booleans(),
            "refusal": st.sampled_from([str(refusal) for refusal in Refusal]),
            "refusals_per_second": st.integers(1, 1_000_000),
            "flow_table": st.integers(1024, 16_777_216),
            **{f"timeout_{name}": st.integers(1, MAX_TIMEOUT) for name in timeouts},
            "resolvers": resolvers,
            "private_answers": st.lists(HOST_RULES, max_size=3),
            "certificate_warning": st.integers(0, MAX_WARNING),
        },
    )


_CLUSTER_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "audit": st.booleans(),
    "syslog": st.sampled_from(["udp://192.0.2.5:514", "tls://logs.example:6514", "tcp://[fd00::5]:601"]),
    **{f"log_{name}": st.booleans() for name in ("auth", "netflow", "debug")},
    "ipfix": st.sampled_from(["udp://192.0.2.5:4739", "tcp://flows.example:4739"]),
    "log_http": st.sampled_from(["https://logs.example/ingest?index=a", "http://192.0.2.5:8088/"]),
}

DOCUMENTS: dict[type[Any], st.SearchStrategy[Document]] = {
    Service: services(),
    Mapping: mappings(),
    Interface: interfaces(),
    Block: blocks(),
    BlockList: block_lists(),
    Limit: limits(),
    ApplianceListener: listeners(),
    Settings: settings(),
    ClusterHead: st.fixed_dictionaries({"name": NAMES}, optional=_CLUSTER_FIELDS),
}
"""The document of every entity that there is."""


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """A snapshot over few names and few variants of each, so that two of them share, differ and lack some."""
    named = {DEFAULT_CLUSTER} | draw(st.sets(st.sampled_from(["edge", "lab"])))
    own = {field: draw(_some(names, variants)) for field, (names, variants) in _OWN.items()}
    own["listeners"] = [
        {"kind": "dns", "bind": bind} for bind in draw(st.sets(st.sampled_from(["*:53", "*:54"])))
    ]
    settings = draw(st.sampled_from(_SETTINGS))
    return replace(
        read_snapshot({"format": FORMAT, **own, "settings": settings}),
        clusters=tuple(draw(_clusters(name)) for name in sorted(named)),
    )


_SERVICES: list[Document] = [
    {"addresses": ["10.0.0.1"]},
    {"addresses": ["10.0.0.0/24", "db.example"], "port": 8080, "collection": "red"},
    {"addresses": ["2001:db8::1"], "tags": ["a", "b"], "tls": True, "description": "größer"},
]
_MAPPINGS: list[Document] = [
    {"protocols": ["tcp"], "ports": "443,8000-8100"},
    {"protocols": ["icmp"], "action": "deny", "priority": 1},
    {"protocols": ["http"], "host": "*.example", "listen": "[::]:80", "expires": "2030-01-01T00:00:00Z"},
]
_OWN: dict[str, tuple[list[str], list[Document]]] = {
    "interfaces": (
        ["eth0", "eth1", "wan0"],
        [
            {"role": "inside"},
            {"role": "outside", "mode": "xdp-generic"},
            {"role": "outside", "masquerade": True},
        ],
    ),
    "blocks": (["*.bad.example", "192.0.2.0/24", "::1"], [{}, {"reason": "größer"}]),
    "block_lists": (["b1", "b2"], [{"sha256": digit * 64, "entries": 7} for digit in "ab"]),
    "limits": (
        ["l1", "l2"],
        [
            {"per": "source", "packets_per_second": 9, "exempt": ["10.0.0.0/8"]},
            {"per": "total", "bytes_per_second": MAX_RATE},
        ],
    ),
}
_SETTINGS: list[Document] = [{}, {"audit": True}, {"resolvers": ["192.0.2.53"], "timeout_udp": 7}]


def _some(names: list[str], variants: list[Document]) -> st.SearchStrategy[list[Document]]:
    """Some of the names, in order, each as one of the variants."""
    chosen = st.dictionaries(st.sampled_from(names), st.sampled_from(variants))
    return chosen.map(lambda held: [{"name": name} | held[name] for name in sorted(held)])


@st.composite
def _clusters(draw: st.DrawFn, name: str) -> Cluster:
    services = [read_service(document) for document in draw(_some(["s1", "s2", "s3"], _SERVICES))]
    collections = {f"collection:{service.collection}" for service in services if service.collection}
    known = [*(service.name for service in services), *sorted(collections), "all", "external"]
    ends = st.fixed_dictionaries(
        {end: st.lists(st.sampled_from(known), min_size=1, max_size=2) for end in ("sources", "destinations")}
    )
    mappings = [read_mapping(held | draw(ends)) for held in draw(_some(["m1", "m2"], _MAPPINGS))]
    own = {"name": name, **draw(st.fixed_dictionaries({}, optional=_CLUSTER_FIELDS))}
    head = read_entity(ClusterHead, own)
    return Cluster.of(head, services=tuple(services), mappings=tuple(mappings))
