"""Which address a datagram came to, asked of real sockets on loopback."""

import socket
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.proxy import pktinfo
from tests.dataplane.loops import PATIENCE

FAMILIES = [
    (socket.AF_INET, socket.IPPROTO_IP, socket.IP_PKTINFO, "0.0.0.0", "127.0.0.1", "127.0.0.2"),
    (socket.AF_INET6, socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, "::", "::1", "::1"),
]


@pytest.mark.parametrize(("family", "level", "option", "every", "client", "asked"), FAMILIES)
def test_an_answer_leaves_from_the_address_that_was_asked(
    family: socket.AddressFamily, level: int, option: int, every: str, client: str, asked: str
) -> None:
    with (
        socket.socket(family, socket.SOCK_DGRAM) as server,
        socket.socket(family, socket.SOCK_DGRAM) as asker,
    ):
        server.setsockopt(level, option, 1)
        server.bind((every, 0))
        server.settimeout(PATIENCE)
        asker.bind((client, 0))
        asker.settimeout(PATIENCE)
        asker.sendto(b"question", (asked, server.getsockname()[1]))
        _, ancillary, _, peer = server.recvmsg(100, pktinfo.ANCILLARY)
        assert pktinfo.destination(ancillary) == ip_address(asked)
        server.sendmsg([b"answer"], pktinfo.source(pktinfo.destination(ancillary)), 0, peer)
        data, sender = asker.recvfrom(100)
        assert (data, sender[0]) == (b"answer", asked)


def test_without_the_option_nobody_knows() -> None:
    with pytest.raises(LookupError):
        pktinfo.destination([])
