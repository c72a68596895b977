"""Documents as operators could write them, over the whole range of every field; snapshots made of them."""

from ipaddress import IPv4Network, IPv6Network

from hypothesis import strategies as st

from marchproxy.model.documents import Document, read_interface, read_mapping, read_service
from marchproxy.model.entities import Action, Auth, Mode, Role
from marchproxy.model.names import DEFAULT_CLUSTER
from marchproxy.model.protocol import Protocol
from marchproxy.model.snapshot import Cluster, Snapshot

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


ADDRESSES = st.lists(prefixes() | HOSTS, min_size=1, max_size=4)
LISTENS = st.builds(
    "{}:{}".format, st.sampled_from(["*", "0.0.0.0", "[::]", "192.0.2.1", "[2001:db8::1]"]), PORTS
)
HOST_RULES = st.builds(str.__add__, st.sampled_from(["", "*."]), HOSTS)
INSTANTS = st.datetimes().map(lambda instant: instant.replace(microsecond=0).isoformat() + "Z")


def services() -> st.SearchStrategy[Document]:
    """The document of a service, each optional field there or not."""
    return st.fixed_dictionaries(
        {"name": SERVICE_NAMES, "addresses": ADDRESSES},
        optional={
            "port": st.none() | PORTS,
            "protocol": st.none() | st.sampled_from([str(protocol) for protocol in Protocol]),
            "collection": st.none() | NAMES,
            "tags": st.lists(NAMES, max_size=3),
            "auth": st.sampled_from([str(auth) for auth in Auth]),
            "weight": st.integers(1, 256),
            "tls": st.booleans(),
            "health": st.sampled_from(["none", "tcp", "icmp"]) | PATHS.map("https:{}".format),
            "health_interval": st.none() | st.integers(1, 3600),
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
                "description": LINES,
            },
        )
    )
    kinds = [["icmp"], ["tcp", "udp", "quic"], ["http", "https", "grpc"]]
    allowed = draw(st.sampled_from(kinds))
    document["protocols"] = draw(st.lists(st.sampled_from(allowed), min_size=1))
    if allowed != ["icmp"]:
        document["ports"] = draw(ports() | st.just(""))
        document["listen"] = draw(st.none() | LISTENS)
    if "http" in allowed:
        document |= {"host": draw(st.none() | HOST_RULES), "path_prefix": draw(st.none() | PATHS)}
    return document


def interfaces() -> st.SearchStrategy[Document]:
    """The document of an interface."""
    return st.fixed_dictionaries(
        {"name": INTERFACE_NAMES, "role": st.sampled_from([str(role) for role in Role])},
        optional={"mode": st.sampled_from([str(mode) for mode in Mode])},
    )


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """A snapshot over few names and few variants of each, so that two of them share, differ and lack some."""
    named = {DEFAULT_CLUSTER} | draw(st.sets(st.sampled_from(["edge", "lab"])))
    interfaces = draw(_some(["eth0", "eth1", "wan0"], _INTERFACES))
    return Snapshot(
        tuple(draw(_clusters(name)) for name in sorted(named)), tuple(map(read_interface, interfaces))
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
_INTERFACES: list[Document] = [{"role": "inside"}, {"role": "outside", "mode": "xdp-generic"}]


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
    return Cluster(name, tuple(services), tuple(mappings))
