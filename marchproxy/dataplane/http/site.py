"""What all HTTP connections of a process share."""

import math
from dataclasses import dataclass, field

from marchproxy.dataplane.admission.arrivals import Client
from marchproxy.dataplane.admission.judge import Judge
from marchproxy.dataplane.admission.limits import AdmissionLimits, source_key
from marchproxy.dataplane.http import grpc
from marchproxy.dataplane.http.answers import Later
from marchproxy.dataplane.http.care import Care
from marchproxy.dataplane.http.http2.pool import Http2Pool
from marchproxy.dataplane.http.messages import Request, Response
from marchproxy.dataplane.http.mirroring import Mirrors
from marchproxy.dataplane.http.pool import Pool
from marchproxy.dataplane.http.rates import Rates
from marchproxy.dataplane.http.rewriting import for_client
from marchproxy.dataplane.http.sticky import Sticky
from marchproxy.dataplane.http.upstream import Connections
from marchproxy.dataplane.proxy.ledger import Conversation, Ledger
from marchproxy.dataplane.records import EventKind
from marchproxy.dataplane.tasks import Tasks
from marchproxy.model.address import IPAddress
from marchproxy.model.entities import Balance, LimitPer
from marchproxy.model.reason import Reason
from marchproxy.policy.evaluate import Answer, Query
from marchproxy.policy.plan import Backend, Http2, RequestLimit, Rule

_BY_CLIENT = frozenset({Balance.MAGLEV, Balance.SOURCE})


@dataclass(frozen=True, slots=True)
class Site:
    """Policy, backends, limits."""

    judge: Judge
    pool: Pool
    http2: Http2Pool
    limits: AdmissionLimits
    tasks: Tasks
    rates: Rates
    care: Care = field(default_factory=Care)
    sticky: Sticky = field(default_factory=Sticky)
    ledger: Ledger = field(init=False)
    """Where things are written down."""
    mirrors: Mirrors = field(init=False)

    def __post_init__(self) -> None:
        ledger = self.judge.ledger
        object.__setattr__(self, "ledger", ledger)
        object.__setattr__(self, "mirrors", Mirrors(ledger, self.tasks, self.connections))

    def connections(self, rule: object, backend: Backend, request: Request) -> Connections:
        """Where those to a backend come from. A WebSocket asks by HTTP/1.1."""
        wanted = rule.http2 if isinstance(rule, Rule) else Http2.NEVER
        if wanted is Http2.NEVER and not backend.http2:
            return self.pool
        calls = wanted is Http2.CALLS and not backend.http2
        return self.pool if request.websocket or (calls and not grpc.is_call(request)) else self.http2

    def query(self, who: Client, request: Request) -> Query:
        """What a record of a request is about."""
        return who.query(host=request.host, path=request.path)

    def limit(self, mapping: str, limit: RequestLimit, source: IPAddress, token: str) -> None:
        """Count a request. Raises `Later` where it is one too many; `token` is empty where none opened it."""
        key = "" if limit.per is LimitPer.MAPPING else f"source {source_key(source)}"
        if limit.per is LimitPer.TOKEN and token:
            key = f"token {token}"
        wait = self.rates.wait(mapping, key, limit)
        if wait:
            raise Later(Reason.RATE_LIMITED, "more requests than may come here", max(math.ceil(wait), 1))

    def carry(self, conversation: Conversation | None, size: int) -> None:
        """Count what a client has sent."""
        if conversation is not None:
            conversation.carry(conversation.sent, size)

    def close(self, conversation: Conversation, reason: Reason) -> None:
        """No more requests come that count for it."""
        if conversation.backend is not None:
            self.ledger.ended(conversation, reason)

    @property
    def tells(self) -> bool:
        """Whether anybody wants to know of requests."""
        return EventKind.REQUEST in self.ledger.wanted

    def changed(
        self, response: Response, answer: Answer, request: Request, backend: Backend, secure: bool
    ) -> Response:
        """The answer as the client gets it, from this backend."""
        rule, actions = answer.rule, answer.actions
        if actions is None or not isinstance(rule, Rule):
            return response
        key = self.judge.cookie_key
        sticks = actions.sticky
        cookie = self.sticky.cookie(rule, request, backend, key, secure=secure) if sticks else ""
        return for_client(response, actions, cookie)

    def settled(self, conversation: Conversation, request: Request) -> Backend | None:
        """The backend that a request's cookie stands for, or that the last request of its conversation went
        to, where its strategy gives every request of one client to the same; None: it has to be asked.
        """
        backend, pool, rule = conversation.backend, conversation.answer.pool, conversation.answer.rule
        if isinstance(rule, Rule) and rule.actions is not None and rule.actions.sticky:
            stuck = self.sticky.backend(rule, request, self.judge.cookie_key)
            if stuck is not None and not self.care.avoids(stuck):
                return stuck
        if backend is None or pool is None or not isinstance(rule, Rule):
            return None
        stays = rule.balance in _BY_CLIENT and backend in pool.backends and backend not in pool.idle
        return backend if stays and not self.care.avoids(backend) else None

    def closed(self, conversation: Conversation) -> None:
        """Tell of a conversation that had not begun, and is over."""
        if conversation.backend is not None:
            self.ledger.opened(conversation, conversation.backend)
            self.ledger.ended(conversation, Reason.CLOSED)

    def open(self, conversation: Conversation, backend: Backend, *, begins: bool = True) -> None:
        """A request of a conversation is with this backend; `begins` False: that is all it is, for now."""
        if conversation.backend is None and begins:
            self.ledger.opened(conversation, backend)
        elif conversation.backend is not backend:
            self.ledger.moved(conversation, backend)
