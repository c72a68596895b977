"""Datagrams of a SOCKS5 association (RFC 1928 section 7): a header with the other end, then the payload."""

from dataclasses import dataclass, field

from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.dataplane.proxy.protocol.socks5_address import format_address, read_address
from marchproxy.model.address import IPAddress

_PREFIX = bytes(3)
"""Two reserved bytes and FRAG."""
MAX_HEADER = 262
"""Bytes of the longest header, with a domain of 255."""


@dataclass(frozen=True, slots=True)
class Datagram:
    """What a client sends to somebody."""

    host: str | IPAddress
    port: int
    """1 to 65535."""
    payload: bytes = field(repr=False)


def parse_datagram(data: bytes) -> Datagram | None:
    """Read a client's datagram; None: it is dropped, because it is malformed or a fragment.

    Implementing fragments is optional in the RFC, and nobody sends them: they would be buffers for strangers.
    """
    if not data.startswith(_PREFIX):
        return None
    try:
        found = read_address(data, len(_PREFIX))
    except Unfit:
        return None
    if found is None or found[1] == 0:
        return None
    host, port, end = found
    return Datagram(host, port, data[end:])


def build_datagram(source: IPAddress, port: int, payload: bytes) -> bytes:
    """What a client gets, from whom it came."""
    return _PREFIX + format_address(source, port) + payload
