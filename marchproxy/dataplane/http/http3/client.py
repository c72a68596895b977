"""A client's connection that speaks HTTP/3: many requests at a time, each an exchange on a stream."""

import logging
import time
from typing import Protocol

from aioquic.h3.connection import ErrorCode
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.events import QuicEvent, StopSendingReceived, StreamDataReceived, StreamReset
from cryptography.hazmat.primitives.serialization import Encoding

from marchproxy.dataplane.admission.arrivals import BEFORE_POLICY, Client
from marchproxy.dataplane.credentials.clientcerts import Shown, read_peer
from marchproxy.dataplane.http.conversations import Conversations
from marchproxy.dataplane.http.http3.framing import Framing, Spoilt
from marchproxy.dataplane.http.http3.stream import RequestStream
from marchproxy.dataplane.http.site import Site
from marchproxy.dataplane.http.visitor import Visitor
from marchproxy.dataplane.proxy.ledger import Conversation
from marchproxy.dataplane.proxy.sockets import address_of
from marchproxy.dataplane.quic.connection import Connection, Path
from marchproxy.dataplane.quic.engine import Engine
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason
from marchproxy.policy.tunnels import plain

log = logging.getLogger(__name__)

MOST_WASTED = 100
"""Requests that a client may take back, beyond those that it lets be answered: to ask and take back without
end costs us more than the client (CVE-2023-44487, of HTTP/2)."""
MOST_PIECES = 256
"""Packets that a head may come in. Each costs a look at all that came before."""
HIGH_WATER = 1024 * 1024
"""Bytes of all answers on one connection that the client has not taken, before backends have to wait."""
_VERSION = "TLSv1.3"
"""QUIC has no other (RFC 9001 section 4.2)."""
LEAST_WATER = 32 * 1024
"""The same of one of many streams."""


class Owner(Protocol):
    """Who has accepted the connection."""

    def enter(self, connection: "Http3Connection") -> bool:
        """Its handshake is complete; False: there is no room for it."""

    def move(self, connection: "Http3Connection", who: Client) -> bool:
        """Its client is somewhere else now; False: there is no room for it there."""

    def leave(self, connection: "Http3Connection") -> None:
        """It has ended, after it had entered."""


