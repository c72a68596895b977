"""What the health checks are to look after: the backends that are checked, and those that are drained."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from marchproxy.model.address import IPAddress
from marchproxy.model.entities import Service

INTERVAL = 5
"""Seconds between two checks of a backend, unless its service says otherwise; so below."""
TIMEOUT = 2
RISE = 2
FALL = 3


class BackendKey(NamedTuple):
    """A backend as checks tell it from others."""

    service: str
    """Qualified name."""
    address: IPAddress
    port: int
    """0 for a check that asks no port: one ping does for all ports of an address."""


@dataclass(frozen=True, slots=True)
class Check:
    """How to find out whether a backend works."""

    method: str
    """`tcp`, `icmp`, `http`, `https`, `grpc`, or `grpcs`, which is that under TLS."""
    path: str
    """For http and https, where it begins with a slash; for grpc the name of a service, or empty."""
    host: str
    """Whom is asked for, and by TLS in SNI: the service's first host name, else the backend's address."""
    interval: int
    """Seconds, 1 to 3600."""
    timeout: float
    """Seconds, 1 to 60."""
    rise: int
    """Successes in a row that bring it up, 1 to 100."""
    fall: int
    """Failures in a row that bring it down, 1 to 100."""
    certificate: str = ""
    """The qualified name of that which is shown under TLS; empty: none."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A backend of the plan that is checked, drained, or both."""

    backend: BackendKey
    check: Check | None
    """None: not checked."""
    drained: bool


def checked_port(service: Service, port: int) -> int:
    """The port in the key of a backend that is asked on `port`."""
    return 0 if service.health == "icmp" else port


def is_checked(service: Service) -> bool:
    """Whether the backends of a service are checked."""
    return service.health != "none"


def is_drained(service: Service, address: IPAddress) -> bool:
    """Whether the operator wants no new flows there."""
    return bool(service.drain) and str(address) in service.drain


def watch(
    name: str,
    service: Service,
    host: str,
    addresses: Iterable[IPAddress],
    port: int,
    certificate: str = "",
) -> Iterator[Watched]:
    """Those of a service's backends that are checked or drained.

    `name` is qualified, `host` may be empty, `port` is that of `checked_port`, `certificate` as in `Check`.
    """
    for address in addresses:
        check = _check(service, host or str(address), certificate) if is_checked(service) else None
        drained = is_drained(service, address)
        if check or drained:
            yield Watched(BackendKey(name, address, port), check, drained)


def _check(service: Service, host: str, certificate: str) -> Check:
    method, _, path = service.health.partition(":")
    return Check(
        method=method,
        path=path,
        host=host,
        interval=service.health_interval or INTERVAL,
        timeout=service.health_timeout or TIMEOUT,
        rise=service.health_rise or RISE,
        fall=service.health_fall or FALL,
        certificate=certificate,
    )
