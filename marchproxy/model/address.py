"""Addresses as operators write them: IPv4, IPv6, CIDR, or a host name."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from marchproxy.model.errors import InvalidValue

type IPAddress = IPv4Address | IPv6Address
type Prefix = IPv4Network | IPv6Network

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_PREFIX_EXPECTED = "a prefix such as 10.0.0.0/8"
_NAME_EXPECTED = "a host name such as db.example.com"
_EXPECTED = f"an IPv4 or IPv6 address, a prefix such as 10.0.0.0/8, or {_NAME_EXPECTED} or *.example.com"
_WILDCARD = "*."


@dataclass(frozen=True, slots=True, order=True)
class HostName:
    """A DNS name in lower case without the trailing dot (RFC 1123 section 2.1; 253 characters at most).

    `*.NAME` is every name below NAME, at any depth, and not NAME itself.
    """

    name: str

    @property
    def wildcard(self) -> bool:
        """Whether it stands for many names, which nobody can look up."""
        return self.name.startswith(_WILDCARD)

    def covers(self, name: str) -> bool:
        """Whether a name, in lower case without the trailing dot, is this one or one of these."""
        return name.endswith(self.name[1:]) if self.wildcard else name == self.name

    def __str__(self) -> str:
        return self.name


type Address = IPv4Network | IPv6Network | HostName


def parse_address(text: str, *, field: str = "address") -> Address:
    """Read an address, a prefix or a host name; a single address becomes a /32 or /128 prefix.

    A prefix with host bits set is refused rather than masked: `10.0.0.5/24` is more often a slip than a wish.
    An IPv4-mapped IPv6 address is refused too, because on the wire it is IPv4.
    """
    text = text.strip()
    if "/" in text or ":" in text or _looks_numeric(text):
        return parse_prefix(text, field=field, expected=_EXPECTED)
    try:
        return parse_host_name(text, field=field, wildcard=True)
    except InvalidValue as error:
        raise InvalidValue(field, text, _EXPECTED) from error


def parse_prefix(text: str, *, field: str = "prefix", expected: str = _PREFIX_EXPECTED) -> Prefix:
    """Read an IPv4 or IPv6 prefix, without host bits."""
    try:
        prefix = ip_network(text, strict=True)
    except ValueError as error:
        raise InvalidValue(field, text, _host_bits_hint(text) or expected) from error
    if isinstance(prefix, IPv6Network):
        if prefix.network_address.ipv4_mapped is not None:
            raise InvalidValue(field, text, f"the IPv4 address itself: {prefix.network_address.ipv4_mapped}")
        if prefix.network_address.scope_id is not None:
            raise InvalidValue(field, text, "an address without a zone (%…)")
    return prefix


def parse_ip(text: str, *, field: str = "address") -> IPAddress:
    """Read one IPv4 or IPv6 address, without prefix length or zone."""
    try:
        address = ip_address(text.strip())
    except ValueError as error:
        raise InvalidValue(field, text, "an IPv4 or IPv6 address") from error
    if isinstance(address, IPv6Address) and (address.scope_id is not None or address.ipv4_mapped is not None):
        raise InvalidValue(field, text, "an address without a zone (%…) and not IPv4-mapped")
    return address


def parse_host_name(text: str, *, field: str = "host name", wildcard: bool = False) -> HostName:
    """Read a DNS name, with `wildcard` also `*.NAME`; case and a trailing dot are folded."""
    name = text.lower().removesuffix(".")
    labels = (name.removeprefix(_WILDCARD) if wildcard else name).split(".")
    well_formed = all(_LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit()
    if not well_formed or len(name) > 253:
        raise InvalidValue(field, text, _NAME_EXPECTED)
    return HostName(name)


def is_single(prefix: Prefix) -> bool:
    """Whether the prefix is one address (/32 or /128) and so can be a backend."""
    return prefix.prefixlen == prefix.max_prefixlen


def format_address(address: Address) -> str:
    """The canonical text: single addresses without a prefix length."""
    if isinstance(address, HostName):
        return address.name
    return str(address.network_address) if is_single(address) else str(address)


def address_order(address: Address) -> tuple[int, int, int, str]:
    """Sort key: IPv4 before IPv6 before names, then by value."""
    if isinstance(address, HostName):
        return (9, 0, 0, address.name)
    return (address.version, int(address.network_address), address.prefixlen, "")


def _looks_numeric(text: str) -> bool:
    return text.replace(".", "").isdigit()


def _host_bits_hint(text: str) -> str:
    try:
        masked = ip_network(text, strict=False)
    except ValueError:
        return ""
    return f"a prefix without host bits: {masked}"
