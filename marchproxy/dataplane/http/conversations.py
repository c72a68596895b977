"""What the requests of a client connection count for, where many of them are under way at the same time."""

from collections import Counter

from marchproxy.dataplane.http.messages import Request
from marchproxy.dataplane.http.site import Site
from marchproxy.dataplane.http.visitor import Visitor
from marchproxy.dataplane.proxy.ledger import Conversation
from marchproxy.model.reason import Reason
from marchproxy.policy.evaluate import Answer


class Conversations:
    """Those of one connection: one for each mapping, and those before until their last request ends."""

    __slots__ = ("_current", "_interrupted", "_site", "_uses")

    def __init__(self, site: Site) -> None:
        self._site = site
        self._current: dict[str, Conversation] = {}
        """By mapping."""
        self._uses: Counter[Conversation] = Counter()
        """Requests under way."""
        self._interrupted: set[Conversation] = set()

    @property
    def every(self) -> tuple[Conversation, ...]:
        """All that go on."""
        return tuple({*self._current.values(), *self._uses})

    def take(self, visitor: Visitor, answer: Answer, request: Request) -> Conversation:
        """The one for a request that got such an answer; `release` must follow."""
        found = self._current.get(answer.mapping)
        if found is None or found.answer.rule is not answer.rule or found.name != request.host:
            before, found = found, self._begin(visitor, answer, request)
            if before is not None and not self._uses[before]:
                self._close(before)
        self._uses[found] += 1
        return found

    def release(self, conversation: Conversation) -> None:
        """One of its requests is over."""
        if not self._uses[conversation]:
            return
        self._uses[conversation] -= 1
        if not self._uses[conversation]:
            del self._uses[conversation]
            if conversation not in self._current.values():
                self._close(conversation)

    def interrupt(self) -> None:
        """The requests that are under way will not be answered."""
        self._interrupted |= self._uses.keys()

    def close(self) -> None:
        """The connection has ended."""
        for conversation in self.every:
            self._close(conversation)
        self._current.clear()

    def _begin(self, visitor: Visitor, answer: Answer, request: Request) -> Conversation:
        query = self._site.query(visitor.who, request)
        made = self._site.ledger.begin(query, visitor.who.port, answer, request.host)
        self._current[answer.mapping] = made
        return made

    def _close(self, conversation: Conversation) -> None:
        del self._uses[conversation]
        self._site.close(conversation, Reason.RESET if conversation in self._interrupted else Reason.CLOSED)
