"""The sockets tier: a plan's listeners as open sockets."""

import asyncio
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice

from marchproxy.dataplane.agreement import KernelAnswer
from marchproxy.dataplane.capture.packet import Feed
from marchproxy.dataplane.capture.wish import Wish
from marchproxy.dataplane.carried import Carried
from marchproxy.dataplane.flowquery import FlowPage, FlowQuestion, page_of
from marchproxy.dataplane.flowtotals import FlowTotals, Grouping
from marchproxy.dataplane.hostaddresses import is_local
from marchproxy.dataplane.naming import ServiceNames
from marchproxy.dataplane.proxy.ledger import Conversation, Ledger, count
from marchproxy.dataplane.proxy.sockets import expect_descriptors, open_listener
from marchproxy.dataplane.proxy.tcp import TcpCarrier, TcpLimits, TcpListener
from marchproxy.dataplane.proxy.udp import UdpCarrier, UdpLimits, UdpListener
from marchproxy.dataplane.records import (
    BackendLoad,
    Decision,
    Denials,
    EventKind,
    EventSink,
    Flow,
    InterfaceState,
    LimitState,
    TableFill,
    Traffic,
)
from marchproxy.model.address import IPAddress
from marchproxy.model.errors import Conflict
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason
from marchproxy.policy.evaluate import Query
from marchproxy.policy.plan import WILDCARDS, Listener, ListenerKey, Plan, listener_key
from marchproxy.policy.pools import compared

RESERVED_DESCRIPTORS = 512
"""For listeners, health checks (250), clients of the control socket, the store and the interpreter."""
_EXPIRE_EVERY = 1.0
_LOOK_EVERY = 10.0
"""Seconds between two looks at whether listen addresses are on this host."""

type Open = TcpListener | UdpListener


