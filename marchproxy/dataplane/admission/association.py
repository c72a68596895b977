"""SOCKS5 UDP ASSOCIATE: datagrams of one client, each judged by policy for where it goes.

An association is a TCP connection that only says how long, a socket that the client sends to, and a socket
towards the world for each family. Whom the client has sent to, and nobody else, may answer.
"""

import asyncio
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from marchproxy.dataplane.admission.arrivals import Client
from marchproxy.dataplane.admission.deadlines import Deadlines
from marchproxy.dataplane.admission.dialling import interleaved
from marchproxy.dataplane.admission.judge import Judge, opened_by
from marchproxy.dataplane.admission.limits import AdmissionLimits, source_key
from marchproxy.dataplane.admission.names import AskedAddresses
from marchproxy.dataplane.credentials.book import Verified
from marchproxy.dataplane.proxy import sockets
from marchproxy.dataplane.proxy.ledger import Conversation
from marchproxy.dataplane.proxy.protocol.exchange import Bound, Opened
from marchproxy.dataplane.proxy.protocol.socks5_udp import Datagram, build_datagram, parse_datagram
from marchproxy.dataplane.tasks import Tasks
from marchproxy.model.address import IPAddress
from marchproxy.model.presented import Presented
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.evaluate import Answer, Query
from marchproxy.policy.plan import Backend
from marchproxy.policy.tunnels import Wish, plain

DATAGRAMS_AT_ONCE = 64
REMEMBERED = 5.0
"""Seconds that a refusal holds for whoever goes on sending."""
LOOKUPS = 8
"""Names that one association may wait for at one time."""

_scratch = memoryview(bytearray(65536))
_NOTHING = Answer(Verdict.DENY, Reason.NO_MAPPING, ())

type Place = tuple[str | IPAddress, int]
"""As the client named it."""
type Peer = tuple[IPAddress, int]


@dataclass(slots=True)
class _Way:
    """Somebody that the client talks to."""

    wish: Wish
    verified: Verified | None
    conversation: Conversation


