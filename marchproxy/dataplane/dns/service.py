"""Opens and closes the sockets of DNS listeners, as the plan and the interfaces come and go."""

import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from marchproxy.dataplane.dns.responder import Responder
from marchproxy.dataplane.dns.tcp import TcpServer
from marchproxy.dataplane.dns.udp import UdpServer
from marchproxy.dataplane.hostaddresses import is_local
from marchproxy.dataplane.proxy.sockets import open_listener
from marchproxy.dataplane.status import DnsListenerState, DnsState, Problem
from marchproxy.model.address import IPAddress
from marchproxy.model.endpoint import Endpoint
from marchproxy.model.entities import Interface, Role
from marchproxy.model.errors import MarchproxyError
from marchproxy.model.names import LOOPBACK
from marchproxy.model.protocol import Transport
from marchproxy.policy.plan import WILDCARDS, Listener, Plan


@dataclass(frozen=True, slots=True)
class Place:
    """Where two sockets are, UDP and TCP. A device that comes back is another one, told by its index."""

    address: IPAddress
    port: int
    device: str
    index: int


class DnsService:
    """All DNS listeners of the appliance."""

    def __init__(self, responder: Responder) -> None:
        self.responder = responder
        self._binds: tuple[Endpoint, ...] = ()
        self._open: dict[Place, AsyncExitStack] = {}
        self._refused: dict[Place, str] = {}
        self._unreachable = False
        self._absent: list[Endpoint] = []

    def state(self) -> DnsState:
        """The listeners, whom they serve right now, and what became of questions."""
        listeners = [
            DnsListenerState(
                bind, tuple(sorted({place.device for place in self._open if _is_of(place, bind)}))
            )
            for bind in self._binds
        ]
        return DnsState(listeners, dict(self.responder.counts), dict(self.responder.rebinding))

    def problems(self) -> Sequence[Problem]:
        """Listeners that could not be opened."""
        found = sorted(set(self._refused.values()))
        found += [f"listen address {bind.address} is on no interface of this host" for bind in self._absent]
        if self._unreachable:
            found.append("nobody reaches the DNS listener: it serves inside interfaces, and there is none")
        return [Problem("dns", message) for message in found]

    async def look_after(self, plan: Plan) -> None:
        """Have open what `plan` wants on the interfaces that there are; what cannot be is a problem."""
        self._binds = plan.dns
        self._unreachable = bool(plan.dns) and not any(item.role is Role.INSIDE for item in plan.interfaces)
        self._absent = [bind for bind in plan.dns if not _is_here(bind)]
        wanted = set(_places(plan.dns, plan.interfaces))
        for place in self._open.keys() - wanted:
            await self._open.pop(place).aclose()
        self._refused = {}
        for place in sorted(wanted - self._open.keys(), key=str):
            try:
                self._open[place] = await self._serve(place)
            except MarchproxyError as error:
                self._refused[place] = error.message
            except OSError as error:
                self._refused[place] = f"listener {Endpoint(place.address, place.port)}: {error.strerror}"

    async def close(self) -> None:
        """Close everything."""
        while self._open:
            await self._open.popitem()[1].aclose()

    async def _serve(self, place: Place) -> AsyncExitStack:
        respond = self.responder.respond
        async with AsyncExitStack() as stack:
            udp = open_listener(Listener(place.address, place.port, Transport.UDP, ()), device=place.device)
            stack.push_async_callback(UdpServer(udp, respond).close)
            tcp = TcpServer(lambda wire, client, limit: respond(wire, client, limit=limit))
            stack.push_async_callback(tcp.close)
            await tcp.start(
                open_listener(Listener(place.address, place.port, Transport.TCP, ()), device=place.device)
            )
            return stack.pop_all()


def _places(binds: Sequence[Endpoint], interfaces: Iterable[Interface]) -> Iterator[Place]:
    """Every inside interface; and the host itself, where an address is given."""
    indexes = _indexes() if binds else {}
    inside = [item.name for item in interfaces if item.role is Role.INSIDE]
    for bind in binds:
        addresses = WILDCARDS.values() if bind.address is None else (bind.address,)
        devices = inside if _is_wildcard(bind) else [*inside, LOOPBACK]
        for address in addresses:
            for device in devices:
                if device in indexes:
                    yield Place(address, bind.port, device, indexes[device])


def _indexes() -> Mapping[str, int]:
    return {name: index for index, name in socket.if_nameindex()}


def _is_wildcard(bind: Endpoint) -> bool:
    return bind.address is None or bind.address.is_unspecified


def _is_here(bind: Endpoint) -> bool:
    return bind.address is None or bind.address.is_unspecified or is_local(bind.address)


def _is_of(place: Place, bind: Endpoint) -> bool:
    addresses = WILDCARDS.values() if bind.address is None else (bind.address,)
    return place.port == bind.port and place.address in addresses
