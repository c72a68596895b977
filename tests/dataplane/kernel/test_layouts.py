"""layouts: the structs are those that the compiler laid out, and packing is reversible."""

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy import bpf
from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.layouts import LAYOUTS, Layout
from marchproxy.model.address import IPAddress
from marchproxy.model.reason import Tier
from tests.dataplane.kernel.btf import Btf, read_btf
from tests.dataplane.kernel.support import Compile

PROGRAMS = Path(__file__).parent / "programs"

pytestmark = pytest.mark.requires(commands=["clang"])


@pytest.fixture(scope="module")
def header(compile_bpf: Compile) -> Btf:
    """The types of `bpf/marchproxy.h`."""
    return read_btf(compile_bpf(PROGRAMS / "layouts.bpf.c"))


def offsets(layout: Layout) -> dict[str, int]:
    """Where each field starts, padding included."""
    found, at = {}, 0
    for name, form in layout.formats.items():
        found[name] = at
        at += struct.calcsize("=" + form)
    return found


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_layouts_are_those_of_the_header(layout: Layout, header: Btf) -> None:
    compiled = header.structs[layout.name]
    assert layout.size == compiled.size
    assert offsets(layout) == compiled.offsets


@pytest.mark.parametrize("name", ["tc.bpf.o", "xdp.bpf.o", "handoff.bpf.o"])
def test_compiled_objects_are_those_of_the_header(name: str, header: Btf) -> None:
    """For the structs in maps, which the objects describe: an object left over from another version shows."""
    compiled = read_btf(bpf.OBJECTS / name).structs
    shared = compiled.keys() & header.structs.keys()
    assert shared >= {"mp_flow_key", "mp_flow", "mp_listener", "mp_rule", "mp_backend", "mp_settings"}
    assert {name: compiled[name] for name in shared} == {name: header.structs[name] for name in shared}


def test_numbers_are_those_of_the_header(header: Btf) -> None:
    ours = {
        "MP_STATE_OPENING": layouts.STATE_OPENING,
        "MP_STATE_ANSWERED": layouts.STATE_ANSWERED,
        "MP_STATE_ESTABLISHED": layouts.STATE_ESTABLISHED,
        "MP_STATE_CLOSED": layouts.STATE_CLOSED,
        "MP_FLOW_REPLY": layouts.FLAG_REPLY,
        "MP_FLOW_FIN": layouts.FLAG_FIN,
        "MP_FLOW_PEER_FIN": layouts.FLAG_PEER_FIN,
        "MP_FLOW_FIN_ACKED": layouts.FLAG_FIN_ACKED,
        "MP_FLOW_SPLICED": layouts.FLAG_SPLICED,
        "MP_SPLICE_DRAINING": layouts.SPLICE_DRAINING,
        "MP_SPLICE_HELD": layouts.SPLICE_HELD,
        "MP_SOCKET_REORDERED": layouts.SOCKET_REORDERED,
        "MP_SOCKET_URGENT": layouts.SOCKET_URGENT,
        "MP_SOCKET_SIGNED": layouts.SOCKET_SIGNED,
        "MP_SOCKET_LAYERED": layouts.SOCKET_LAYERED,
        "MP_EVENT_START": layouts.EVENT_START,
        "MP_EVENT_END": layouts.EVENT_END,
        "MP_EVENT_DENIED": layouts.EVENT_DENIED,
        "MP_EVENT_AUDITED": layouts.EVENT_AUDITED,
        "MP_CAPTURE_CAME": layouts.CAPTURE_CAME,
        "MP_CAPTURE_LEFT": layouts.CAPTURE_LEFT,
        "MP_CAPTURE_DENIED": layouts.CAPTURE_DENIED,
        "MP_CAPTURE_AUDITED": layouts.CAPTURE_AUDITED,
        "MP_CAPTURE_SOURCE": layouts.CAPTURE_SOURCE,
        "MP_CAPTURE_DESTINATION": layouts.CAPTURE_DESTINATION,
        "MP_CAPTURE_SERVICE": layouts.CAPTURE_SERVICE,
        "MP_CAPTURE_MAPPING": layouts.CAPTURE_MAPPING,
        "MP_TIER_TC": Tier.TC.value,
        "MP_TIER_XDP": Tier.XDP.value,
        **{f"MP_BALANCE_{balance.name}": number for balance, number in layouts.BALANCES.items()},
    }
    assert {name: header.enumerators.get(name) for name in ours} == ours


@pytest.mark.parametrize(
    ("layout", "record"),
    [
        (layouts.FLOW_KEY, layouts.FlowKey),
        (layouts.FLOW, layouts.FlowEntry),
        (layouts.EVENT, layouts.EventRecord),
    ],
)
def test_records_have_the_fields_of_their_layout(layout: Layout, record: type[tuple[object, ...]]) -> None:
    fields = [field.replace("octets", "bytes") for field in record._fields]  # type: ignore[attr-defined]
    assert fields == list(layout.fields)


def test_picking_reads_out_of_the_middle() -> None:
    values = range(1, len(layouts.SETTINGS.fields) + 1)
    packed = layouts.SETTINGS.struct.pack(*values)
    chosen = dict(zip(layouts.SETTINGS.fields, values, strict=True))
    picked = layouts.SETTINGS.pick("nat_count", "revision")
    assert picked.unpack(packed) == (chosen["revision"], chosen["nat_count"])


@given(st.ip_addresses())
def test_addresses_are_reversible(address: IPAddress) -> None:
    packed = layouts.pack_address(address)
    assert len(packed) == 16
    if not (isinstance(address, IPv6Address) and address.ipv4_mapped):
        assert layouts.read_address(packed) == address


@given(st.integers(0, 65535))
def test_ports_are_reversible_and_in_network_order(port: int) -> None:
    assert layouts.read_port(layouts.pack_port(port)) == port
    assert layouts.pack_port(port) == port.to_bytes(2, "big")


def test_an_entry_names_its_other_half() -> None:
    key = layouts.FLOW_KEY.struct.pack(
        layouts.pack_address(ip_address("10.0.0.1")),
        layouts.pack_address(ip_address("192.0.2.1")),
        b"ab",
        b"cd",
        6,
    )
    entry = layouts.read_flow(bytes(layouts.FLOW.size))._replace(
        source=layouts.pack_address(ip_address("192.0.2.1")),
        destination=layouts.pack_address(ip_address("10.0.0.1")),
        source_port=b"cd",
        destination_port=b"ab",
    )
    assert entry.other_key(6) == key


def test_wildcards_are_the_addresses_of_nobody() -> None:
    assert layouts.read_address(layouts.ANY_V4) == IPv4Address(0)
    assert layouts.read_address(layouts.ANY_V6) == IPv6Address(0)
