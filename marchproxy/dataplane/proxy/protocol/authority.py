"""Hosts and ports as clients write them (RFC 3986 section 3.2), where each text has one reading."""

import re
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.model.address import IPAddress, parse_host_name
from marchproxy.model.errors import InvalidValue
from marchproxy.model.reason import Reason

_PORT = re.compile(r"[1-9][0-9]{0,4}")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""As a last label it makes the whole an IPv4 address for some resolvers: `0x7f000001`, `127.1`."""


def read_host(text: str) -> str | IPAddress:
    """Read a host name, to lower case and without trailing dot, or an address without brackets.

    An IPv6 address that embeds an IPv4 address stays what it is: who dials it judges where it leads.
    Raises `Unfit`.
    """
    if not text[-1:].isdigit() and ":" not in text:
        return _host_name(text)
    try:
        address = ip_address(text)
    except ValueError:
        return _host_name(text)
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise Unfit(Reason.MALFORMED, "an address with a zone")
    return address


# Clients ask for the same again and again; what raises is not kept.
@lru_cache(1024)
def read_authority(text: str) -> tuple[str | IPAddress, int | None]:
    """Read `HOST`, `HOST:PORT` or `[IPV6]:PORT`. Raises `Unfit`."""
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host = text
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed != (":" in host):
        raise Unfit(Reason.MALFORMED, "the destination is not HOST:PORT or [IPV6]:PORT")
    return read_host(host[1:-1] if bracketed else host), read_port(port) if colon else None


def read_port(text: str) -> int:
    """Read 1 to 65535 without leading zeros. Raises `Unfit`."""
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise Unfit(Reason.MALFORMED, "a port is a number from 1 to 65535")
    return int(text)


def format_authority(host: str | IPAddress, port: int | None) -> str:
    """The text that `read_authority` reads."""
    name = f"[{host}]" if isinstance(host, IPv6Address) else str(host)
    return name if port is None else f"{name}:{port}"


def _host_name(text: str) -> str:
    try:
        # Lower case of some other letters is ASCII: U+212A would become "k".
        name = parse_host_name(text if text.isascii() else "").name
    except InvalidValue:
        raise Unfit(Reason.MALFORMED, "the destination is not a host name or an address") from None
    if _NUMBER.fullmatch(name.rpartition(".")[2]):
        raise Unfit(Reason.MALFORMED, "the destination is not a host name or an address")
    return name
