"""Addresses of no host in the world: private, of this host, of this link; and IPv6 that embeds them."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network

from marchproxy.model.address import IPAddress, Prefix

_INWARD: tuple[tuple[Prefix, str], ...] = tuple(
    (ip_network(prefix), what)
    for prefix, what in (
        ("0.0.0.0/8", "an unspecified address"),
        ("10.0.0.0/8", "a private address"),
        ("100.64.0.0/10", "a private address"),
        ("127.0.0.0/8", "a loopback address"),
        ("169.254.0.0/16", "a link-local address"),
        ("172.16.0.0/12", "a private address"),
        ("192.168.0.0/16", "a private address"),
        ("224.0.0.0/4", "a multicast address"),
        ("240.0.0.0/4", "a reserved address"),
        ("::/128", "an unspecified address"),
        ("::1/128", "a loopback address"),
        ("64:ff9b:1::/48", "a private address"),
        ("fc00::/7", "a private address"),
        ("fe80::/10", "a link-local address"),
        ("fec0::/10", "a private address"),
        ("ff00::/8", "a multicast address"),
    )
)
"""RFC 6890 and its successors. Documentation and benchmark networks are nobody's inside."""

_COMPATIBLE = IPv6Network("::/96")
_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_6TO4 = IPv6Network("2002::/16")


def inward(address: IPAddress) -> str:
    """What kind of inward address it is, also where IPv6 only embeds one; empty for one of the world's."""
    for prefix, what in _INWARD:
        if address.version == prefix.version and address in prefix:
            return what
    inner = embedded(address) if isinstance(address, IPv6Address) else None
    found = inward(inner) if inner is not None else ""
    return f"{found} inside IPv6" if found else ""


def embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that packets to `address` may end at: RFC 4291 2.5.5, RFC 6052, RFC 3056."""
    number = int(address)
    if address in _MAPPED or address in _COMPATIBLE or address in _NAT64:
        return IPv4Address(number & 0xFFFFFFFF)
    if address in _6TO4:
        return IPv4Address(number >> 80 & 0xFFFFFFFF)
    return None
