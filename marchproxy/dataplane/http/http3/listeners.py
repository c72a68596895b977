"""HTTP/3 at the listeners that read HTTP and say so: who may speak at all, and all connections of a process.

It is the same site by another way. Requests are decided by the rules of the listener on TCP, whichever of its
mappings opened the way, so that no ban can be gone around by another version of HTTP.
"""

import logging
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cryptography.x509 import Certificate

from marchproxy.dataplane.admission.arrivals import BEFORE_POLICY, Client
from marchproxy.dataplane.admission.judge import Judge
from marchproxy.dataplane.admission.limits import Gate
from marchproxy.dataplane.credentials.chains import refused
from marchproxy.dataplane.credentials.contexts import Contexts
from marchproxy.dataplane.credentials.keypairs import KeyPairs
from marchproxy.dataplane.http.connections import Having
from marchproxy.dataplane.http.http3.client import Http3Connection, client_at
from marchproxy.dataplane.http.site import Site
from marchproxy.dataplane.http.visitor import Visitor
from marchproxy.dataplane.quic.connection import Application, Connection, Path
from marchproxy.dataplane.quic.early import Early
from marchproxy.dataplane.quic.endpoint import Endpoint
from marchproxy.dataplane.quic.engine import Choose, Demand, KeyPair
from marchproxy.dataplane.quic.replays import Replays
from marchproxy.dataplane.quic.steering import Steering
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.evaluate import Answer
from marchproxy.policy.plan import ClientTls, Listener, ListenerKey

log = logging.getLogger(__name__)


MOST_CONNECTIONS = 2000
"""At one time, in one process: each may hold a window of what came, and costs more than one over TCP."""


class Http3Listeners(Having[Http3Connection]):
    """Serves all of them."""

    def __init__(
        self,
        site: Site,
        judge: Judge,
        gate: Gate,
        contexts: Contexts,
        steering: Steering,
        replays: Replays | None = None,
    ) -> None:
        """`steering` and `replays` are of all processes that share the ports."""
        self.live: set[Http3Connection] = set()
        self.site = site
        self.steering = steering
        self._replays = replays or Replays()
        self._judge = judge
        self._gate = gate
        self._pairs = KeyPairs(contexts)
        self._open: dict[ListenerKey, Endpoint] = {}

    @property
    def handshakes(self) -> int:
        """Connections that begin."""
        return sum(endpoint.handshakes.count for endpoint in self._open.values())

    def serve(
        self, opened: Mapping[ListenerKey, socket.socket], wanted: Mapping[ListenerKey, Listener]
    ) -> None:
        """Serve these sockets beside those that are open; close what is not `wanted`."""
        for key in self._open.keys() - wanted:
            self._open.pop(key).close()
        for key, sock in opened.items():
            listener = wanted[key]
            door = _Door(self, listener.port)
            endpoint = self._open[key] = Endpoint(sock, listener.address, self.steering, door)
            endpoint.start()

    def recheck(self) -> None:
        """There is a new plan: end what it does not allow."""
        for connection in tuple(self.live):
            connection.recheck()

    def tick(self) -> None:
        """See to what takes too long; called about once a second."""
        for endpoint in self._open.values():
            endpoint.tick()
        now = time.monotonic()
        for connection in tuple(self.live):
            connection.tick(now)

    def drain(self) -> None:
        """Answer what was asked, and nothing more."""
        for endpoint in self._open.values():
            endpoint.draining = True
        for connection in tuple(self.live):
            connection.drain()

    def close(self) -> None:
        """End everything."""
        for connection in tuple(self.live):
            connection.end()
        while self._open:
            self._open.popitem()[1].close()
        self._replays.close()

    # ---- for doors

    def certificates(self, who: Client) -> Choose | None:
        """What a client is shown; None: it is refused, and that written down."""
        visitor = Visitor(self._judge.ledger.evaluator, who)
        blocked = self._judge.tunnels.refuse(who.source, "") or visitor.blocked
        if blocked or not (visitor.expected and visitor.alternative):
            answer = blocked or Answer(Verdict.DENY, Reason.NO_MAPPING, ())
            self._refuse(who, answer, answer.reason)
            return None
        choose = self._pairs.chooser(visitor.certificates)
        if choose is None:
            self._refuse(who, BEFORE_POLICY, Reason.NOT_CARRIED)
            return None
        if visitor.asks:
            return self._asking(visitor, choose)
        return self._hastening(visitor, choose) if visitor.hastens else choose

    def _hastening(self, visitor: Visitor, choose: Choose) -> Choose:
        """The same, where requests to some hosts may come before the handshake is complete."""
        early = Early(self._replays, visitor.who.source)

        def hastening(name: str) -> KeyPair:
            pair = choose(name)
            return replace(pair, early=early) if visitor.hastens_at(name.lower().rstrip(".")) else pair

        return hastening

    def _asking(self, visitor: Visitor, choose: Choose) -> Choose:
        """The same, where some hosts want certificates of clients."""

        def asking(name: str) -> KeyPair:
            asked, required = visitor.demand(name.lower().rstrip("."))
            pair = choose(name)
            return pair if asked is None else replace(pair, demand=self._demand(visitor.who, asked, required))

        return asking

    def _demand(self, who: Client, asked: ClientTls, required: bool) -> Demand:
        def check(certificate: Certificate | None, beside: Sequence[Certificate]) -> str:
            if certificate is None:
                why = "a certificate of the client is wanted here" if required else ""
            else:
                why = refused(certificate, beside, asked)
            if why:
                log.debug("HTTP/3 from %s: %s", who.source, why)
                self._refuse(who, BEFORE_POLICY, Reason.TLS_FAILED)
            return why

        return Demand(asked, check)

    def visitor(self, who: Client) -> Visitor:
        """What policy says to a client."""
        return Visitor(self._judge.ledger.evaluator, who)

    # ---- of Owner

    def enter(self, connection: Http3Connection) -> bool:
        """See `Owner`."""
        who = connection.visitor.who
        if len(self.live) >= MOST_CONNECTIONS or not self._gate.enter(who.source):
            self._refuse(who, BEFORE_POLICY, Reason.FLOW_TABLE_FULL)
            return False
        if not self._judge.ledger.limits.admit(who.source, time.monotonic()):
            self._gate.leave(who.source)
            self._refuse(who, BEFORE_POLICY, Reason.RATE_LIMITED)
            return False
        self.live.add(connection)
        return True

    def move(self, connection: Http3Connection, who: Client) -> bool:
        """See `Owner`."""
        if not self._gate.enter(who.source):
            self._refuse(who, BEFORE_POLICY, Reason.FLOW_TABLE_FULL)
            return False
        self._gate.leave(connection.visitor.who.source)
        return True

    def leave(self, connection: Http3Connection) -> None:
        """See `Owner`."""
        self.live.discard(connection)
        self._gate.leave(connection.visitor.who.source)

    def _refuse(self, who: Client, answer: Answer, reason: Reason) -> None:
        self._judge.ledger.refuse(who.query(), who.port, answer, reason)


class _Door:
    """One listener's `Server`."""

    def __init__(self, listeners: Http3Listeners, port: int) -> None:
        self._listeners = listeners
        self._port = port

    def certificates(self, path: Path) -> Choose | None:
        """See `Server`."""
        return self._listeners.certificates(client_at(path, self._port))

    def serve(self, connection: Connection) -> Application:
        """See `Server`."""
        visitor = self._listeners.visitor(client_at(connection.path, self._port))
        return Http3Connection(self._listeners.site, visitor, connection, self._listeners)