class Association:
    """One client's datagrams: an `Opening`."""

    def __init__(
        self,
        owner: "Associations",
        control: socket.socket,
        near: socket.socket,
        who: Client,
        credential: Presented | None,
        leave: Callable[[], None],
    ) -> None:
        self._owner = owner
        self._control = control
        self._near = near
        self._who = who
        self._credential = credential
        self._leave = leave
        self._loop = asyncio.get_running_loop()
        self._client: tuple[str, int] | None = None
        self._far: dict[int, socket.socket] = {}
        self._ways: OrderedDict[Place, _Way] = OrderedDict()
        self._peers: dict[Peer, Place] = {}
        self._refused: dict[Place, float] = {}
        self._asking: set[Place] = set()
        self._ended = False
        local = near.getsockname()
        self.opened = Opened(sockets.address_of(local[0]), local[1])

    @property
    def source(self) -> IPAddress:
        """Whose it is."""
        return self._who.source

    @property
    def conversations(self) -> list[Conversation]:
        """One for each peer."""
        return [way.conversation for way in self._ways.values()]

    def relay(self, ahead: bytes, bound: Bound | None) -> None:
        """Begin to receive. The connection carries nothing; its end is the association's."""
        self._loop.add_reader(self._control, self._controlled)
        self._loop.add_reader(self._near, self._sent)

    def abandon(self) -> None:
        """See `Opening`."""
        self._near.close()
        self._owner.forget(self)

    def recheck(self) -> None:
        """Let go of peers that the plan in force does not allow."""
        self._refused.clear()
        for place, way in tuple(self._ways.items()):
            if not self._owner.judge.keeps(self._owner.judge.tunnel(way.wish), way.verified):
                self._drop(place, Reason.POLICY_CHANGED)

    def expire(self, idle: float, deadlines: Deadlines) -> None:
        """Let go of peers that have been silent for so many seconds, or are over by the plan in force."""
        for place, way in tuple(self._ways.items()):
            if way.conversation.idle() > idle:
                self._drop(place, Reason.IDLE)
            elif reason := deadlines.overdue_conversation(way.conversation, way.verified):
                self._drop(place, reason)

    def cut(self, ids: frozenset[int]) -> set[int]:
        """Let go of peers by the numbers of their conversations. Returns those that there were."""
        found = {place: way.conversation.number for place, way in self._ways.items()}
        for place, number in found.items():
            if number in ids:
                self._drop(place, Reason.CUT)
        return set(found.values()) & ids

    def revoke(self, token: str) -> int:
        """Let go of peers that this credential opened. Returns how many."""
        found = [place for place, way in self._ways.items() if way.verified and way.verified.token == token]
        for place in found:
            self._drop(place, Reason.AUTH_REVOKED)
        return len(found)

    def end(self, reason: Reason) -> None:
        """It is over."""
        if self._ended:
            return
        self._ended = True
        for place in tuple(self._ways):
            self._drop(place, reason)
        for sock in (self._control, self._near, *self._far.values()):
            self._loop.remove_reader(sock)
            sock.close()
        self._owner.forget(self)
        self._leave()

    def _controlled(self) -> None:
        try:
            data = self._control.recv(4096)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.end(Reason.CLOSED)

    def _sent(self) -> None:
        for _ in range(DATAGRAMS_AT_ONCE):
            try:
                size, sender = self._near.recvfrom_into(_scratch)
            except OSError:
                return
            # The first to send from the client's address is the client (RFC 1928 section 7).
            if plain(sockets.address_of(sender[0])) != self._who.source:
                continue
            if self._client is None:
                self._client = sender[:2]
            if sender[:2] == self._client:
                self._forward(bytes(_scratch[:size]))

    def _forward(self, data: bytes) -> None:
        datagram = parse_datagram(data)
        if datagram is None:
            return
        place = datagram.host, datagram.port
        way = self._ways.get(place)
        if way is not None:
            self._ways.move_to_end(place)
            self._emit(way, datagram.payload)
        elif self._refused.get(place, 0.0) > time.monotonic():
            return
        elif isinstance(datagram.host, str):
            self._look_up(datagram)
        else:
            self._judge(datagram, "", [plain(datagram.host)])

    def _look_up(self, datagram: Datagram) -> None:
        """Datagrams for the same name that come meanwhile are lost, as in any queue that is full."""
        place = datagram.host, datagram.port
        if place in self._asking or len(self._asking) >= LOOKUPS:
            return
        self._asking.add(place)
        self._owner.tasks.start(self._resolve(datagram), name=f"look up for {self._who.source}")

    async def _resolve(self, datagram: Datagram) -> None:
        name, tunnels = str(datagram.host), self._owner.judge.tunnels
        try:
            blocked = tunnels.refuse(self._who.source, name)
            if blocked:
                self._refuse(datagram, name, blocked, blocked.reason)
            elif not tunnels.may_ask(self._who.source, datagram.port, Transport.UDP):
                self._refuse(datagram, name, _NOTHING, Reason.NO_MAPPING)
            else:
                addresses = interleaved(map(plain, await self._owner.names.find(name, self._who.source)))
                if not self._ended:
                    self._judge(datagram, name, addresses)
        except LookupError:
            if not self._ended:
                self._refuse(datagram, name, _NOTHING, Reason.NAME_UNKNOWN)
        finally:
            self._asking.discard((datagram.host, datagram.port))

    def _judge(self, datagram: Datagram, name: str, addresses: Sequence[IPAddress]) -> None:
        """Send to the first address that is allowed; no answer tells which of them would be alive."""
        judge, source, first = self._owner.judge, self._who.source, None
        wishes = [Wish(source, name, address, datagram.port, Transport.UDP) for address in addresses]
        answers = [judge.tunnel(wish) for wish in wishes]
        outcomes = judge.check_all(answers, self._credential, source)
        for wish, answer, outcome in zip(wishes, answers, outcomes, strict=True):
            if isinstance(outcome, Reason):
                first = first or (answer, outcome, wish.address)
            elif outcome is None and not answer.verdict.lets_through:
                first = first or (answer, answer.reason, wish.address)
            elif not judge.ledger.limits.admit(source, time.monotonic()):
                first = (answer, Reason.RATE_LIMITED, wish.address)
                break
            else:
                self._open(datagram, wish, answer, outcome)
                return
        if first:
            self._refuse(datagram, name, first[0], first[1], first[2])

    def _open(self, datagram: Datagram, wish: Wish, answer: Answer, verified: Verified | None) -> None:
        ledger = self._owner.judge.ledger
        while len(self._ways) >= self._owner.limits.peers:
            self._drop(next(iter(self._ways)), Reason.IDLE)
        answer = opened_by(answer, verified)
        conversation = ledger.begin(self._query(wish.address, wish.port), self._who.port, answer, wish.name)
        place = datagram.host, datagram.port
        way = self._ways[place] = _Way(wish, verified, conversation)
        self._peers[wish.address, wish.port] = place
        service = min(answer.destination_services, default="")
        ledger.opened(conversation, Backend(wish.address, wish.port, service))
        self._emit(way, datagram.payload)

    def _emit(self, way: _Way, payload: bytes) -> None:
        address = way.wish.address
        try:
            far = self._far.get(address.version) or self._open_far(address)
            far.sendto(payload, sockets.sockaddr(address, way.wish.port))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._owner.judge.ledger.drop(sockets.refusal_reason(error), len(payload))
            return
        way.conversation.carry(way.conversation.sent, len(payload))

    def _open_far(self, address: IPAddress) -> socket.socket:
        far = self._far[address.version] = sockets.connected_socket(address, Transport.UDP)
        self._loop.add_reader(far, lambda: self._answered(far))
        return far

    def _answered(self, far: socket.socket) -> None:
        for _ in range(DATAGRAMS_AT_ONCE):
            try:
                size, sender = far.recvfrom_into(_scratch)
            except OSError:
                return
            address = sockets.address_of(sender[0])
            way = self._ways.get(self._peers.get((address, sender[1]), ("", 0)))
            if way is None or self._client is None:
                continue
            answer = build_datagram(address, sender[1], bytes(_scratch[:size]))
            try:
                self._near.sendto(answer, self._client)
            except OSError:
                continue
            way.conversation.carry(way.conversation.received, size)

    def _drop(self, place: Place, reason: Reason) -> None:
        way = self._ways.pop(place)
        peer = way.wish.address, way.wish.port
        if self._peers.get(peer) == place:
            del self._peers[peer]
        self._owner.judge.ledger.ended(way.conversation, reason)

    def _refuse(
        self, datagram: Datagram, name: str, answer: Answer, reason: Reason, address: IPAddress | None = None
    ) -> None:
        if len(self._refused) >= self._owner.limits.peers:
            self._refused.clear()
        self._refused[datagram.host, datagram.port] = time.monotonic() + REMEMBERED
        query = self._query(address or self._who.local, datagram.port)
        self._owner.judge.ledger.refuse(
            query, self._who.port, answer, reason, len(datagram.payload), name=name
        )

    def _query(self, address: IPAddress, port: int) -> Query:
        return Query(self._who.source, address, port, Transport.UDP)


