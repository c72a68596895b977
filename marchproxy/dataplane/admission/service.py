"""Admission beside a tier: the plan's explicit proxies and admitted listeners as open sockets."""

import asyncio
import resource
import socket
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING

from marchproxy.dataplane.admission.arrivals import Arrivals
from marchproxy.dataplane.admission.association import Associations
from marchproxy.dataplane.admission.deadlines import Deadlines
from marchproxy.dataplane.admission.explicit import ExplicitProxy
from marchproxy.dataplane.admission.judge import Credentials, Judge
from marchproxy.dataplane.admission.limits import AdmissionLimits, Gate, default_limits
from marchproxy.dataplane.admission.listening import MappingListeners
from marchproxy.dataplane.admission.listeningsockets import (
    ListeningSockets,
    Prepared,
    explicit_listeners,
    http3_listeners,
    wanted_by,
)
from marchproxy.dataplane.admission.names import AskedAddresses, Find
from marchproxy.dataplane.admission.passing import PassingTls
from marchproxy.dataplane.admission.tunnels import Handover, Tunnels
from marchproxy.dataplane.carried import Carried
from marchproxy.dataplane.credentials.contexts import Contexts
from marchproxy.dataplane.hostaddresses import is_local
from marchproxy.dataplane.http.counts import Changes, Mirrored, by_name
from marchproxy.dataplane.http.rates import Rates
from marchproxy.dataplane.kernel.tunnels import Tunnel as Remembered
from marchproxy.dataplane.proxy.connecting import connect
from marchproxy.dataplane.proxy.ledger import Conversation, Ledger, count
from marchproxy.dataplane.proxy.tcp import TcpListener
from marchproxy.dataplane.quic.handshakes import MOST as MOST_HANDSHAKES
from marchproxy.dataplane.quic.replays import Replays
from marchproxy.dataplane.quic.steering import Steering
from marchproxy.dataplane.records import (
    Denials,
    EventKind,
    EventSink,
    Flow,
    LimitState,
    Outlier,
    TableFill,
    Traffic,
)
from marchproxy.model.address import IPAddress
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason
from marchproxy.policy.evaluate import Query
from marchproxy.policy.plan import (
    WILDCARDS,
    Backend,
    ListenerKey,
    Plan,
)
from marchproxy.policy.tunnels import Wish

if TYPE_CHECKING:
    from marchproxy.dataplane.http.http3.listeners import Http3Listeners
    from marchproxy.dataplane.http.listeners import HttpListeners

EXPIRE_EVERY = 1.0
OFFER_EVERY = 0.1
LOOK_EVERY = 10.0
"""Seconds between two looks at whether listen addresses are on this host."""


