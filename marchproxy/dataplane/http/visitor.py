"""What policy says to the requests of one client connection.

Who the client is, and which rules are for it, is found once for a plan; each request then costs a look-up by
host and path, whatever the number of mappings. Where some mapping for them looks at more, it is decided anew.
"""

from collections.abc import Iterator

from marchproxy.dataplane.admission.arrivals import Client
from marchproxy.dataplane.http.answers import WrongMethod
from marchproxy.dataplane.http.messages import Fields, Request
from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.model.httpfields import plain_name
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.conditions import Asked, Plain
from marchproxy.policy.evaluate import Answer, Evaluator, decided
from marchproxy.policy.plan import DEFAULT_HANDLING, ClientTls, Listener, Rule
from marchproxy.policy.routes import Routes

_PLAIN = Plain()
REMEMBERED_FOR = 3600
"""Seconds for which clients keep in mind that HTTP/3 is spoken; who finds that it is not comes by TCP."""
_REMEMBERED = 16
"""Requests: clients ask for the same again, and nobody shall fill memory by asking for more."""
_SMALL = 256
"""Characters of host and path together that are remembered: it outlives the connection."""
_COMMON = frozenset({"accept", "accept-encoding", "accept-language", "cache-control", "user-agent"})
"""Fields that are nobody's secret: a request with others does not outlive its connection."""
_HEADS = 4
_HEAD = 512
"""Bytes of a head that is remembered."""