class Http3Connection:
    """The connection."""

    def __init__(self, site: Site, visitor: Visitor, quic: Connection, owner: Owner) -> None:
        self.site = site
        self.quic = quic
        self.counting = Conversations(site)
        """What requests count for that come from where the client is now."""
        self._former: list[Conversations] = []
        self.framing: Framing
        self.shown: Shown
        """What the handshake has shown of the client."""
        self._visitor = visitor
        self._owner = owner
        self._streams: dict[int, RequestStream] = {}
        self._opened = self._entered = False
        self._next = 0
        """The number of the next stream that nobody has opened."""
        self._last: int | None = None
        """Those from this one on are turned away, unharmed."""
        self._wasted = 0
        self._since = time.monotonic()
        """When it last had a request under way."""

    @property
    def engine(self) -> Engine:
        """What it runs on."""
        return self.quic.engine

    @property
    def visitor(self) -> Visitor:
        """Who asks, by the plan in force."""
        if self._visitor.evaluator is not self.site.ledger.evaluator:
            self._visitor = Visitor(self.site.ledger.evaluator, self._visitor.who)
        return self._visitor

    @property
    def conversations(self) -> tuple[Conversation, ...]:
        """What its requests count for."""
        carried = (each.carrying.conversation for each in self._streams.values() if each.carrying is not None)
        asked = (each for counting in (self.counting, *self._former) for each in counting.every)
        return (*asked, *carried)

    @property
    def water(self) -> int:
        """Bytes of one answer that may wait here."""
        return max(LEAST_WATER, HIGH_WATER // 4 // max(1, len(self._streams)))

    def recheck(self) -> None:
        """End what the plan in force no longer allows."""
        visitor = self.visitor
        if visitor.blocked or not visitor.alternative:
            # Where nobody listens over UDP any more, the socket goes, too.
            self.end(Reason.POLICY_CHANGED)
            return
        for stream in tuple(self._streams.values()):
            if stream.exchange is not None and not stream.exchange.still_allowed():
                stream.give_up(ErrorCode.H3_REQUEST_CANCELLED, reason=Reason.POLICY_CHANGED)

    def tick(self, now: float) -> None:
        """See to what takes too long; called about once a second."""
        for stream in tuple(self._streams.values()):
            stream.tick(now)
        if self._streams:
            self._since = now
        elif now - self._since > self.site.limits.keepalive:
            self.close(ErrorCode.H3_NO_ERROR)
        self.quic.flush_soon()

    def revoke(self, token: str) -> int:
        """End the requests that a credential has opened. Returns how many."""
        opened = [each for each in self._streams.values() if each.opened_by(token)]
        for stream in opened:
            stream.give_up(ErrorCode.H3_REQUEST_CANCELLED, reason=Reason.AUTH_REVOKED)
        return len(opened)

    def drain(self) -> None:
        """Let what is under way be the last (RFC 9114 section 5.2)."""
        if self._last is not None or not self._entered:
            return
        self._last = self._next
        self.framing.go_away(self._last)
        self._close_drained()
        self.quic.flush_soon()

    def end(self, reason: Reason = Reason.RESET) -> None:
        """End at once; `reason` says why, in the log and of what requests have become by a switch."""
        log.debug("HTTP/3 from %s ends: %s", self._visitor.who.source, reason.name)
        for stream in tuple(self._streams.values()):
            stream.end_carrying(reason)
        self.close(ErrorCode.H3_NO_ERROR)
        self.quic.flush()

    def close(self, code: int, why: str = "") -> None:
        """Close the connection."""
        self.quic.close(code, why)

    # ---- of Application

    def begun(self) -> None:
        """See `Application`: what had to wait for it goes on."""
        if not self._opened:
            self._open()
        if self._entered:
            for stream in tuple(self._streams.values()):
                held, stream.held = stream.held, []
                if held:
                    self._heard(stream, held, 0)

    def hastened(self) -> None:
        """See `Application`."""
        self._open()

    def _open(self) -> None:
        self._opened = True
        self.framing = Framing(self.engine)
        self.shown = _shown(self.engine)
        self._entered = self._owner.enter(self)
        if not self._entered:
            self.close(ErrorCode.H3_EXCESSIVE_LOAD)

    def happened(self, event: QuicEvent) -> None:
        """See `Application`."""
        if not self._entered:
            return
        match event:
            case StreamDataReceived(data, _, stream_id):
                self._received(event, stream_id, len(data))
            case StreamReset(_, stream_id):
                self._taken_back(event, stream_id, unsaid=self.engine.can_send(stream_id))
                self.engine.forgo(stream_id)
            case StopSendingReceived(_, stream_id):
                self._taken_back(event, stream_id, unsaid=self.engine.silenced(stream_id))
        self.quic.flush_soon()

    def progressed(self) -> None:
        """See `Application`."""
        for stream in tuple(self._streams.values()):
            stream.progressed()

    def moved(self, path: Path) -> None:
        """See `Application`: requests are decided by where the client is, so what runs is decided again."""
        who = client_at(path, self._visitor.who.local_port)
        if not self._entered:
            return
        before = self._visitor.who
        if (who.source, who.local) == (before.source, before.local):
            # Another port: its NAT has forgotten it for a moment.
            self._visitor.who = who
            return
        if not self._owner.move(self, who):
            self.close(ErrorCode.H3_EXCESSIVE_LOAD)
            return
        self._visitor = Visitor(self.site.ledger.evaluator, who)
        self._former.append(self.counting)
        self.counting = Conversations(self.site)
        self.released()
        self.recheck()

    def gone(self) -> None:
        """See `Application`."""
        for counting in (self.counting, *self._former):
            counting.interrupt()
        for stream in tuple(self._streams.values()):
            stream.lost()
        self._streams.clear()
        for counting in (self.counting, *self._former):
            counting.close()
        if self._entered:
            self._entered = False
            self._owner.leave(self)

    # ---- for streams

    def over(self, stream: RequestStream, *, wasted: bool) -> None:
        """A stream is answered and taken, or was given up; `wasted`: its client did not wait for that."""
        if self._streams.pop(stream.id, None) is None:
            return
        self.framing.forget(stream.id)
        gathered, stream.gathered = stream.gathered, 0
        self.engine.take(stream.id, gathered)
        self._since = time.monotonic()
        self._count(wasted=wasted)
        self._close_drained()

    def released(self) -> None:
        """A request counts for nothing any more: nor do places where the client was, without requests."""
        if self._former:
            used = {stream.counting for stream in self._streams.values()}
            idle = [each for each in self._former if each not in used]
            self._former = [each for each in self._former if each in used]
            for each in idle:
                each.close()

    def note(self, reason: Reason) -> None:
        """Write down that something was refused before it was decided about."""
        who = self._visitor.who
        self.site.ledger.refuse(who.query(), who.port, BEFORE_POLICY, reason)

    # ---- within

    def _taken_back(self, event: StreamReset | StopSendingReceived, stream_id: int, *, unsaid: bool) -> None:
        """`unsaid`: nothing was said on the stream before."""
        self.framing.handle_event(event)
        if stream_id in self._streams:
            self._streams[stream_id].taken_back()
        elif unsaid and not stream_id & 3:
            # Its packet was lost, or was never sent: no stream of ours yet, and a request none the less.
            self.engine.reset_stream(stream_id, ErrorCode.H3_REQUEST_CANCELLED)
            self._count(wasted=True)

    def _received(self, event: StreamDataReceived, stream_id: int, size: int) -> None:
        if stream_id & 3:
            # Of the client's own streams, all but requests go one way.
            self.framing.handle_event(event)
            self.engine.take(stream_id, size)
            return
        stream = self._streams.get(stream_id)
        if stream is None and not self.framing.knows(stream_id):
            if not self.engine.can_send(stream_id):
                # Taken back before it came: whoever carried it out would do so for nobody, beyond all counts.
                self.engine.take(stream_id, size)
                self.engine.refuse_more(stream_id, ErrorCode.H3_REQUEST_CANCELLED)
                return
            if self._last is not None and stream_id >= self._last:
                self.engine.take(stream_id, size)
                self._turn_away(stream_id)
                return
            stream = self._streams[stream_id] = RequestStream(self, stream_id)
            self._next = max(self._next, stream_id + 4)
        found = self.framing.handle_event(event)
        if stream is None:
            self.engine.take(stream_id, size)
            return
        self._heard(stream, found, size)

    def _heard(self, stream: RequestStream, found: list[H3Event], size: int) -> None:
        """These have come on a stream, by so many more bytes."""
        if stream.held or (self.quic.early and found and not stream.hastens(found)):
            # Until the handshake is complete; none of it is taken, so it is within the window.
            stream.held += found
            self._gather(stream, size, len(stream.held))
            return
        before = stream.queued
        for each in found:
            self._tell(stream, each)
        stream.feed()
        # Of a body, each piece is taken when it goes on; of a head, all of them when it is complete, so that
        # what is gathered here is within the window.
        size -= stream.queued - before
        if found or stream.id not in self._streams:
            self.engine.take(stream.id, size + stream.gathered)
            stream.gathered = stream.pieces = 0
            return
        self._gather(stream, size, 0)

    def _gather(self, stream: RequestStream, size: int, events: int) -> None:
        stream.gathered += size
        stream.pieces += 1
        if max(stream.pieces, events) > MOST_PIECES:
            self.note(Reason.MALFORMED)
            self.close(ErrorCode.H3_EXCESSIVE_LOAD, "a head in too many pieces")

    def _tell(self, stream: RequestStream, event: H3Event) -> None:
        if stream.id not in self._streams:
            return
        match event:
            case HeadersReceived():
                stream.head(event.headers, ends=event.stream_ended)
            case DataReceived():
                stream.body(event.data, ends=event.stream_ended)
            case Spoilt():
                self.note(Reason.MALFORMED)
                log.debug("HTTP/3 from %s: %s", self._visitor.who.source, event.why)
                stream.give_up(ErrorCode.H3_MESSAGE_ERROR)

    def _count(self, *, wasted: bool) -> None:
        self._wasted = max(0, self._wasted + (1 if wasted else -1))
        if self._wasted > MOST_WASTED:
            self.note(Reason.RATE_LIMITED)
            self.close(ErrorCode.H3_EXCESSIVE_LOAD)

    def _turn_away(self, stream_id: int) -> None:
        """The client may ask somebody else: we have done nothing about it."""
        if self.engine.can_send(stream_id):
            self.engine.reset_stream(stream_id, ErrorCode.H3_REQUEST_REJECTED)
        self.engine.refuse_more(stream_id, ErrorCode.H3_REQUEST_REJECTED)

    def _close_drained(self) -> None:
        if self._last is not None and not self._streams:
            self.close(ErrorCode.H3_NO_ERROR)


def _shown(engine: Engine) -> Shown:
    demand, certificate = engine.demand, engine.peer
    if demand is None:
        return Shown(version=_VERSION)
    peer = read_peer(certificate.public_bytes(Encoding.DER)) if certificate is not None else None
    return Shown(demand.asked, peer, _VERSION)


def client_at(path: Path, local_port: int) -> Client:
    """Who is at the other end of a path."""
    source = plain(address_of(path.client[0]))
    return Client(source, path.client[1], path.local, local_port, Transport.UDP)
