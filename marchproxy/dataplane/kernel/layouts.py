"""The structs of `bpf/marchproxy.h`, as user space sees them.

A test compares names, sizes and offsets with the BTF of the compiled objects. Addresses are 16 bytes in
network order, IPv4 as ::ffff:a.b.c.d; ports travel as two bytes in network order; everything else is in host
order. Times are CLOCK_MONOTONIC nanoseconds.
"""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from struct import Struct, calcsize
from typing import Final, NamedTuple

from marchproxy.model.address import IPAddress
from marchproxy.model.entities import Balance

_REMEMBERED = 4096
"""Addresses that are not made again."""
_V4_MAPPED = bytes(10) + b"\xff\xff"
ANY_V4 = _V4_MAPPED + bytes(4)
ANY_V6 = bytes(16)

BANKS: Final = 2
LISTENERS: Final = 65536
RULES: Final = 65536
POOL_SLOTS: Final = 1048576
BACKENDS: Final = 65536
PREFIXES: Final = 262144
SOURCE_BITS: Final = 1048576
LIMITS: Final = 1024
LIMIT_SETS: Final = 4096
LIMIT_PREFIXES: Final = 262144
LIMIT_SHARED: Final = 12
LIMIT_NONE: Final = 0xFFFF
LIMIT_SHIFT: Final = 14
SPLICES: Final = 131072

CLASS_STRANGER: Final = 0
CLASS_ANYONE: Final = 1
CLASS_DIMENSION_SHIFT: Final = 29
CLASS_BANK_SHIFT: Final = 31

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
STATE_OPENING, STATE_ANSWERED, STATE_ESTABLISHED, STATE_CLOSED = 1, 2, 3, 4
FLAG_REPLY, FLAG_FIN, FLAG_PEER_FIN, FLAG_FIN_ACKED, FLAG_SPLICED = 1, 2, 4, 8, 64
FLAGS_CLOSING: Final = FLAG_FIN | FLAG_PEER_FIN
"""One side or the other has sent its FIN; each direction knows of both."""
EVENT_START, EVENT_END, EVENT_DENIED, EVENT_AUDITED = 1, 2, 3, 4
BEGINNING_TOLD, BEGINNING_ESTABLISHED, BEGINNING_ENDED = 0, 1, 2
DIMENSION_SOURCE, DIMENSION_DESTINATION, DIMENSION_PORT = 0, 1, 2
PORT_ECHO: Final = 131072
PORT_CLASSES: Final = 131073
TRANSIT_BITS: Final = 1048576
CLASSES: Final = 131072
DIMENSIONS: Final = 3
ROLE_INSIDE, ROLE_OUTSIDE = 1, 2
NAT_ADDRESSES: Final = 8


class Layout(NamedTuple):
    """One C struct: its name, and its fields in order, with padding, by their `struct` formats."""

    name: str
    formats: dict[str, str]
    struct: Struct

    @property
    def size(self) -> int:
        """Bytes."""
        return self.struct.size

    @property
    def fields(self) -> tuple[str, ...]:
        """What `struct` packs, in order."""
        return tuple(name for name in self.formats if not name.startswith("pad"))

    def offset(self, field: str) -> int:
        """Bytes in front of a field."""
        forms = list(self.formats.values())
        return calcsize("=" + "".join(forms[: list(self.formats).index(field)]))

    def pick(self, *fields: str) -> Struct:
        """Reads only these fields (in the order of the struct) out of the whole: for walks over many."""
        formats = (
            form if name in fields else f"{calcsize('=' + form)}x" for name, form in self.formats.items()
        )
        return Struct("=" + "".join(formats))


def _layout(name: str, /, **formats: str) -> Layout:
    return Layout(name, formats, Struct("=" + "".join(formats.values())))