class Visitor:
    """A client at a listener, as one plan sees it."""

    __slots__ = (
        "_answers",
        "_asked",
        "_heads",
        "_last",
        "_listener",
        "_open",
        "_routes",
        "_services",
        "alternative",
        "blocked",
        "evaluator",
        "listens",
        "who",
    )

    def __init__(self, evaluator: Evaluator, who: Client) -> None:
        self.who = who
        self.evaluator = evaluator
        query = who.query()
        services = evaluator.sources.services(who.source)
        self._services = tuple(sorted(services))
        self._listener: Listener | None = evaluator.listener(query)
        self.listens = self._listener is not None and self._listener.key in evaluator.reading
        """Whether requests are read there at all."""
        self.alternative = b""
        """What `Alt-Svc` says over TCP, of HTTP/3 (RFC 7838); empty: it is not spoken there."""
        if self._listener is not None and self._listener.key in evaluator.plan.http3:
            self.alternative = b'h3=":%d"; ma=%d' % (who.local_port, REMEMBERED_FOR)
        self._routes = evaluator.routes(self._listener, services) if self._listener else Routes()
        self._answers: dict[int, Answer] = {}
        """By identity of the rule, which the plan keeps."""
        self._open: set[int] = set()
        """Identities of those of `_answers` that let any request through."""
        self._asked: dict[tuple[str, str], Answer] = {}
        """By host and path, the last few."""
        self._heads: dict[bytes, Request] = {}
        """What heads of HTTP/1.1 say, the last few."""
        self._last: tuple[Asked, Answer] | None = None
        """The last request for which these two do not say everything."""
        found = evaluator.blocked(query)
        self.blocked: Answer | None = None
        """Why nobody listens to it; None: somebody may."""
        if found:
            self.blocked = Answer(Verdict.DENY, found[0], self._services, blocked_by=found[1])

    def again(self, who: Client) -> "Visitor":
        """A client of the same address at the same listener, by the same plan: what was found for one holds
        for the other, and they find on together; but for the last request, which is each connection's own.
        """
        made = object.__new__(Visitor)
        made.who = who
        made.evaluator = self.evaluator
        made.listens = self.listens
        made.alternative = self.alternative
        made.blocked = self.blocked
        made._services, made._listener, made._routes = self._services, self._listener, self._routes
        made._answers, made._open, made._asked = self._answers, self._open, self._asked
        made._heads, made._last = self._heads, None
        return made

    def understood(self, head: bytes) -> Request | None:
        """What a head says that this client has sent before, by this connection or another one."""
        return self._heads.get(head) if len(head) <= _HEAD else None

    def remember(self, request: Request) -> None:
        """Keep in mind what `request.head` says, if that is nobody's secret."""
        if not request.head or len(request.head) > _HEAD or "?" in request.target:
            return
        if not all(name in _COMMON for name, _ in request.fields):
            return
        if len(self._heads) >= _HEADS:
            self._heads.clear()
        self._heads[request.head] = request

    def answer(self, host: str, path: str, asked: Asked = _PLAIN) -> Answer:
        """What becomes of a request; `asked` is all of it."""
        if self.blocked:
            return self.blocked
        known = self._asked.get((host, path))
        if known is not None:
            return known
        last = self._last
        if last is not None and last[0] is asked:
            return last[1]
        found = self._by_rule(self._routes.find(host, path, asked))
        if self._routes.depends(host, path):
            # What is asked again word for word is the same object (`ClientConnection`).
            self._last = (asked, found) if asked is not _PLAIN else None
            return found
        if len(host) + len(path) <= _SMALL:
            if len(self._asked) >= _REMEMBERED:
                self._asked.clear()
            self._asked[host, path] = found
        return found

    def _by_rule(self, rule: Rule | None) -> Answer:
        found = self._answers.get(id(rule))
        if found is None:
            found = self._answers[id(rule)] = Answer(*decided(rule), self._services, self._listener, rule)
            handling = rule.handling if rule is not None else DEFAULT_HANDLING
            asks = found.openers or handling.client is not None or handling.limit is not None
            if found.verdict.lets_through and found.pool is not None and not asks:
                self._open.add(id(found))
        return found

    def lets_anyone(self, answer: Answer) -> bool:
        """Whether one of our answers wants no credential, counts nobody and refuses nobody."""
        return id(answer) in self._open

    def unfit(self, answer: Answer, request: Request) -> Unfit:
        """How a request is refused: with the methods by which it would not be, where there are any."""
        if answer.reason is Reason.NO_MAPPING:
            allowed = self._routes.methods(request.host, request.path, request)
            if allowed:
                return WrongMethod(request.method, allowed)
        return Unfit(answer.reason)

    def trailing(self, trailers: Fields) -> Fields:
        """What of a request's trailers goes on: some servers take them for headers, after the decision."""
        heeded = self._routes.headers
        return tuple([each for each in trailers if plain_name(each[0]) not in heeded]) if heeded else trailers

    @property
    def expected(self) -> bool:
        """Whether any mapping is for this source."""
        return bool(self._routes.exact or self._routes.below)

    @property
    def certificates(self) -> tuple[str, ...]:
        """Qualified names of those with which TLS is spoken to it, each once; empty: it is not."""
        return self._routes.certificates

    @property
    def asks(self) -> bool:
        """Whether any mapping wants a certificate of the client."""
        return self._routes.asks

    def demand(self, host: str) -> tuple[ClientTls | None, bool]:
        """What a client that names this host in TLS is asked for; and whether all that it may ask for there
        wants that. Of several kinds it is the one of the most specific route: there is one for a connection.
        """
        kinds = [rule.handling.client for rule in self._at(host) if rule.pool]
        wanted = next((kind for kind in kinds if kind is not None), None)
        return wanted, bool(kinds) and all(kind == wanted for kind in kinds)

    @property
    def hastens(self) -> bool:
        """Whether any mapping takes requests before a handshake is complete."""
        return any(rule.handling.early_data for rule in self._rules())

    def hastens_at(self, host: str) -> bool:
        """Whether any of those does that a client may ask for there that names this host in TLS."""
        return any(rule.handling.early_data for rule in self._at(host))

    def _at(self, host: str) -> list[Rule]:
        """Those for a host, the most specific first."""
        routes, rest = self._routes, host
        found = [*(routes.exact.get(host, ()) if host else ())]
        while (rest := rest.partition(".")[2]) != "":
            found += routes.below.get(rest, ())
        return [*found, *routes.exact.get("", ())]

    def _rules(self) -> Iterator[Rule]:
        for rules in (*self._routes.exact.values(), *self._routes.below.values()):
            yield from rules
