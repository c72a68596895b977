"""Listeners of the appliance itself: where they are, and what stands in their way."""

from collections.abc import Iterable, Iterator

from marchproxy.model.address import Prefix
from marchproxy.model.appliance import ApplianceListener, ListenerKind
from marchproxy.model.endpoint import Endpoint
from marchproxy.model.protocol import Transport
from marchproxy.policy.plan import Finding, Listener, Severity


def own_endpoints(own: Iterable[ApplianceListener], kind: ListenerKind) -> tuple[Endpoint, ...]:
    """Where the appliance speaks `kind`, in the order of the snapshot."""
    return tuple([item.bind for item in own if item.kind is kind])


def own_certificates(own: Iterable[ApplianceListener]) -> dict[Endpoint, str]:
    """Where the appliance speaks TLS, with the certificates."""
    return {item.bind: item.tls for item in own if item.tls is not None}


def own_proxies(own: Iterable[ApplianceListener]) -> dict[Endpoint, tuple[Prefix, ...]]:
    """Where others say, by the PROXY protocol, who the client is, and which others."""
    return {item.bind: item.proxy_from for item in own if item.proxy_from}


def own_listener_findings(
    own: Iterable[ApplianceListener], listeners: Iterable[Listener]
) -> Iterator[Finding]:
    """Listeners of mappings that take what is meant for the appliance: the kernel would carry it away."""
    by_port: dict[int, list[ApplianceListener]] = {}
    for item in own:
        for other in by_port.get(item.bind.port, ()):
            if other.kind is not item.kind:
                message = f"has the port of {other.name}, which speaks something else"
                yield Finding(Severity.ERROR, f"listener {item.name}", message, "give one another port")
        by_port.setdefault(item.bind.port, []).append(item)
    for listener in listeners if by_port else ():
        for item in by_port.get(listener.port, ()):
            over_udp = listener.transport is Transport.UDP and item.kind is ListenerKind.EXPLICIT
            if not over_udp and _is_taken(item.bind, listener):
                message = f"listens where {listener.rules[0].mapping} does: {listener} would never reach it"
                yield Finding(
                    Severity.ERROR, f"listener {item.name}", message, "give one of them another port"
                )


def _is_taken(bind: Endpoint, listener: Listener) -> bool:
    if bind.address is None or listener.address == bind.address:
        return True
    same_family = bind.address.version == listener.address.version
    return same_family and (bind.address.is_unspecified or listener.address.is_unspecified)
