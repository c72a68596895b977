"""The index against a walk over all prefixes."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from marchproxy.model.address import IPAddress, Prefix
from marchproxy.policy.sources import SourceIndex

ADDRESSES = st.integers(0, 2**32 - 1).map(IPv4Address) | st.integers(0, 2**128 - 1).map(IPv6Address)
NEAR = st.sampled_from(
    [ip_address(text) for text in ("10.0.0.1", "10.0.0.128", "10.1.0.1", "2001:db8::1", "2001:db8:1::")]
)


@st.composite
def prefixes(draw: st.DrawFn) -> Prefix:
    """A prefix of any length, mostly around the same few addresses."""
    address = draw(NEAR | ADDRESSES)
    return ip_network((address, draw(st.integers(0, address.max_prefixlen))), strict=False)


SOURCES = st.dictionaries(st.sampled_from("abcdef"), st.lists(prefixes(), max_size=5))


@given(SOURCES, NEAR | ADDRESSES)
def test_an_address_belongs_to_every_service_with_a_prefix_around_it(
    sources: dict[str, list[Prefix]], address: IPAddress
) -> None:
    expected = {name for name, held in sources.items() if any(address in prefix for prefix in held)}
    assert SourceIndex(sources).services(address) == expected


@given(SOURCES, prefixes())
def test_holders_of_a_prefix_contain_all_of_it(sources: dict[str, list[Prefix]], wanted: Prefix) -> None:
    expected = {
        name
        for name, held in sources.items()
        if any(
            prefix.version == wanted.version
            and wanted.network_address in prefix
            and wanted.broadcast_address in prefix
            for prefix in held
        )
    }
    assert SourceIndex(sources).holders(wanted.network_address, wanted.prefixlen) == expected
