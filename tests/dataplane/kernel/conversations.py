"""Flows as the programs write them, in few words."""

import time
from dataclasses import dataclass
from ipaddress import ip_address

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.maps import Map

SECOND = 10**9


def now() -> int:
    """Kernel time."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


@dataclass(frozen=True, slots=True)
class Conversation:
    """A client at a listener, and what the programs made of it. Ages in seconds."""

    client: str = "10.0.0.1"
    port: int = 40000
    listener: str = "192.0.2.1"
    listen_port: int = 80
    protocol: int = layouts.TCP
    state: int = layouts.STATE_ESTABLISHED
    closing: int = 0
    age: float = 0
    reply_age: float = 0
    id: int = 7
    mapping: int = 1
    backend: str = "10.2.0.2"
    nat_port: int = 4096
    ifindex: int = 1
    splice: int = 0
    """Its place, of one that user space has handed off."""
    sent: int = 3
    """Packets, of 100 bytes each, as `received`."""
    received: int = 2

    @property
    def own(self) -> str:
        """The appliance towards the backend."""
        return "fd02::1" if ":" in self.backend else "10.2.0.1"

    @property
    def key(self) -> bytes:
        """As the client asked."""
        return _key(self.client, self.listener, self.port, self.listen_port, self.protocol)

    @property
    def reply_key(self) -> bytes:
        """As the backend answers."""
        return _key(self.backend, self.own, 8080, self.nat_port, self.protocol)

    @property
    def entry(self) -> bytes:
        """Client to backend."""
        return self._flow(self.own, self.backend, self.nat_port, 8080, self.age, self.sent, 0)

    @property
    def reply(self) -> bytes:
        """Backend to client."""
        return self._flow(
            *(self.listener, self.client, self.listen_port, self.port),
            *(self.reply_age, self.received, layouts.FLAG_REPLY),
        )

    def put(self, table: Map) -> "Conversation":
        """Both directions."""
        table.update_many([(self.key, self.entry), (self.reply_key, self.reply)])
        return self

    def _flow(
        self, source: str, destination: str, sport: int, dport: int, age: float, packets: int, flags: int
    ) -> bytes:
        seen = now() - int(age * SECOND)
        return layouts.FLOW.struct.pack(
            *(_address(source), _address(destination), layouts.pack_port(sport), layouts.pack_port(dport)),
            *(self.ifindex, seen, packets, packets * 100, 0, 0, 1500, bytes(6), bytes(6), self.state),
            *(flags | self.closing | (layouts.FLAG_SPLICED if self.splice else 0), 1),
            *(self.id, seen - SECOND, self.mapping, 5, 0, self.splice),
        )


def _key(source: str, destination: str, sport: int, dport: int, protocol: int) -> bytes:
    return layouts.FLOW_KEY.struct.pack(
        _address(source), _address(destination), layouts.pack_port(sport), layouts.pack_port(dport), protocol
    )


def _address(text: str) -> bytes:
    return layouts.pack_address(ip_address(text))
