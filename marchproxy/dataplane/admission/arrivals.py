"""Connections of clients as they arrive: who may come in at all, and who sends the others away."""

import socket
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass

from marchproxy.dataplane.admission.judge import Judge
from marchproxy.dataplane.admission.limits import AdmissionLimits, Gate
from marchproxy.dataplane.admission.tunnels import Tunnels
from marchproxy.dataplane.credentials.contexts import Contexts
from marchproxy.dataplane.proxy import sockets
from marchproxy.dataplane.proxy.connecting import Connect
from marchproxy.dataplane.tasks import Tasks
from marchproxy.model.address import IPAddress
from marchproxy.model.making import maker
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.evaluate import Answer, Query, make_query
from marchproxy.policy.tunnels import plain

BEFORE_POLICY = Answer(Verdict.DENY, Reason.MALFORMED, ())
"""Of whom is sent away before anything was decided."""


@dataclass(frozen=True, slots=True)
class Client:
    """Who came, and where to."""

    source: IPAddress
    port: int
    local: IPAddress
    local_port: int
    transport: Transport = Transport.TCP
    proxy: IPAddress | None = None
    """Who has connected and says that it speaks for this client; None: the client itself."""

    @property
    def peer(self) -> IPAddress:
        """Whom the gate counts."""
        return self.proxy or self.source

    def query(
        self, address: IPAddress | None = None, port: int | None = None, host: str = "", path: str = ""
    ) -> Query:
        """What a record of this client is about: what it asked for, or else the listener."""
        to = address or self.local, port or self.local_port
        return make_query(self.source, *to, self.transport, _always, host, path)


_make_client = maker(Client)


class Arrivals(ABC):
    """Takes the connections of listening sockets."""

    def __init__(
        self,
        judge: Judge,
        tunnels: Tunnels,
        gate: Gate,
        limits: AdmissionLimits,
        connecting: Connect,
        contexts: Contexts,
    ) -> None:
        self._judge = judge
        self._contexts = contexts
        self._tunnels = tunnels
        self._gate = gate
        self._limits = limits
        self._connect = connecting
        self._talking: set[socket.socket] = set()
        self._tasks = Tasks()

    def admit(self, client: socket.socket, peer: IPAddress, peer_port: int) -> None:
        """Take a connection that was just accepted."""
        local = client.getsockname()
        who = _make_client(plain(peer), peer_port, sockets.address_of(local[0]), local[1])
        blocked = self._judge.tunnels.refuse(who.source, "")
        if blocked:
            self._turn_away(client, who, blocked, blocked.reason)
        elif not self._gate.enter(who.source):
            self._turn_away(client, who, BEFORE_POLICY, Reason.FLOW_TABLE_FULL)
        elif not self._judge.ledger.limits.admit(who.source, time.monotonic()):
            self._gate.leave(who.source)
            self._turn_away(client, who, BEFORE_POLICY, Reason.RATE_LIMITED)
        else:
            self._talking.add(client)
            self._tasks.start(self._serve(client, who), name=lambda: f"admit {who.source}:{peer_port}")

    async def close(self) -> None:
        """Send away whoever has not been let in."""
        await self._tasks.stop()
        # A task that is cancelled before its first step never comes to its end.
        for client in self._talking:
            sockets.reset(client)
        self._talking.clear()

    @abstractmethod
    async def _serve(self, client: socket.socket, who: Client) -> None:
        """Take care of one client, who is inside the gate until `leave` is called for it."""

    def _turn_away(self, client: socket.socket, who: Client, answer: Answer, reason: Reason) -> None:
        sockets.reset(client)
        self._judge.ledger.refuse(who.query(), who.port, answer, reason)


def _always(_: IPAddress) -> bool:
    return True
