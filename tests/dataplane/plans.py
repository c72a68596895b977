"""Small plans, put together by hand."""

from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from types import MappingProxyType

from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason
from marchproxy.policy.maglev import build_table
from marchproxy.policy.plan import ANYONE, Backend, Listener, Plan, Pool, Rule

LOOPBACK = {"loopback": "127.0.0.0/8"}


def backend(port: int, address: str = "127.0.0.1", service: str = "web") -> Backend:
    return Backend(ip_address(address), port, service)


def pool(*backends: Backend) -> Pool:
    ordered = tuple(sorted(backends, key=lambda item: (int(item.address), item.port)))
    return Pool(ordered, build_table([(f"{item.address}:{item.port}".encode(), 1) for item in ordered]))


def rule(
    *backends: Backend,
    sources: tuple[str, ...] = (ANYONE,),
    reason: Reason = Reason.FORWARDED,
    mapping: str = "m",
) -> Rule:
    return Rule(mapping, 100, sources, (), pool(*backends) if backends else None, reason)


def listener(
    port: int, *rules: Rule, address: str = "127.0.0.1", transport: Transport = Transport.TCP
) -> Listener:
    return Listener(ip_address(address), port, transport, rules)


def plan(*listeners: Listener, sources: Mapping[str, str] = LOOPBACK) -> Plan:
    prefixes = {name: (ip_network(prefix),) for name, prefix in sources.items()}
    return Plan(listeners=listeners, sources=MappingProxyType(prefixes))
