"""Port sets as operators write them: `443`, `8000-8100`, `22,443,8000-8100`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from marchproxy.model.errors import InvalidValue

MIN_PORT, MAX_PORT = 1, 65535

_NUMBER = re.compile(r"[0-9]{1,5}")
"""Bounded, because `int` refuses more than 4,300 digits with an error of its own."""


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """Ports `first` to `last`, both included, 1 to 65535."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.last + 1))

    def __len__(self) -> int:
        return self.last - self.first + 1


type Ports = tuple[PortRange, ...]


def parse_port(value: str | int, *, field: str = "port") -> int:
    """Read one port number, 1 to 65535."""
    text = str(value).strip()
    if isinstance(value, bool) or not _NUMBER.fullmatch(text) or not MIN_PORT <= int(text) <= MAX_PORT:
        raise InvalidValue(field, value, f"a port number from {MIN_PORT} to {MAX_PORT}")
    return int(text)


def parse_ports(text: str, *, field: str = "ports") -> Ports:
    """Read a list of ports and ranges; overlapping and touching ranges merge: equal sets are equal values."""
    ranges = [parse_range(part, field=field) for part in text.split(",")]
    return merge(ranges)


def parse_range(part: str, *, field: str = "ports") -> PortRange:
    """Read `PORT` or `FIRST-LAST`."""
    first, dash, last = part.strip().partition("-")
    low = parse_port(first, field=field)
    high = parse_port(last, field=field) if dash else low
    if low > high:
        raise InvalidValue(field, part.strip(), f"a range from low to high: {high}-{low}")
    return PortRange(low, high)


def merge(ranges: list[PortRange]) -> Ports:
    """Sort and join ranges."""
    merged: list[PortRange] = []
    for item in sorted(ranges):
        if merged and item.first <= merged[-1].last + 1:
            merged[-1] = PortRange(merged[-1].first, max(merged[-1].last, item.last))
        else:
            merged.append(item)
    return tuple(merged)


def format_ports(ports: Ports) -> str:
    """The canonical text of a port set; empty for the empty set."""
    return ",".join(map(str, ports))


def single_port(ports: Ports) -> int | None:
    """The only port of a set that has exactly one, otherwise None."""
    return ports[0].first if len(ports) == 1 and ports[0].first == ports[0].last else None
