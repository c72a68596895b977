"""Whether challenges can be answered at an address and port, as far as what is configured says.

That it can be bound says less: the kernel's programs carry listeners without a socket.
"""

from collections.abc import Iterator

from marchproxy.client.certorigin import HTTP, TLS_ALPN
from marchproxy.model.address import IPAddress
from marchproxy.model.appliance import ListenerKind
from marchproxy.model.endpoint import Endpoint
from marchproxy.model.errors import Conflict
from marchproxy.model.names import qualify
from marchproxy.model.ports import PortRange
from marchproxy.model.protocol import Protocol, Transport
from marchproxy.model.snapshot import Snapshot

_OTHERWISE = {
    HTTP: "let a mapping with this --listen and --path-prefix /.well-known/acme-challenge/ lead to"
    " a service at 127.0.0.1 and another port, and say --challenge-listen 127.0.0.1:PORT",
    TLS_ALPN: "a listener with --tls answers by itself: leave --challenge-listen out",
}
"""What to do where the port is taken, by challenge."""


def expect_free(snapshot: Snapshot, endpoint: Endpoint, challenge: str) -> None:
    """Raise `Conflict` where a mapping or a listener has it."""
    for who, address, ports in _listening(snapshot):
        if endpoint.port in ports and _meet(address, endpoint.address):
            raise Conflict(
                f"{who} listens at {endpoint}, where challenges are to be answered",
                hint=_OTHERWISE[challenge],
            )


def _listening(snapshot: Snapshot) -> Iterator[tuple[str, IPAddress | None, PortRange]]:
    for cluster in snapshot.clusters:
        for mapping in cluster.mappings:
            if mapping.listen is not None and any(map(_is_tcp, mapping.protocols)):
                name = qualify(cluster.name, mapping.name)
                yield f"mapping {name!r}", mapping.listen.address, mapping.listen.ports
    for listener in snapshot.listeners:
        if listener.kind is ListenerKind.EXPLICIT:
            port = listener.bind.port
            yield f"listener {listener.name!r}", listener.bind.address, PortRange(port, port)


def _is_tcp(protocol: Protocol) -> bool:
    return protocol.transport is Transport.TCP


def _meet(one: IPAddress | None, other: IPAddress | None) -> bool:
    """Whether something that is sent to one of them may be for the other."""
    if one is None or other is None or one == other:
        return True
    return one.version == other.version and (one.is_unspecified or other.is_unspecified)
