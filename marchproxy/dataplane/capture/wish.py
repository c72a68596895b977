"""What somebody wants captured: read from the query of a request, and resolved against the plan."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network

from marchproxy.dataplane.control.filters import read_flag
from marchproxy.model.address import Prefix, parse_prefix
from marchproxy.model.errors import InvalidValue, NotFound
from marchproxy.model.ports import parse_port
from marchproxy.model.protocol import parse_protocol
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import Plan

type Reader = Callable[[str], object]

MAX_DURATION = 86_400
MAX_SIZE = 10_000_000_000
MAX_PACKETS = 100_000_000
MAX_RATE = 10_000
"""What Python can write beside everything else."""
MAX_SNAP = 32_768
"""The kernel's records have 64 KiB at most, headers included."""


@dataclass(frozen=True, slots=True)
class Wish:
    """Which packets, and how many. What is None or empty is not asked about."""

    source: Prefix | None = None
    """Of the client."""
    destination: Prefix | None = None
    """Of what the client asked for."""
    port: int = 0
    """On either side, or the backend's."""
    protocol: str = ""
    """`tcp`, `udp` or `icmp`, the last for both versions of IP."""
    mapping: str = ""
    """`cluster/name`, or the name alone."""
    service: str = ""
    """Likewise; as source, destination or backend."""
    services: tuple[Prefix, ...] = ()
    """The addresses of `service`."""
    reason: Reason | None = None
    denied: bool = False
    """Only what is refused, or let through by audit."""
    rate: int = 1000
    """Packets a second."""
    snap: int = 2048
    """Bytes of each packet."""
    duration: int = 60
    """Seconds."""
    size: int = 64_000_000
    """Bytes of the file."""
    packets: int = 0
    """0: as many as there are. One that leaves again counts twice."""


def read_wish(query: Mapping[str, str]) -> Wish:
    """The parameters of a request. Raises `InvalidValue`."""
    known = {*_FILTERS, *_NUMBERS, "denied"}
    if unknown := set(query) - known:
        raise InvalidValue("parameter", min(unknown), "one of " + ", ".join(sorted(known)))
    given = {name: _FILTERS[name](query[name]) for name in _FILTERS if name in query}
    numbers = {name: _number(name, query[name]) for name in _NUMBERS if name in query}
    return Wish(**given, **numbers, denied=read_flag(query, "denied"))  # type: ignore[arg-type]  # by the tables


def service_prefixes(plan: Plan, text: str) -> tuple[Prefix, ...]:
    """The addresses of a service, host names as they resolve now. Raises `NotFound`."""
    found = dict.fromkeys(_prefixes(plan, text))
    if not found:
        raise NotFound("service", text, hint="or no mapping names it; see: marchproxy service list")
    return tuple(found)


def named(names: Iterable[str], text: str) -> list[str]:
    """Those of the qualified `names` that `text` means: `cluster/name` by itself, and by `name`."""
    return [name for name in names if text in (name, name.partition("/")[2])]


def _prefixes(plan: Plan, text: str) -> Iterator[Prefix]:
    for name in named(plan.sources, text):
        yield from plan.sources[name]
    pools = {id(rule.pool): rule.pool for each in plan.listeners for rule in each.rules if rule.pool}
    for pool in pools.values():
        for backend in pool.backends:
            if named([backend.service], text):
                yield ip_network(backend.address)


def _prefix(field: str) -> Reader:
    return lambda text: parse_prefix(text, field=field)


def _protocol(text: str) -> str:
    transport = parse_protocol(text).transport
    return transport.value if transport else "icmp"


def _reason(text: str) -> Reason:
    try:
        return Reason[text.upper()]
    except KeyError:
        raise InvalidValue("reason", text, "the name of a reason, such as NO_MAPPING") from None


def _number(name: str, text: str) -> int:
    least, most = _NUMBERS[name]
    if not (text.isascii() and text.isdigit()) or len(text) > 12 or not least <= int(text) <= most:
        raise InvalidValue(name, text, f"a number from {least} to {most}")
    return int(text)


_FILTERS: dict[str, Reader] = {
    "source": _prefix("source"),
    "destination": _prefix("destination"),
    "port": parse_port,
    "protocol": _protocol,
    "mapping": str,
    "service": str,
    "reason": _reason,
}
_NUMBERS = {
    "rate": (1, MAX_RATE),
    "snap": (64, MAX_SNAP),
    "duration": (1, MAX_DURATION),
    "size": (1000, MAX_SIZE),
    "packets": (1, MAX_PACKETS),
}
