"""Addresses on the wire of SOCKS5 (RFC 1928 section 5): type, address, and port in network byte order."""

from ipaddress import IPv4Address, IPv6Address

from marchproxy.dataplane.proxy.protocol.authority import read_host
from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.model.address import IPAddress
from marchproxy.model.reason import Reason

_IPV4, _DOMAIN, _IPV6 = 1, 3, 4
ADDRESS_TYPE_NOT_SUPPORTED = 0x08


class SocksUnfit(Unfit):
    """Has a reply code of its own, where the reason's is not exact enough."""

    def __init__(self, code: int, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.code = code


def read_address(data: bytes | bytearray, at: int) -> tuple[str | IPAddress, int, int] | None:
    """Host, port and where they end; None: there is more to come. The port may be 0. Raises `Unfit`.

    A domain that is the text of an address is that address.
    """
    length = _length(data, at)
    if length is None or len(data) < at + length + 2:
        return None
    end = at + length
    port = int.from_bytes(data[end : end + 2])
    if data[at] == _DOMAIN:
        return read_host(data[at + 2 : end].decode("latin-1")), port, end + 2
    packed = bytes(data[at + 1 : end])
    return IPv4Address(packed) if data[at] == _IPV4 else IPv6Address(packed), port, end + 2


def format_address(address: IPAddress, port: int) -> bytes:
    """The bytes that `read_address` reads."""
    kind = _IPV4 if isinstance(address, IPv4Address) else _IPV6
    return bytes((kind,)) + address.packed + port.to_bytes(2)


def _length(data: bytes | bytearray, at: int) -> int | None:
    """Bytes of type and address without the port; None: there is more to come. Raises `SocksUnfit`."""
    if len(data) <= at:
        return None
    kind = data[at]
    if kind == _DOMAIN:
        return 2 + data[at + 1] if len(data) > at + 1 else None
    if kind not in (_IPV4, _IPV6):
        raise SocksUnfit(ADDRESS_TYPE_NOT_SUPPORTED, Reason.MALFORMED, "an unknown type of address")
    return 5 if kind == _IPV4 else 17
