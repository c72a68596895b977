"""What all HTTP connections of a process share."""

from dataclasses import dataclass, field, replace

from marchproxy.dataplane.admission.arrivals import Client
from marchproxy.dataplane.admission.judge import Judge
from marchproxy.dataplane.admission.limits import AdmissionLimits
from marchproxy.dataplane.http.http2.pool import Http2Pool
from marchproxy.dataplane.http.messages import Request
from marchproxy.dataplane.http.pool import Pool
from marchproxy.dataplane.http.sticky import Sticky
from marchproxy.dataplane.proxy.ledger import Conversation, Ledger
from marchproxy.dataplane.records import EventKind
from marchproxy.dataplane.tasks import Tasks
from marchproxy.model.entities import Balance
from marchproxy.model.reason import Reason
from marchproxy.policy.evaluate import Answer, Query
from marchproxy.policy.plan import Backend, Rule

_BY_CLIENT = frozenset({Balance.MAGLEV, Balance.SOURCE})


@dataclass(frozen=True, slots=True)
class Site:
    """Policy, backends, limits."""

    judge: Judge
    pool: Pool
    http2: Http2Pool
    limits: AdmissionLimits
    tasks: Tasks
    sticky: Sticky = field(default_factory=Sticky)
    ledger: Ledger = field(init=False)
    """Where things are written down."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "ledger", self.judge.ledger)

    def query(self, who: Client, request: Request) -> Query:
        """What a record of a request is about."""
        return replace(who.query(), host=request.host, path=request.path)

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

    def stuck(self, answer: Answer, request: Request) -> Backend | None:
        """The backend that a request's cookie stands for; None: it has none."""
        rule = answer.rule
        found = isinstance(rule, Rule) and self.sticky.backend(rule, request, self.judge.cookie_key)
        return found or None

    def sticking(self, answer: Answer, request: Request, backend: Backend, *, secure: bool) -> str:
        """The cookie for the answer; empty: the client has it."""
        rule, key = answer.rule, self.judge.cookie_key
        if not isinstance(rule, Rule):
            return ""
        return self.sticky.cookie(rule, request, backend, key, secure=secure)

    def settled(self, conversation: Conversation) -> Backend | None:
        """The backend that the last request of a conversation went to, where its strategy gives every
        request of one client to the same; None: it has to be asked.
        """
        backend, pool, rule = conversation.backend, conversation.answer.pool, conversation.answer.rule
        if backend is None or pool is None or not isinstance(rule, Rule):
            return None
        stays = rule.balance in _BY_CLIENT and backend in pool.backends and backend not in pool.idle
        return backend if stays else None

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
