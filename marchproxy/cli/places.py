"""Where `doctor --path` leads: an address, or the addresses of a service."""

from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING

from marchproxy.client import edits
from marchproxy.model.address import HostName, IPAddress, parse_ip
from marchproxy.model.errors import InvalidValue, NotFound

if TYPE_CHECKING:
    from marchproxy.dataplane.doctor.case import Case
    from marchproxy.model.entities import Service

MOST = 8
"""Addresses of one service: each may take some seconds."""


def places(case: "Case", text: str, cluster: str) -> Sequence[IPAddress]:
    """The addresses to look at. Raises `NotFound`: it is neither address nor service, or has no address."""
    try:
        return [parse_ip(text, field="path")]
    except InvalidValue:
        holder = edits.cluster_of(case.snapshot, cluster) if case.snapshot else None
        service = next((each for each in holder.services if each.name == text), None) if holder else None
    if service is None:
        raise NotFound("service", text, hint="--path takes an address, or a service: marchproxy service list")
    found = list(_addresses(service, case.status["names"] if case.status else {}))
    if not found:
        hint = "it has networks, wildcards or names without an address alone: name an address"
        raise NotFound("address of service", text, hint=hint)
    return found[:MOST]


def _addresses(service: "Service", names: dict[str, list[str]]) -> Iterator[IPAddress]:
    """Single ones, and what names resolve to; a network is many hosts, of which few may exist."""
    for address in service.addresses:
        if isinstance(address, HostName):
            yield from map(ip_address, names.get(str(address), []))
        elif address.num_addresses == 1:
            yield address.network_address
