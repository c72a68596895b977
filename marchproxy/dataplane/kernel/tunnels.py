"""Who opened the flows that user space has handed off: kept in the kernel for the next daemon."""

from collections.abc import Iterator
from dataclasses import dataclass

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.maps import Map


@dataclass(frozen=True, slots=True)
class Tunnel:
    """What admission knew about a connection, and flows do not say."""

    service: str = ""
    """Whose credential it was, `cluster/service`; empty: nobody's. At most 128 bytes of UTF-8."""
    credential: str = ""
    """Which one, by its id in the store. At most 64 bytes."""
    name: str = ""
    """Host that was asked for; what does not fit into 256 bytes is left out."""
    expires: int = 0
    """When the credential does, in seconds since the epoch; 0: never."""


@dataclass(frozen=True, slots=True)
class HeldTunnel:
    """A tunnel with the flow that it is of."""

    id: int
    key: bytes
    """`mp_flow_key` of the client's direction. The flow there may be another one by now: compare ids."""
    tunnel: Tunnel


class TunnelTable:
    """The map `tunnels`. Entries go when their flow does (see `Splices.settle`)."""

    def __init__(self, tunnels: Map) -> None:
        self._map = tunnels

    def put(self, held: HeldTunnel) -> None:
        """Enter one. `MapFull`; ValueError where a name does not fit."""
        self._map.set(layouts.U64.pack(held.id), _pack(held))

    def get(self, id: int) -> HeldTunnel | None:
        """That of a flow."""
        raw = self._map.get(layouts.U64.pack(id))
        return _read(id, raw) if raw else None

    def delete(self, id: int) -> None:
        """Forget one, if it is there."""
        self._map.delete(layouts.U64.pack(id))

    def __iter__(self) -> Iterator[HeldTunnel]:
        for key, raw in self._map.items():
            yield _read(layouts.U64.unpack(key)[0], raw)


def _pack(held: HeldTunnel) -> bytes:
    tunnel = held.tunnel
    service, credential = tunnel.service.encode(), tunnel.credential.encode()
    if len(service) > 128 or len(credential) > 64:
        raise ValueError(f"names too long for the table of tunnels: {tunnel}")
    # `struct` cuts off what is too long and fills up with NUL what is too short.
    return layouts.TUNNEL.struct.pack(held.key, tunnel.expires, service, credential, tunnel.name.encode())


def _read(id: int, raw: bytes) -> HeldTunnel:
    key, expires, service, credential, name = layouts.TUNNEL.struct.unpack(raw)
    return HeldTunnel(id, key, Tunnel(_text(service), _text(credential), _text(name), expires))


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")