FLOW_KEY = _layout(
    "mp_flow_key",
    source="16s",
    destination="16s",
    source_port="2s",
    destination_port="2s",
    protocol="B",
    pad="3x",
)
FLOW = _layout(
    "mp_flow",
    source="16s",
    destination="16s",
    source_port="2s",
    destination_port="2s",
    ifindex="I",
    last_seen="Q",
    packets="Q",
    bytes="Q",
    route_checked="Q",
    route_epoch="I",
    mtu="I",
    next_hop="6s",
    own_mac="6s",
    state="B",
    flags="B",
    tier="B",
    pad="x",
    id="Q",
    started="Q",
    mapping="I",
    revision="I",
    peer_fin_ack="I",
    splice="I",
)
SPLICE = _layout(
    "mp_splice",
    id="Q",
    sequence="8s",
    timestamp="8s",
    least="8s",
    most="8s",
    announced="2s",
    expected="2s",
    flags="I",
)
SPLICE_DRAINING, SPLICE_HELD = 1, 2
TUNNEL = _layout(
    "mp_tunnel", key="40s", expires="Q", service="128s", credential="64s", name="256s", pad="16x"
)
SOCKET = _layout(
    "mp_socket",
    key="40s",
    found="I",
    state="I",
    written="I",
    sent="I",
    acknowledged="I",
    received="I",
    read="I",
    window="I",
    own_window="I",
    segment="I",
    timestamp="I",
    ifindex="I",
    blockers="I",
)
SOCKET_REORDERED, SOCKET_URGENT, SOCKET_SIGNED, SOCKET_LAYERED = 1, 2, 4, 8
AMENDMENT = _layout(
    "mp_amendment", key="40s", id="Q", packets="Q", bytes="Q", peer_fin_ack="I", flags="B", pad="3x"
)
LISTENER_KEY = _layout("mp_listener_key", address="16s", port="2s", protocol="B", bank="B")
LISTENER = _layout("mp_listener", first="I", count="I")
RULE = _layout("mp_rule", mapping="I", pool_first="I", pool_size="I", reason="H", flags="B", balance="B")
RULE_AUDIT: Final = 1
RULE_DIVERT: Final = 2
RULE_QUIC: Final = 4
QUIC_ID, QUIC_SHORT_ID = 8, 4
DIVERT_MARK: Final = 0x4D504456
BALANCES: Final = {
    Balance.MAGLEV: 0,
    Balance.SOURCE: 1,
    Balance.ROUND_ROBIN: 2,
    Balance.LEAST_CONNECTIONS: 3,
}
"""`enum mp_balance`."""
BACKEND = _layout("mp_backend", address="16s", source="16s", port="2s", weight="H", pad="4x")
BACKEND_KEY = _layout("mp_backend_key", address="16s", port="2s", pad="2x")
QUIC_KEY = _layout("mp_quic_key", mapping="I", length="B", pad="3x", id="8s")
PAGES: Final = 131072
PAGE_BITS: Final = 120
PAGE_RUNS: Final = 12
CLASS_ELSEWHERE: Final = 0xFFFFFFFF
CLASS_LINES_BITS: Final = 16
CLASS_LINES: Final = 1 << CLASS_LINES_BITS
LINE_RUNS: Final = 9
LINE_TAKEN: Final = 1
LINE_MORE: Final = 2
CLASS_LINE = _layout(
    "mp_class_line", page="16s", **{"class": f"{LINE_RUNS * 4}s", "first": f"{LINE_RUNS}s"}, pad="3x"
)
PAGE_KEY = _layout("mp_page_key", address="15s", bank="B")
PAGE = _layout("mp_page", **{"class": f"{PAGE_RUNS * 4}s", "first": f"{PAGE_RUNS}s"})
ADDRESS_KEY = _layout("mp_address_key", prefix_length="I", bank="B", address="16s", pad="3x")
BITS_KEY = _layout("mp_bits_key", **{"class": "I", "word": "I"})
TRANSIT_RULE = _layout("mp_transit_rule", mapping="I", rank="I", reason="H", flags="B", pad="x")
TRANSIT_DIGEST = _layout("mp_transit_digest", residues="Q", rules="Q", word="I", more="I")
NAT_POOL = _layout("mp_nat_pool", v4="128s", v6="128s", v4_count="I", v6_count="I")
SETTINGS = _layout(
    "mp_settings",
    bank="I",
    revision="I",
    route_epoch="I",
    nat_first="H",
    nat_count="H",
    refusals_per_second="I",
    wanted_events="I",
    limiting="I",
    denied_events_per_second="I",
    repeat_ms="I",
    block_layers="I",
    silent="I",
    block_epoch="I",
    diverting="I",
)
LIMIT = _layout("mp_limit", step="24s", tolerance="24s")
BUCKET = _layout("mp_bucket", until="24s")
LIMIT_SET = _layout("mp_limit_set", own="6s", count="H", shared="24s")
LIMITED = _layout("mp_limited", set="Q", bucket="24s")
LIMIT_COUNTER = _layout(
    "mp_limit_counter", passed_packets="Q", passed_bytes="Q", dropped_packets="Q", dropped_bytes="Q"
)
BLOCK_HEADER = _layout(
    "mp_block_header",
    v4_slots="I",
    v4_shift="I",
    v6_slots="I",
    v6_shift="I",
    levels="I",
    starts="I",
    infos="I",
    pad="36x",
)
BLOCK_LINE: Final = 64
BLOCK_OWNER_MAX: Final = 0xFFFFFF
BLOCK_LAYERS: Final = 2
CLEAN_PAIRS: Final = 512
BLOCK_SINGLE, BLOCK_LISTS = 0, 1
BLOCK_LEVELS: Final = {48: 1, 32: 2, 24: 4, 16: 8}
"""Lengths under which IPv6 prefixes are found, and their bits in `mp_block_header.levels`."""
MANAGEMENT = _layout("mp_management", tcp="8192s")
INTERFACE = _layout("mp_interface", address="6s", native_xdp="B", role="B")
OWN_ADDRESSES = _layout("mp_own_addresses", v4="16s", v6="16s")
CAPTURING: Final = 0x80000000
CAPTURE_MAPPINGS: Final = 16
CAPTURE_CAME, CAPTURE_LEFT, CAPTURE_DENIED, CAPTURE_AUDITED = 1, 2, 3, 4
CAPTURE_SOURCE, CAPTURE_DESTINATION, CAPTURE_SERVICE, CAPTURE_MAPPING = 1, 2, 4, 8
CAPTURE_FILTER = _layout(
    "mp_capture_filter",
    until="Q",
    reasons="Q",
    kinds="I",
    wanted="I",
    rate="I",
    snap="I",
    port="2s",
    protocol="B",
    protocol_v6="B",
    mappings="64s",
    pad="4x",
)
CAPTURE_SPENT = _layout("mp_capture_spent", second="Q", taken="Q", missed="Q")
CAPTURE = _layout(
    "mp_capture",
    time="Q",
    id="Q",
    mapping="I",
    ifindex="I",
    length="I",
    taken="I",
    segments="I",
    kind="B",
    reason="B",
    tier="B",
    reply="B",
    unresolved="B",
    pad="7x",
)
COUNTER = _layout("mp_counter", packets="Q", bytes="Q")
DENIED_KEY = _layout("mp_denied_key", mapping="I", reason="H", kind="H")
REPEAT_KEY = _layout(
    "mp_repeat_key",
    source="16s",
    destination="16s",
    mapping="I",
    destination_port="2s",
    protocol="B",
    reason="B",
    kind="B",
    pad="3x",
)
REPEAT = _layout("mp_repeat", told="Q", more="Q")
EVENT = _layout(
    "mp_event",
    time="Q",
    id="Q",
    started="Q",
    packets="16s",
    bytes="16s",
    key="40s",
    backend="16s",
    backend_port="2s",
    kind="B",
    reason="B",
    mapping="I",
    revision="I",
    ifindex="I",
    attempts="I",
    tier="B",
    spliced="B",
    pad="2x",
)
EVENT_PARTS = Struct(
    "="
    + "".join(
        (EVENT.formats | {"packets": "QQ", "bytes": "QQ", "key": "".join(FLOW_KEY.formats.values())}).values()
    )
)
"""The same down to the numbers of each direction and the parts of the key: for who reads thousands."""
EVENT_END_PARTS = EVENT._replace(
    formats=EVENT.formats | {"packets": "QQ", "bytes": "QQ", "key": "16s16s8x"}
).pick("time", "id", "started", "packets", "bytes", "key", "backend", "backend_port", "mapping", "spliced")
"""What is added up of an end: of the key both addresses, client and what it asked for."""
LAYOUTS = (
    FLOW_KEY,
    FLOW,
    SPLICE,
    TUNNEL,
    SOCKET,
    AMENDMENT,
    LISTENER_KEY,
    LISTENER,
    RULE,
    BACKEND,
    BACKEND_KEY,
    QUIC_KEY,
    ADDRESS_KEY,
    PAGE_KEY,
    PAGE,
    TRANSIT_RULE,
    TRANSIT_DIGEST,
    NAT_POOL,
    BITS_KEY,
    SETTINGS,
    LIMIT,
    BUCKET,
    LIMIT_SET,
    LIMITED,
    LIMIT_COUNTER,
    BLOCK_HEADER,
    MANAGEMENT,
    INTERFACE,
    OWN_ADDRESSES,
    COUNTER,
    DENIED_KEY,
    REPEAT_KEY,
    REPEAT,
    EVENT,
    CAPTURE_FILTER,
    CAPTURE_SPENT,
    CAPTURE,
)

