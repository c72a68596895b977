"""The block list that comes with MarchProxy."""

from datetime import UTC, datetime
from ipaddress import ip_address, ip_network

from marchproxy.model.blockfile import read_blocks
from marchproxy.model.inward import inward
from marchproxy.model.martians import MARTIANS


def test_every_line_is_a_prefix_and_none_is_twice() -> None:
    reading = read_blocks([text for text, _ in MARTIANS], datetime.now(UTC))
    assert reading.bad == ()
    assert len(reading.contents) == len(MARTIANS)


def test_what_a_host_needs_is_not_in_it() -> None:
    """DHCP, neighbour discovery, multicast, loopback, private networks, and the whole of the world's."""
    needed = (
        *("0.0.0.0", "255.255.255.255", "127.0.0.1", "169.254.1.1", "224.0.0.1", "::", "::1", "fe80::1"),
        *("ff02::1", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "fd00::1", "8.8.8.8", "2a00::1"),
    )
    for text in needed:
        assert not any(ip_address(text) in ip_network(prefix) for prefix, _ in MARTIANS), text


def test_what_is_inward_there_is_reserved_or_deprecated() -> None:
    first = {prefix: inward(ip_network(prefix)[0]) for prefix, _ in MARTIANS}
    assert set(first.values()) <= {"", "a reserved address", "a private address"}
    assert [prefix for prefix, kind in first.items() if kind == "a private address"] == ["fec0::/10"]
