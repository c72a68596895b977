"""An address and port that the appliance opens."""

from dataclasses import dataclass
from ipaddress import IPv6Address

from marchproxy.model.address import IPAddress, parse_ip
from marchproxy.model.errors import InvalidValue
from marchproxy.model.ports import parse_port

_EXPECTED = "ADDR:PORT, [IPV6]:PORT, or *:PORT for every address"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`address` None: every address of both families (`*:PORT`); `0.0.0.0` and `::` mean one family's."""

    address: IPAddress | None
    port: int

    def __str__(self) -> str:
        if self.address is None:
            return f"*:{self.port}"
        if isinstance(self.address, IPv6Address):
            return f"[{self.address}]:{self.port}"
        return f"{self.address}:{self.port}"


def parse_endpoint(text: str, *, field: str = "listen") -> Endpoint:
    """Read `ADDR:PORT`, `[v6]:PORT` or `*:PORT`."""
    host, colon, port = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or (":" in host and not bracketed) or (bracketed and ":" not in host):
        raise InvalidValue(field, text, _EXPECTED)
    try:
        address = None if host == "*" else parse_ip(host[1:-1] if bracketed else host, field=field)
        return Endpoint(address, parse_port(port, field=field))
    except InvalidValue as error:
        raise InvalidValue(field, text, f"{_EXPECTED} ({error.expected})") from error