class Associations:
    """Those that live."""

    def __init__(self, judge: Judge, names: AskedAddresses, limits: AdmissionLimits) -> None:
        self.judge = judge
        self.names = names
        self.limits = limits
        self.tasks = Tasks()
        self.live: set[Association] = set()

    def open(
        self, control: socket.socket, who: Client, credential: Presented | None, leave: Callable[[], None]
    ) -> Association | None:
        """One more, at the address that the client reached us at; None: there is no room, or this source has
        too many. `leave` is called when it has ended.
        """
        if not self._has_room(who.source):
            return None
        near = sockets.connected_socket(who.local, Transport.UDP)
        try:
            near.bind(sockets.sockaddr(who.local, 0))
        except OSError:
            near.close()
            return None
        association = Association(self, control, near, who, credential, leave)
        self.live.add(association)
        return association

    def _has_room(self, source: IPAddress) -> bool:
        key = source_key(source)
        own = sum(source_key(each.source) == key for each in self.live)
        return len(self.live) < self.limits.associations and own < self.limits.associations_per_source

    def forget(self, association: Association) -> None:
        """It has ended."""
        self.live.discard(association)

    def recheck(self) -> None:
        """Let go of what the plan in force does not allow."""
        for association in tuple(self.live):
            association.recheck()

    def expire(self, idle: float, deadlines: Deadlines) -> None:
        """See `Association.expire`."""
        for association in tuple(self.live):
            association.expire(idle, deadlines)

    def cut(self, ids: frozenset[int]) -> set[int]:
        """End conversations by their numbers. Returns those that there were."""
        return {number for association in self.live for number in association.cut(ids)}

    def revoke(self, token: str) -> int:
        """End what a credential opened, by its number or `jti:…`. Returns how many."""
        return sum(association.revoke(token) for association in self.live)

    async def close(self) -> None:
        """End everything."""
        await self.tasks.stop()
        for association in tuple(self.live):
            association.end(Reason.CLOSED)
