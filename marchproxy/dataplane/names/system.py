"""What the host itself says about resolving names: /etc/resolv.conf and /etc/hosts, read again on change."""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from marchproxy.model.address import IPAddress
from marchproxy.model.endpoint import Endpoint, parse_endpoint
from marchproxy.model.errors import InvalidValue

log = logging.getLogger(__name__)

RESOLV_CONF = Path("/etc/resolv.conf")
HOSTS = Path("/etc/hosts")
DNS_PORT = 53
LARGEST = 16 << 20
"""Bytes of a file that are read; there are hosts files of many megabytes."""
_MOST_SERVERS = 8
_MOST_SEARCHED = 6
"""As resolv.conf(5)."""

type Hosts = Mapping[str, tuple[IPAddress, ...]]


@dataclass(frozen=True, slots=True)
class Upstreams:
    """Whom to ask, and how."""

    servers: tuple[Endpoint, ...] = ()
    """In order of preference."""
    search: tuple[str, ...] = ()
    """Domains in which names of a single label are looked for."""
    timeout: float = 2.0
    """Seconds that one server gets for one try, 1 to 5."""
    attempts: int = 2
    """Rounds through all servers, 1 to 3."""


def read_resolv_conf(text: str) -> Upstreams:
    """resolv.conf(5). What cannot be read is left out, as by the C library; no server: this host's own."""
    servers: list[Endpoint] = []
    search: tuple[str, ...] = ()
    numbers = {"timeout": 2, "attempts": 2}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0].startswith(("#", ";")):
            continue
        keyword, *values = words
        if keyword == "nameserver" and (address := _address(values[0])):
            servers.append(Endpoint(address, DNS_PORT))
        elif keyword in ("search", "domain"):
            search = tuple(value.lower().strip(".") for value in values if value != ".")
        elif keyword == "options":
            for option in values:
                name, _, number = option.partition(":")
                if name in numbers and number.isascii() and number.isdigit():
                    numbers[name] = int(number[:3])
    return Upstreams(
        servers=tuple(dict.fromkeys(servers))[:_MOST_SERVERS]
        or (Endpoint(ip_address("127.0.0.1"), DNS_PORT),),
        search=search[:_MOST_SEARCHED],
        timeout=float(min(max(numbers["timeout"], 1), 5)),
        attempts=min(max(numbers["attempts"], 1), 3),
    )


def read_resolvers(texts: tuple[str, ...]) -> Upstreams:
    """`Settings.resolvers`: `ADDR` or `ADDR:PORT`, `[v6]:PORT`. Raises `InvalidValue`."""
    return Upstreams(servers=tuple(_endpoint(text) for text in texts))


def read_hosts(text: str) -> dict[str, tuple[IPAddress, ...]]:
    """hosts(5): names in lower case to addresses, in the file's order. Mapped and zoned ones are left out."""
    found: dict[str, dict[IPAddress, None]] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        address = _address(words[0]) if len(words) > 1 else None
        if address is None or (
            isinstance(address, IPv6Address) and (address.ipv4_mapped or address.scope_id)
        ):
            continue
        for name in words[1:]:
            found.setdefault(name.lower().removesuffix("."), {})[address] = None
    return {name: tuple(addresses) for name, addresses in found.items()}


class Watched[T]:
    """What a file says, read again when the file is another one than before."""

    def __init__(self, path: Path, read: Callable[[str], T]) -> None:
        self._path = path
        self._read = read
        self._seen: tuple[int, ...] | None = None
        self._value: T | None = None

    def get(self) -> T:
        """What it says now. A file that cannot be read says what an empty one would."""
        seen, value = self._state(), self._value
        if value is None or seen != self._seen:
            value = self._value = self._read(self._content())
            self._seen = seen
        return value

    def _state(self) -> tuple[int, ...]:
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def _content(self) -> str:
        try:
            # A pipe in its place must not hold up the loop.
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            with open(descriptor, "rb") as file:
                return (file.read(LARGEST) or b"").decode("utf-8", "replace")
        except OSError as error:
            log.warning("%s is not read: %s", self._path, error.strerror)
            return ""


class SystemUpstreams:
    """Whom to ask: the servers of the settings, or else those of resolv.conf as it is at the moment."""

    def __init__(self, path: Path = RESOLV_CONF) -> None:
        self._file = Watched(path, read_resolv_conf)
        self._configured: Upstreams | None = None

    def configure(self, resolvers: tuple[str, ...]) -> None:
        """Take the servers of `Settings.resolvers`; none: the system's. Raises `InvalidValue`."""
        self._configured = read_resolvers(resolvers) if resolvers else None

    def __call__(self) -> Upstreams:
        """Servers, search list and patience. The search list is the system's in any case."""
        system = self._file.get()
        if self._configured is None:
            return system
        return replace(system, servers=self._configured.servers)


def _endpoint(text: str) -> Endpoint:
    address = _address(text)
    if address is not None:
        return Endpoint(address, DNS_PORT)
    endpoint = parse_endpoint(text, field="resolver")
    if endpoint.address is None or endpoint.address.is_unspecified:
        raise InvalidValue("resolver", text, "the address of a DNS server")
    return endpoint


def _address(text: str) -> IPAddress | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