class SocketsTier:
    """Carries TCP and UDP through this process, in the loop's thread. Implements `Tier`."""

    def __init__(self, *, tcp: TcpLimits | None = None, udp: UdpLimits | None = None) -> None:
        """Limits default to what the process may open (RLIMIT_NOFILE)."""
        default_tcp, default_udp = default_limits(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self._tcp_limits = tcp or default_tcp
        self._udp_limits = udp or default_udp
        self._plan = Plan()
        self._open: dict[ListenerKey, Open] = {}
        self._absent: list[str] = []
        self._expired_at = self._looked_at = 0.0
        self._ledger = Ledger()
        self._tcp = TcpCarrier(self._ledger, self._tcp_limits)
        self._udp = UdpCarrier(self._ledger, self._udp_limits)

    @property
    def name(self) -> str:
        """`sockets`."""
        return "sockets"

    async def start(self, sink: EventSink) -> None:
        """Report to `sink` from now on."""
        self._ledger.sink = sink

    async def apply(self, plan: Plan, revision: int) -> None:
        """Open what is new, decide by `plan`, close what is gone. Raises before anything has changed."""
        wanted = _needed(plan.carried)
        expect_descriptors(len(wanted))
        opened = self._open_new({key: wanted[key] for key in wanted if key not in self._open})
        self._ledger.adopt(plan, revision)
        self._plan = plan
        self._tcp.recheck()
        self._udp.recheck()
        self._open.update(opened)
        for listener in opened.values():
            listener.start()
        for gone in [key for key in self._open if key not in wanted]:
            self._close_listener(gone)
        self._look()

    async def poll(self) -> None:
        """Expire the idle, and look whether listen addresses have come or gone."""
        now = time.monotonic()
        if now - self._expired_at >= _EXPIRE_EVERY:
            self._expired_at = now
            self._tcp.expire()
            self._udp.expire()
        if now - self._looked_at >= _LOOK_EVERY:
            self._look()

    async def want(self, kinds: frozenset[EventKind]) -> None:
        """Report only these kinds of events from now on."""
        self._ledger.wanted = kinds

    async def flows(self, limit: int) -> Sequence[Flow]:
        """Live conversations."""
        return [conversation.flow() for conversation in islice(self._live(), limit)]

    async def page(self, question: FlowQuestion, services: ServiceNames) -> FlowPage:
        """See `Tier.page`."""
        return page_of(self._completed(services), question)

    async def totals(self, by: Grouping, services: ServiceNames) -> FlowTotals:
        """See `Tier.totals`."""
        return FlowTotals.of(self._completed(services), by)

    async def count(self, services: Callable[[], ServiceNames]) -> None:
        """See `Tier.count`. It is counted as long as this is there."""

    async def carried(self, services: ServiceNames) -> Carried:
        """See `Tier.carried`."""
        return await count(self._ledger, self._live())

    async def in_use(self, addresses: frozenset[IPAddress]) -> frozenset[IPAddress]:
        """See `Tier.in_use`."""
        ends = {
            end
            for item in self._live()
            for end in (item.query.source, item.query.destination, item.backend and item.backend.address)
        }
        return frozenset(address for address in addresses if address in ends)

    async def capture(self, wish: Wish) -> Feed:
        """See `Tier.capture`."""
        raise Conflict(
            "packets are captured in the kernel, and this daemon carries connections by sockets",
            hint="see tier in: marchproxy status; tcpdump shows what the host itself sends and receives",
        )

    async def cut(self, ids: frozenset[int]) -> frozenset[int]:
        """See `Tier.cut`."""
        return frozenset(self._tcp.cut(ids) | self._udp.cut(ids))

    async def rehearse(self, query: Query) -> KernelAnswer | str:
        """See `Tier.rehearse`."""
        return "the sockets tier carries, which has no program in the kernel"

    def counters(self) -> Mapping[Reason, Traffic]:
        """See `ledger` for what packets and bytes mean here."""
        return self._ledger.counters()

    def denials(self) -> Sequence[Denials]:
        """See `Tier.denials`."""
        return self._ledger.denials()

    async def untold(self) -> Sequence[Decision]:
        """None: each refusal is told at once."""
        return ()

    def limits(self) -> Sequence[LimitState]:
        """See `Tier.limits`."""
        return self._ledger.limits.states()

    def loads(self) -> Sequence[BackendLoad]:
        """See `Tier.loads`."""
        return [
            BackendLoad(each.service, each.address, each.port, self._ledger.established(each))
            for each in compared(self._plan)
        ]

    def interfaces(self) -> Sequence[InterfaceState]:
        """The plan's interfaces: nothing is attached to them, sockets receive from all."""
        return [
            InterfaceState(interface.name, interface.role, interface.mode.value, attached="")
            for interface in self._plan.interfaces
        ]

    def fill(self) -> Sequence[TableFill]:
        """Connections and sessions."""
        return [
            TableFill("connections", len(self._tcp.live), self._tcp_limits.connections),
            TableFill("sessions", len(self._udp.live), self._udp_limits.sessions),
        ]

    def lost_events(self) -> int:
        """None: they are handed over one by one."""
        return 0

    def problems(self) -> Sequence[str]:
        """Listeners that cannot accept, or whose address is not here; what sockets cannot carry or keep."""
        paused = {item.overloaded for item in self._open.values() if isinstance(item, TcpListener)} - {""}
        pauses = (f"accepting connections pauses: {why}" for why in sorted(paused))
        return [*pauses, *self._absent, *_uncarried(self._plan), *self._ledger.limits.problems()]

    async def drain(self, seconds: float) -> None:
        """Stop accepting, wait for connections to end, then end what is left. Sessions go on meanwhile."""
        for key in [key for key, item in self._open.items() if isinstance(item, TcpListener)]:
            self._close_listener(key)
        self._udp.draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._tcp.empty.wait()
        except TimeoutError:
            pass
        await self.close()

    async def close(self) -> None:
        """End everything and close all sockets."""
        await self._tcp.close()
        self._udp.close()
        for key in list(self._open):
            self._close_listener(key)

    def _live(self) -> Iterator[Conversation]:
        return chain(
            (connection.conversation for connection in self._tcp.live),
            (session.conversation for session in self._udp.live.values()),
        )

    def _completed(self, services: ServiceNames) -> Iterator[Flow]:
        return (services.complete_flow(each.flow()) for each in self._live())

    def _open_new(self, wanted: Mapping[ListenerKey, Listener]) -> dict[ListenerKey, Open]:
        opened: dict[ListenerKey, Open] = {}
        try:
            for key, listener in wanted.items():
                sock = open_listener(listener)
                opened[key] = (
                    TcpListener(sock, self._tcp)
                    if listener.transport is Transport.TCP
                    else UdpListener(sock, listener, self._udp)
                )
        except BaseException:
            for item in opened.values():
                item.socket.close()
            raise
        return opened

    def _close_listener(self, key: ListenerKey) -> None:
        item = self._open.pop(key)
        if isinstance(item, UdpListener):
            others = (other for at, other in self._open.items() if _port(at) == _port(key))
            self._udp.hand_over(
                item, next((other for other in others if isinstance(other, UdpListener)), None)
            )
        item.close()

    def _look(self) -> None:
        self._looked_at = time.monotonic()
        addresses = {listener.address for listener in self._plan.carried} - set(WILDCARDS.values())
        self._absent = [
            f"listen address {address} is on no interface of this host"
            for address in sorted(addresses, key=lambda address: (address.version, int(address)))
            if not is_local(address)
        ]


def _uncarried(plan: Plan) -> Iterator[str]:
    """A host that routes lets everything through or nothing: no socket sees what is not for the host."""
    allowing = dict.fromkeys(rule.mapping for rule in plan.transit if rule.reason is Reason.FORWARDED)
    if allowing:
        more = f" and {len(allowing) - 1} more" if len(allowing) > 1 else ""
        yield f"routed traffic is not carried without BPF: mapping {next(iter(allowing))}{more}"


def default_limits(descriptors: int) -> tuple[TcpLimits, UdpLimits]:
    """Three quarters of the descriptors for TCP, two a connection; the rest for UDP, one a session."""
    free = max(descriptors - RESERVED_DESCRIPTORS, 16)
    return TcpLimits(connections=min(free * 3 // 8, 50_000)), UdpLimits(sessions=min(free // 4, 16_384))


def _needed(listeners: Iterable[Listener]) -> dict[ListenerKey, Listener]:
    """The listeners that need a socket: one of a single address does not where its wildcard has one.

    The policy still tells them apart, by the address a client asked for.
    """
    every = {listener_key(item.transport, item.address, item.port): item for item in listeners}
    return {key: item for key, item in every.items() if not key.address or _port(key) not in every}


def _port(key: ListenerKey) -> ListenerKey:
    """The same port of every address."""
    return key._replace(address=0)