U16 = Struct("=H")
U32 = Struct("=I")
U32_PAIR = Struct("=II")
U64 = Struct("=Q")
I64 = Struct("=q")
U64_PAIR = Struct("=QQ")
U64_TRIPLE = Struct("=QQQ")
"""A number for each kind of rate: packets, bytes, flows."""


class FlowKey(NamedTuple):
    """`mp_flow_key`: a tuple as it arrives, or in a record as the client asked."""

    source: bytes
    destination: bytes
    source_port: bytes
    destination_port: bytes
    protocol: int


class FlowEntry(NamedTuple):
    """`mp_flow`: one direction of a conversation."""

    source: bytes
    destination: bytes
    source_port: bytes
    destination_port: bytes
    ifindex: int
    last_seen: int
    packets: int
    octets: int
    """IP bytes."""
    route_checked: int
    route_epoch: int
    mtu: int
    next_hop: bytes
    own_mac: bytes
    state: int
    flags: int
    tier: int
    id: int
    started: int
    mapping: int
    revision: int
    peer_fin_ack: int
    splice: int

    def other_key(self, protocol: int) -> bytes:
        """The key of the other direction: the rewritten tuple, reversed."""
        return FLOW_KEY.struct.pack(
            self.destination, self.source, self.destination_port, self.source_port, protocol
        )


