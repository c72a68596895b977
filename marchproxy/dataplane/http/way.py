"""The way that a request went, for what its client asks again word for word.

Nothing is decided anew on it: by another plan it is not taken, nor while any backend fails. Only requests
have one of which policy wants nothing but to know them, and whose client stays with one backend.

Most requests of HTTP/1.1 are such, have no body, and are answered in one piece with a head that the backend
has sent before. They are no exchanges (`ClientConnection.repeated`), until anything else happens to them.
"""

from dataclasses import dataclass, field

from marchproxy.dataplane.http.messages import Request
from marchproxy.dataplane.http.pool import Pool
from marchproxy.dataplane.http.site import Site
from marchproxy.dataplane.http.tracing import unnumbered
from marchproxy.dataplane.http.upstream import REPEATED, Carrier, Connections, Upstream
from marchproxy.dataplane.proxy.ledger import Conversation
from marchproxy.dataplane.records import EventKind
from marchproxy.policy.evaluate import Answer, Evaluator
from marchproxy.policy.plan import Backend, Handling

SMALL = 1024
"""Bytes of a head of which more is kept than the last: nobody shall fill memory by asking for more."""
REMEMBERED = 8
"""Ways of one connection."""
_TOLD = EventKind.REQUEST


@dataclass(slots=True)
class Way:
    """One, by one plan. It is not changed, and not frozen either, which would make it dear."""

    request: Request
    evaluator: Evaluator
    answer: Answer
    handling: Handling
    conversation: Conversation
    backend: Backend
    connections: Connections
    plain: bool = field(init=False)
    """It is gone without an exchange."""
    _said: bytes = field(init=False, default=b"")
    """What the backend is told, up to what differs each time."""

    def __post_init__(self) -> None:
        request = self.request
        is_bare = request.method == REPEATED and request.version == "1.1" and request.length == 0
        is_kept = request.keeps and isinstance(self.connections, Pool)
        self.plain = is_bare and is_kept and self.answer.actions is None and len(request.head) <= SMALL

    def again(self, request: Request, site: Site) -> Carrier | None:
        """A connection to its backend; None: none is free, or `request` has to be decided."""
        if request is not self.request or self.evaluator is not site.ledger.evaluator or site.care.circuits:
            return None
        return self.connections.take(self.backend)

    def repeats(self, site: Site) -> Upstream | None:
        """A connection for a request that is no exchange; None: it has to be one."""
        ledger = site.ledger
        if self.evaluator is not ledger.evaluator or site.care.circuits.known or _TOLD in ledger.wanted:
            return None
        if self.conversation.backend is not self.backend:
            return None
        return site.pool.take(self.backend)

    def words(self, number: int) -> bytes:
        """The request as its backend gets it once more, with an id of this number."""
        if self.request.given_id:
            return self.request.encoded
        if not self._said:
            self._said = unnumbered(self.request.encoded)
        return b"%b%016x\r\n\r\n" % (self._said, number)


class Ways:
    """Those of one connection: of the last few requests that have one."""

    __slots__ = ("_by_head", "_last")

    def __init__(self) -> None:
        self._last: Way | None = None
        self._by_head: dict[bytes, Way] = {}

    def find(self, head: bytes) -> Way | None:
        """The way of a request whose head is this, if there is one."""
        last = self._last
        if last is not None and last.request.head == head:
            return last
        # Bytes are hashed anew each time.
        if not self._by_head or len(head) > SMALL:
            return None
        found = self._by_head.get(head)
        self._last = found or last
        return found

    def add(self, way: Way) -> None:
        """Remember one, if its head means the same each time."""
        head = way.request.head
        if not head:
            return
        self._last = way
        if len(head) <= SMALL:
            if len(self._by_head) >= REMEMBERED:
                self._by_head.clear()
            self._by_head[head] = way

    def clear(self) -> None:
        """Forget all."""
        self._last = None
        self._by_head.clear()


def goes_again(answer: Answer, handling: Handling) -> bool:
    """Whether nothing has to be done for each request that was decided so."""
    each = handling.trace or handling.mirror or handling.retry_on or handling.max_requests
    return not each and (answer.actions is None or not answer.actions.sticky)
