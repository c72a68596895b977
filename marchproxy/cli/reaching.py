"""Where a client reaches what `explain --to` names: a service by its mappings, a host by DNS."""

from collections.abc import Iterator, Mapping
from typing import Any

from marchproxy.cli import intent
from marchproxy.cli.context import Environment
from marchproxy.client import edits
from marchproxy.model.address import HostName, IPAddress, parse_host_name, parse_ip
from marchproxy.model.entities import Mapping as Rule
from marchproxy.model.entities import Service
from marchproxy.model.errors import InvalidValue, NotFound
from marchproxy.model.names import ALL, COLLECTION_PREFIX
from marchproxy.model.patterns import Patterns
from marchproxy.model.ports import parse_port
from marchproxy.model.protocol import OVER_HTTP, parse_protocol

_WILDCARDS = {4: "0.0.0.0", 6: "::"}  # noqa: S104  (an address to ask about, not to bind)


def reach(environment: Environment, question: Mapping[str, Any], name: str, cluster: str) -> tuple[str, int]:
    """Address and port (0 for ICMP) to ask about. Raises `NotFound`: `name` is neither service nor host."""
    source = parse_ip(question["source"], field="source")
    port = parse_port(question["port"]) if "port" in question else 0
    holder = edits.cluster_of(intent.read(environment), cluster)
    service = next((item for item in holder.services if item.name == name), None)
    if service is None:
        return _resolve(name, source), port
    transport = parse_protocol(question["protocol"]).transport
    rules = [
        rule
        for rule in holder.mappings
        if _leads_to(rule, service) and transport in {protocol.transport for protocol in rule.protocols}
    ]
    found = next(_listening(rules, service, source, port), None)
    return found or (_own_address(service, source), port)


def reach_url(
    environment: Environment, question: Mapping[str, Any], host: str, port: int, cluster: str
) -> str:
    """The address where a mapping reads requests for a host at that port; else that of the host."""
    source = parse_ip(question["source"], field="source")
    mappings = edits.cluster_of(intent.read(environment), cluster).mappings
    listening = [rule for rule in mappings if rule.listen is not None and port in rule.listen.ports]
    reading = [rule for rule in listening if set(rule.protocols) <= OVER_HTTP]
    patterns = [(rule, Patterns([rule.host]) if rule.host else None) for rule in reading]
    named = [rule for rule, pattern in patterns if pattern and pattern.matching(host)]
    for rule in (*named, *[rule for rule, pattern in patterns if not pattern]):
        address = rule.listen.address if rule.listen else None
        if address is None:
            return _WILDCARDS[source.version]
        if address.version == source.version:
            return str(address)
    return _resolve(host, source)


def _leads_to(rule: Rule, service: Service) -> bool:
    names = {service.name, ALL}
    if service.collection is not None:
        names.add(COLLECTION_PREFIX + service.collection)
    return not names.isdisjoint(rule.destinations)


def _listening(
    rules: list[Rule], service: Service, source: IPAddress, port: int
) -> Iterator[tuple[str, int]]:
    """Where mappings listen: at that port, or at another one while `port` is the backends' own."""
    for wanted in (True, False):
        for rule in rules:
            if rule.listen is None or (port in rule.listen.ports) is not wanted:
                continue
            if not wanted and service.port != port:
                continue
            asked = port if wanted else rule.listen.ports.first
            if rule.listen.address is None:
                yield _WILDCARDS[source.version], asked
            elif rule.listen.address.version == source.version:
                yield str(rule.listen.address), asked


def _own_address(service: Service, source: IPAddress) -> str:
    """No mapping listens for it: what becomes of packets to the service itself is the answer then."""
    for address in service.addresses:
        if not isinstance(address, HostName) and address.version == source.version:
            return str(next(iter(address.hosts())))
    raise NotFound(
        "listener for service",
        service.name,
        hint=f"no mapping listens for it, and it has no IPv{source.version} address",
    )


def _resolve(name: str, source: IPAddress) -> str:
    import socket

    family = socket.AF_INET if source.version == 4 else socket.AF_INET6
    try:
        host = parse_host_name(name, field="to")
        found = socket.getaddrinfo(str(host), None, family, socket.SOCK_STREAM)
    except (InvalidValue, OSError):
        hint = f"expected an address, a service, or a host name with an IPv{source.version} address"
        raise NotFound("service or host", name, hint=hint) from None
    return str(found[0][4][0])