class EventRecord(NamedTuple):
    """`mp_event`."""

    time: int
    id: int
    started: int
    packets: bytes
    octets: bytes
    key: bytes
    backend: bytes
    backend_port: bytes
    kind: int
    reason: int
    mapping: int
    revision: int
    ifindex: int
    attempts: int
    tier: int
    spliced: int


def read_key(raw: bytes) -> FlowKey:
    """Decode a flow key."""
    return FlowKey._make(FLOW_KEY.struct.unpack(raw))


def read_flow(raw: bytes) -> FlowEntry:
    """Decode a flow entry."""
    return FlowEntry._make(FLOW.struct.unpack(raw))


def read_event(raw: bytes) -> EventRecord:
    """Decode an event."""
    return EventRecord._make(EVENT.struct.unpack(raw))


class CaptureRecord(NamedTuple):
    """`mp_capture`."""

    time: int
    id: int
    mapping: int
    ifindex: int
    length: int
    taken: int
    segments: int
    kind: int
    reason: int
    tier: int
    reply: int
    unresolved: int


def read_capture(raw: bytes) -> CaptureRecord:
    """What stands in front of a captured packet's bytes."""
    return CaptureRecord._make(CAPTURE.struct.unpack_from(raw))


def pack_address(address: IPAddress) -> bytes:
    """Sixteen bytes in network order."""
    return _V4_MAPPED + address.packed if isinstance(address, IPv4Address) else address.packed


@lru_cache(_REMEMBERED)
def read_address(raw: bytes) -> IPAddress:
    """The address that `pack_address` packed. Events are of the same few hosts again and again."""
    return IPv4Address(raw[12:]) if is_v4(raw) else IPv6Address(raw)


def is_v4(raw: bytes) -> bool:
    """Whether a packed address is one of IPv4."""
    return raw.startswith(_V4_MAPPED)


def pack_port(port: int) -> bytes:
    """Two bytes in network order."""
    return port.to_bytes(2, "big")


def read_port(raw: bytes) -> int:
    """The port that `pack_port` packed."""
    return int.from_bytes(raw, "big")