class Admission:
    """Opens, serves and closes them, and knows what was let in."""

    def __init__(
        self,
        find: Find,
        credentials: Credentials,
        *,
        handover: Handover | None = None,
        sockets: ListeningSockets | None = None,
        limits: AdmissionLimits | None = None,
        shared: bool = False,
        contexts: Contexts | None = None,
        rates: Rates | None = None,
    ) -> None:
        """`find` looks names up; `handover` gives tunnels to the kernel; `shared`: with a tier that needs
        descriptors for connections too; `contexts` has what TLS is spoken with;
        `rates` counts requests with other processes.
        """
        self.limits = limits or default_limits(resource.getrlimit(resource.RLIMIT_NOFILE)[0], shared=shared)
        self._ledger = Ledger()
        self._judge = Judge(self._ledger, credentials)
        self._gate = Gate(self.limits)
        self._names = AskedAddresses(find)
        self._tunnels = Tunnels(self._judge)
        self._handover = self._tunnels.handover = handover
        self._associations = Associations(self._judge, self._names, self.limits)
        connecting = handover.connect if handover else connect
        contexts = contexts or Contexts()
        self._parts = self._judge, self._tunnels, self._gate, self.limits, connecting, contexts
        self._explicit = ExplicitProxy(*self._parts, self._names, self._associations)
        self._mappings = MappingListeners(*self._parts)
        self._passing = PassingTls(*self._parts)
        self._rates = rates
        self._contexts = contexts
        self._steering = Steering()
        self._replays: Replays | None = None
        self._http: HttpListeners | None = None
        """There once some plan has wanted it: for who only passes bytes on it is megabytes for nothing."""
        self._http3: Http3Listeners | None = None
        """The same: what it needs takes longer to load than all the rest."""
        self._open: dict[ListenerKey, TcpListener] = {}
        self._sockets = sockets or ListeningSockets()
        self._plan = Plan()
        self._deadlines = Deadlines()
        self._absent: list[str] = []
        self._expired_at = self._looked_at = 0.0

    @property
    def ready(self) -> bool:
        """Whether anything is open, or could come."""
        return bool(self._open or self._tunnels.live)

    def start(self, sink: EventSink) -> None:
        """Report to `sink` from now on. The tier has started."""
        self._ledger.sink = sink
        if self._handover:
            self._handover.start()

    def want(self, kinds: frozenset[EventKind]) -> None:
        """Report only these kinds of events from now on."""
        self._ledger.wanted = kinds

    def steer(self, steering: Steering, replays: Replays) -> None:
        """From now on give out these connection IDs of QUIC, and know together with others what was said
        early: where several processes share ports.
        """
        self._steering, self._replays = steering, replays

    def prepare(self, plan: Plan) -> Prepared:
        """Open what `plan` needs and is not open. Raises `MarchproxyError`, and nothing has changed.

        `Prepared.commit` or `Prepared.abandon` must follow.
        """
        return Prepared(self, self._sockets, plan, self._sockets.open(plan))

    def adopt(
        self,
        plan: Plan,
        revision: int,
        wanted: frozenset[ListenerKey],
        opened: Mapping[ListenerKey, socket.socket],
    ) -> None:
        """Decide by `plan`, serve `opened`, close what is not `wanted`. For `Prepared`."""
        if any(listener.reads_http for listener in plan.listeners):
            # First: where it cannot be loaded nothing has changed.
            self._reads_http()
        self._judge.adopt(plan, revision)
        self._plan = plan
        self._deadlines = Deadlines.of(plan)
        self._tunnels.ripe_bytes = plan.settings.handoff_bytes
        self._tunnels.hands_over = bool(plan.settings.handoff_bytes or plan.settings.handoff_seconds)
        self._tunnels.recheck()
        self._associations.recheck()
        if self._http:
            self._http.recheck()
        if self._handover:
            self._handover.end_where(self._held_refusal)
        explicit = explicit_listeners(plan)
        for key in self._open.keys() & wanted:
            self._open[key].carrier = self._reception(key, explicit)
        self._serve_http3(plan, wanted, opened)
        for key, sock in opened.items():
            if key.transport == Transport.UDP.number:
                continue
            listener = self._open[key] = TcpListener(
                sock, self._reception(key, explicit), self._steering.count, lambda: self._gate.room
            )
            listener.start()
        for gone in self._open.keys() - wanted:
            self._open.pop(gone).close()
        self._look()

    def _serve_http3(
        self, plan: Plan, wanted: frozenset[ListenerKey], opened: Mapping[ListenerKey, socket.socket]
    ) -> None:
        spoken = {key: item for key, item in http3_listeners(plan).items() if key in wanted}
        if self._http3 is None:
            if not spoken:
                return
            from marchproxy.dataplane.http.http3.listeners import Http3Listeners

            parts = self._reads_http().site, self._judge, self._gate, self._contexts
            self._http3 = Http3Listeners(*parts, self._steering, self._replays)
        self._http3.recheck()
        self._http3.serve({key: sock for key, sock in opened.items() if key in spoken}, spoken)

    async def inform(self) -> None:
        """Returns when a new plan, and credentials that have changed, hold. Here they do at once."""

    async def settle(self) -> None:
        """Returns when what has happened is told, or after a moment. Here it is at once."""

    def poll(self) -> None:
        """Called about four times a second: expire what is idle or too old."""
        now = asyncio.get_running_loop().time()
        settings = self._plan.settings
        self._tunnels.offer(settings.handoff_bytes, settings.handoff_seconds)
        if now - self._expired_at >= EXPIRE_EVERY:
            self._expired_at = now
            self._tunnels.expire(settings.tunnel_idle, self._deadlines)
            self._associations.expire(settings.timeout_udp, self._deadlines)
            for speaker in self._speakers():
                speaker.tick()
            if self._handover and self._deadlines:
                self._handover.end_where(self._overdue)
        if now - self._looked_at >= LOOK_EVERY:
            self._look()

    async def flows(self, limit: int) -> Sequence[Flow]:
        """Live conversations, at most `limit`."""
        return [conversation.flow() for conversation in islice(self._live(), limit)]

    async def in_use(self, addresses: frozenset[IPAddress]) -> frozenset[IPAddress]:
        """See `Tier.in_use`."""
        ends = {end for each in self._live() for end in (each.query.source, each.query.destination)}
        ends |= {each.backend.address for each in self._live() if each.backend}
        return addresses & ends

    def counters(self) -> Mapping[Reason, Traffic]:
        """Packets and bytes by reason; see `ledger` for what they mean."""
        return self._ledger.counters()

    def denials(self) -> Sequence[Denials]:
        """What was refused, and let through by audit, by reason and mapping."""
        return self._ledger.denials()

    async def carried(self) -> Carried:
        """What was let in has carried since start, as far as the kernel has not."""
        return await count(self._ledger, self._live())

    def limit_states(self) -> Sequence[LimitState]:
        """What each limit of the plan has let through and dropped."""
        return self._ledger.limits.states()

    def fill(self) -> Sequence[TableFill]:
        """Clients, let in or not."""
        if not self.ready:
            return []
        tables = [
            TableFill("tunnels", self._gate.inside, self.limits.connections),
            TableFill("associations", len(self._associations.live), self.limits.associations),
        ]
        if self._http3:
            tables.append(TableFill("quic-handshakes", self._http3.handshakes, MOST_HANDSHAKES))
        return tables

    def outliers(self) -> Sequence[Outlier]:
        """Backends that requests leave out for a while."""
        return self._http.care.outliers() if self._http else []

    def request_counts(self) -> Mapping[str, int]:
        """What was done about requests and backends since the start, by name."""
        return self._http.request_counts() if self._http else by_name(Changes(), Mirrored())

    def problems(self) -> Sequence[str]:
        """Listeners that cannot accept, or whose address is not here."""
        paused = {listener.overloaded for listener in self._open.values()} - {""}
        pauses = (f"accepting connections pauses: {why}" for why in sorted(paused))
        return [*pauses, *self._absent, *filter(None, [self._sockets.unserved])]

    async def cut(self, ids: frozenset[int]) -> set[int]:
        """End conversations by their ids. Returns those that there were."""
        ended = self._tunnels.cut(ids) | self._associations.cut(ids)
        return ended.union(*(speaker.cut(ids) for speaker in self._speakers()))

    async def revoke(self, token: str) -> int:
        """End what a credential opened; see `Tunnels.revoke`."""
        count = self._tunnels.revoke(token) + self._associations.revoke(token)
        count += sum(speaker.revoke(token) for speaker in self._speakers())
        if self._handover:
            count += self._handover.revoke(token)
        return count

    def leave_ports(self) -> None:
        """Let go of what keeps another daemon from opening its sockets: QUIC is heard at the very socket."""
        if self._http3:
            self._http3.close()

    async def drain(self, seconds: float) -> None:
        """Stop accepting, wait for clients to be refused, for tunnels to end or to go to the kernel, then
        end what is left.
        """
        self._stop_accepting()
        for speaker in self._speakers():
            speaker.drain()
        settings = self._plan.settings
        hands_over = bool(settings.handoff_bytes or settings.handoff_seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._has_clients():
                    # The kernel goes on with what it has, however little that has carried.
                    self._tunnels.offer(1 if hands_over else 0, 0, urgent=True)
                    if self._tunnels.live:
                        await self._tunnels.wait_empty(OFFER_EVERY)
                    else:
                        await asyncio.sleep(OFFER_EVERY)
        await self.close()

    async def close(self) -> None:
        """End everything and close all sockets."""
        self._stop_accepting()
        self._sockets.close()
        await self._explicit.close()
        await self._mappings.close()
        await self._passing.close()
        if self._http3:
            self._http3.close()
        if self._http:
            await self._http.close()
        await self._names.close()
        await self._associations.close()
        self._tunnels.close()
        if self._handover:
            await self._handover.close()

    def _stop_accepting(self) -> None:
        for key in list(self._open):
            self._open.pop(key).close(kept=self._sockets.is_kept(key))

    def _has_clients(self) -> bool:
        """Whether anybody talks, is connected for or has a tunnel; associations, like sessions, go on."""
        return self._gate.inside > len(self._associations.live)

    def _overdue(self, flow: Flow, held: "Remembered") -> Reason | None:
        """Why it is time for a tunnel that the kernel has; None: it is not."""
        # The record's times are made of the kernel's with the wall clock of its reading, which was just now.
        age = time.time() - flow.started
        return self._deadlines.overdue(flow.decision.mapping, age, held.expires or None)

    def _held_refusal(self, flow: Flow, held: "Remembered") -> Reason | None:
        """Why the plan in force does not allow a tunnel that the kernel has; None: it does."""
        decision = flow.decision
        backend = Backend(flow.backend, flow.backend_port, "")
        if self._ledger.is_blocked(backend):
            return Reason.BLOCKED_DESTINATION
        if blocked := self._judge.tunnels.refuse(decision.source, held.name):
            return blocked.reason
        asked_for = decision.destination, decision.destination_port
        if asked_for == (flow.backend, flow.backend_port):
            answer = self._ledger.evaluator.evaluate(Query(decision.source, *asked_for, Transport.TCP))
        else:
            _, answer = self._ledger.decide(Transport.TCP, decision.source, *asked_for)
            if answer.listener is None:
                # It came to an explicit proxy, which may be gone by now.
                wish = Wish(decision.source, held.name, flow.backend, flow.backend_port)
                answer = self._judge.tunnel(wish)
                if answer.reason is Reason.PRIVATE_ADDRESS:
                    # The name may be one that TLS has told, behind an address that was asked for.
                    answer = self._judge.tunnel(replace(wish, name=""))
        if answer.keeps or answer.opens_itself or held.service in answer.openers:
            return None
        return answer.reason if answer.blocked_by else Reason.POLICY_CHANGED

    def _reception(self, key: ListenerKey, explicit: Container[ListenerKey]) -> Arrivals:
        if key in explicit:
            return self._explicit
        if key in self._judge.ledger.evaluator.reading:
            return self._reads_http()
        return self._mappings if key in self._plan.admitted else self._passing

    def _reads_http(self) -> "HttpListeners":
        if self._http is None:
            from marchproxy.dataplane.http.listeners import HttpListeners

            self._http = HttpListeners(*self._parts, self._rates or Rates())
        return self._http

    def _speakers(self) -> "Sequence[HttpListeners | Http3Listeners]":
        """Who speaks HTTP."""
        return [speaker for speaker in (self._http, self._http3) if speaker is not None]

    def _live(self) -> Iterator[Conversation]:
        return chain(
            (tunnel.conversation for tunnel in self._tunnels.live),
            (each for association in self._associations.live for each in association.conversations),
            *(speaker.conversations for speaker in self._speakers()),
        )

    def _look(self) -> None:
        self._looked_at = asyncio.get_running_loop().time()
        addresses = {listener.address for listener in wanted_by(self._plan).values()} - set(
            WILDCARDS.values()
        )
        self._absent = [
            f"listen address {address} is on no interface of this host"
            for address in sorted(addresses, key=lambda address: (address.version, int(address)))
            if not is_local(address)
        ]
