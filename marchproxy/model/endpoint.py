"""Addresses and ports that the appliance opens."""

from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Protocol

from marchproxy.model.address import IPAddress, parse_ip
from marchproxy.model.errors import InvalidValue
from marchproxy.model.ports import PortRange, parse_port, parse_range

_EXPECTED = "ADDR:PORT, [IPV6]:PORT, or *:PORT for every address"
_EXPECTED_RANGE = f"{_EXPECTED}; for PORT also FIRST-LAST"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`address` None: every address of both families (`*:PORT`); `0.0.0.0` and `::` mean one family's."""

    address: IPAddress | None
    port: int

    def __str__(self) -> str:
        return f"{_host(self.address)}:{self.port}"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a mapping listens: one port of an address, or every port of a range; `address` as above."""

    address: IPAddress | None
    ports: PortRange

    def __str__(self) -> str:
        return f"{_host(self.address)}:{self.ports}"


def parse_endpoint(text: str, *, field: str = "listen") -> Endpoint:
    """Read `ADDR:PORT`, `[v6]:PORT` or `*:PORT`."""
    return Endpoint(*_parse(text, parse_port, field, _EXPECTED))


def parse_endpoints(text: str, *, field: str = "listen") -> Endpoints:
    """Read the same, with `FIRST-LAST` where there is more than one port."""
    return Endpoints(*_parse(text, parse_range, field, _EXPECTED_RANGE))


def _host(address: IPAddress | None) -> str:
    if address is None:
        return "*"
    return f"[{address}]" if isinstance(address, IPv6Address) else str(address)


class _ReadPorts[T](Protocol):
    def __call__(self, text: str, /, *, field: str) -> T: ...


def _parse[T](text: str, read: _ReadPorts[T], field: str, expected: str) -> tuple[IPAddress | None, T]:
    host, colon, port = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or (":" in host and not bracketed) or (bracketed and ":" not in host):
        raise InvalidValue(field, text, expected)
    try:
        address = None if host == "*" else parse_ip(host[1:-1] if bracketed else host, field=field)
        return address, read(port, field=field)
    except InvalidValue as error:
        raise InvalidValue(field, text, f"{expected} ({error.expected})") from error
