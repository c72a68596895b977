"""One request and its response: decided, sent to a backend, answered, written down.

Nothing is held whole: what one side does not take, the other is not read for. A backend that cannot be
reached is followed by the next; a connection that was kept and is found to have ended, by a new one, where
the request can be said again.
"""

import asyncio
import logging
import math
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from enum import Enum, auto

from marchproxy.dataplane.admission.judge import opened_by
from marchproxy.dataplane.credentials.book import Verified
from marchproxy.dataplane.http import grpc
from marchproxy.dataplane.http.answers import refusal
from marchproxy.dataplane.http.care import MOST_REPEATS, handling_of
from marchproxy.dataplane.http.circuits import FAILURES
from marchproxy.dataplane.http.clientauth import prove
from marchproxy.dataplane.http.connections import Stream
from marchproxy.dataplane.http.fields import about_client
from marchproxy.dataplane.http.messages import Fields, Request, Response
from marchproxy.dataplane.http.mirroring import Copy
from marchproxy.dataplane.http.rewriting import for_backend, redirection, vouched
from marchproxy.dataplane.http.site import Site
from marchproxy.dataplane.http.telling import exchanged
from marchproxy.dataplane.http.tracing import REQUEST_ID, begin_trace, new_id, settle_id
from marchproxy.dataplane.http.upstream import Carrier, Connections, Upstream
from marchproxy.dataplane.http.way import Way, goes_again
from marchproxy.dataplane.proxy import sockets
from marchproxy.dataplane.proxy.ledger import Conversation
from marchproxy.dataplane.proxy.protocol.credential import read_authorization
from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.model.entities import Retry
from marchproxy.model.presented import Presented
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.evaluate import Answer
from marchproxy.policy.plan import DEFAULT_HANDLING, Backend

log = logging.getLogger(__name__)

_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
"""Methods of which once more does no more (RFC 9110 section 9.2.2)."""
_GRACE = 0.5
"""Seconds behind the deadline of a call: who has set it should notice first."""

_OUR_OWN = frozenset({Reason.NO_NAT_PORT, Reason.FLOW_TABLE_FULL})
"""Why a connection was not made, and no backend is to blame: ports or descriptors are used up here."""


class Phase(Enum):
    """How far it is."""

    REACHING = auto()
    """No backend has it yet."""
    ASKED = auto()
    ANSWERING = auto()
    OVER = auto()


class Exchange:
    """From the head of a request to the end of its response."""

    # In a dict, so many attributes would be more than Python keeps the names of only once (30).
    __slots__ = (
        *("_answer", "_asked", "_call", "_candidates", "_copy", "_expires", "_full", "_handling"),
        *("_held_back", "_id", "_kept", "_refused", "_repeats", "_seat", "_sent", "_site"),
        *("_sought", "_stream", "_task", "_trailers", "_upstream", "attempts", "began", "connected"),
        *("conversation", "patience", "phase", "presented", "received_bytes", "request", "responded"),
        *("status", "verified", "waits_since"),
    )

    def __init__(self, site: Site, stream: Stream, request: Request) -> None:
        self.request = self._asked = request
        self.phase = Phase.REACHING
        self.began = self.waits_since = self._sought = time.monotonic()
        self.status = 0
        self.connected = self.responded = 0.0
        self.attempts = 0
        self._id = ""
        self.verified: Verified | None = None
        self.conversation: Conversation | None = None
        self._site = site
        self._stream = stream
        self._answer: Answer
        self.presented: Presented | None = None
        """What opened it."""
        self._candidates: Iterator[Backend] | None = None
        self._upstream: Carrier | None = None
        self._kept = False
        """The connection was used before: that it has ended says nothing about the backend."""
        self._sent = 0
        """Bytes of the body that have gone."""
        self._full = False
        """The backend takes no more for now."""
        self._held_back = False
        """So does the client."""
        self._refused: Reason | None = None
        self.received_bytes = 0
        self._trailers: Fields | None = None
        """Of a request whose body is complete; None: it is not."""
        self._task: asyncio.Task[None] | None = None
        self._handling = DEFAULT_HANDLING
        self._repeats = 0
        self._seat: Backend | None = None
        """Where it takes room, of which there is not any amount."""
        self._call = grpc.is_call(request)
        """It is one of gRPC."""
        self._expires = math.inf
        self._copy: Copy | None = None
        self.patience: float = site.limits.silence
        """Seconds that either side may be silent while it is waited for."""
        if self._call:
            # Calls that stream are silent for long, and say themselves how long they may take.
            self.patience = site.ledger.evaluator.plan.settings.tunnel_idle or math.inf
            self._expires = self.began + (grpc.timeout_of(request) or math.inf)

    # ---- from the client

    def begin(self, *, complete: bool = False) -> None:
        """Decide, and send the request on its way; `complete`: it has no body."""
        if complete:
            self._trailers = ()
        ways = self._stream.ways
        way = ways.find(self.request.head) if ways else None
        upstream = way.again(self.request, self._site) if way is not None else None
        if way is None or upstream is None:
            self._decide()
            return
        self._follow(way)
        self._ask(upstream)

    def go_on(self, way: Way, upstream: Upstream, since: float, made: str) -> None:
        """Take over a request without body."""
        self._follow(way)
        self._upstream, self._trailers, self._id = upstream, (), made
        self.phase, self.attempts = Phase.ASKED, 1
        self.began = self._sought = self.connected = self.waits_since = since

    def _follow(self, way: Way) -> None:
        self._answer, self._handling, self.conversation = way.answer, way.handling, way.conversation
        self._kept = True

    def _decide(self) -> None:
        """Ask policy, and send the request to where it says."""
        visitor, request = self._stream.visitor, self.request
        answer = self._answer = visitor.answer(request.host, request.path, request)
        opened = answer
        if not visitor.lets_anyone(answer):
            try:
                self._judge(answer)
                led = redirection(request, answer.actions)
            except Unfit as unfit:
                self.refuse(unfit)
                return
            opened = opened_by(answer, self.verified)
            if led:
                self._say(*led)
                return
        request, ledger = self.request, self._site.ledger
        if request.websocket:
            query = self._site.query(visitor.who, request)
            conversation = ledger.begin(query, visitor.who.port, opened, request.host)
        else:
            conversation = self._stream.conversation(opened, request)
        self.conversation = conversation
        handling = handling_of(answer)
        self._handling = handling
        if handling.trace:
            self.request = begin_trace(request)
        if handling.mirror:
            self._copy = self._site.mirrors.take(
                *(answer, visitor, self.request, self.id, self._trailers), secure=self._stream.secure
            )
        if handling.retry_on:
            self._site.care.earn(answer.mapping, handling)
        settled = self._site.settled(conversation, request)
        first = settled or self._following()
        upstream = None
        if first is not None and not ledger.is_blocked(first) and self._enters(first):
            upstream = self._pool(first).take(first)
        if upstream is None:
            self._search(first)
            return
        self._kept = True
        ways = self._stream.ways
        if settled and ways and visitor.lets_anyone(answer) and goes_again(answer, handling):
            pool, by = self._pool(settled), visitor.evaluator
            ways.add(Way(self._asked, by, answer, handling, conversation, settled, pool))
        self._ask(upstream)

    def send(self, data: memoryview | bytes) -> None:
        """A piece of the request's body."""
        if self._copy is not None:
            self._copy.send(data)
        if self._upstream is not None:
            self._sent += len(data)
            self._upstream.send(data)

    def finish(self, trailers: Fields) -> None:
        """The request's body is complete."""
        trailers = trailers and self._stream.visitor.trailing(trailers)
        self._trailers = trailers
        self.waits_since = time.monotonic()
        if self._copy is not None:
            self._copy.finish(trailers)
        if self._upstream is not None:
            self._upstream.finish(trailers)

    def abort(self) -> None:
        """The client is gone, or must go."""
        if self.phase is Phase.OVER:
            return
        self._end()
        if self._task is not None:
            self._task.cancel()
        if self._upstream is not None:
            upstream, self._upstream = self._upstream, None
            upstream.abandon()
            self._site.care.circuits.gave_up(upstream.backend)

    def client_full(self) -> None:
        """The client takes no more for now."""
        self._held_back = True
        if self._upstream is not None:
            self._upstream.pause()

    def client_ready(self) -> None:
        """It does again."""
        self._held_back = False
        self.waits_since = time.monotonic()
        if self._upstream is not None:
            self._upstream.resume()

    def refuse(self, unfit: Unfit) -> None:
        """Answer that it goes nowhere, and write that down."""
        visitor = self._stream.visitor
        query = self._site.query(visitor.who, self.request)
        self._site.ledger.refuse(query, visitor.who.port, self._answer, unfit.reason, name=self.request.host)
        self._answer_ourselves(unfit)

    def still_allowed(self) -> bool:
        """Whether the plan in force would let it go on."""
        if self.conversation is None:
            return True
        to = self.conversation.backend
        if to and self._site.ledger.is_blocked(to):
            return False
        asked = self._asked
        answer = self._stream.visitor.answer(asked.host, asked.path, asked)
        wanted = handling_of(answer).client
        if wanted is not None and wanted != self._stream.shown.asked:
            return False
        return self._site.judge.keeps(answer, self.verified)

    @property
    def id(self) -> str:
        """What it is known by, here and behind us."""
        if not self._id:
            self._id = settle_id(self.request) or new_id()
        return self._id

    @property
    def sent_bytes(self) -> int:
        """Of the request's body."""
        return self._sent

    @property
    def copied(self) -> str:
        """The service that gets a copy; empty: none does."""
        return self._copy.backend.service if self._copy is not None and not self._copy.dropped else ""

    # ---- from the backend

    def informed(self, response: Response) -> None:
        """See `Asking`."""
        self.waits_since = time.monotonic()
        self._stream.inform(response)

    def answered(self, response: Response) -> None:
        """See `Asking`."""
        upstream, care = self._upstream, self._site.care
        if upstream is not None and (response.status in FAILURES or care.circuits):
            care.answered(upstream.backend, self._answer, self._handling, response.status)
            if response.status in FAILURES and self._repeats_for(str(response.status), upstream):
                return
        self.phase = Phase.ANSWERING
        self.status = response.status
        self.responded = self.waits_since = time.monotonic()
        if response.status != 101:
            answer, by, secure = self._answer, self._upstream, self._stream.secure
            if answer.actions and by:
                response = self._site.changed(response, answer, self._asked, by.backend, secure)
            self._stream.respond(response)
            return
        upstream, self._upstream = self._upstream, None
        if upstream is None:
            return
        if self.request.websocket and self.conversation is not None and isinstance(upstream, Upstream):
            self.phase = Phase.OVER
            self._leave()
            self._stream.switch(self, self.conversation, response, upstream)
            return
        upstream.abandon()
        self.phase = Phase.ASKED
        self._fail(Unfit(Reason.UPSTREAM_REFUSED, "the backend switched protocols unasked"))

    def received(self, data: memoryview | bytes) -> None:
        """See `Asking`."""
        conversation, size = self.conversation, len(data)
        self.received_bytes += size
        if conversation is not None:
            conversation.carry(conversation.received, size)
            self.waits_since = conversation.last_seen
        self._stream.send(data)

    def flush(self) -> None:
        """See `Asking`."""
        self._stream.flush()

    def complete(self, trailers: Fields) -> None:
        """See `Asking`."""
        self._upstream = None
        self._end()
        self._stream.finish(trailers)

    def failed(self, reason: Reason, detail: str) -> None:
        """See `Asking`."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None and not (self._kept and self.phase is Phase.ASKED):
            self._site.care.failed(upstream.backend, self._answer, self._handling, detail or reason.meaning)
        if self.phase is Phase.ASKED and self._kept and self._can_repeat():
            self._kept = False
            self.phase = Phase.REACHING
            backend = self.conversation.backend if self.conversation else None
            self._search(backend)
            return
        if upstream is None or not self._repeats_for(Retry.RESET, upstream):
            self._fail(Unfit(reason, detail))

    def upstream_full(self) -> None:
        """See `Asking`."""
        self.waits_since = time.monotonic()
        self._full = True
        self._stream.pause()

    def upstream_ready(self) -> None:
        """See `Asking`."""
        self.waits_since = time.monotonic()
        self._full = False
        self._stream.resume()

    def overdue(self, now: float) -> None:
        """Give up a backend that has stayed silent for too long, or takes nothing of the request."""
        if now > self._expires + _GRACE and self.phase is not Phase.OVER:
            self._expire()
            return
        upstream = self._upstream
        # A backend that is not read from, because the client does not read, is not silent.
        if upstream is None or self._held_back or not (self._trailers is not None or self._full):
            return
        handling = self._handling
        limit = handling.idle if self.phase is Phase.ANSWERING else handling.response
        if now - self.waits_since <= (limit or self.patience):
            return
        self._upstream = None
        upstream.abandon()
        self._site.care.failed(upstream.backend, self._answer, handling, Reason.UPSTREAM_TIMEOUT.meaning)
        if not self._repeats_for(Retry.TIMEOUT, upstream):
            self._fail(Unfit(Reason.UPSTREAM_TIMEOUT))

    # ---- within

    def _judge(self, answer: Answer) -> None:
        """Raises `Unfit` where policy, or a credential, says no."""
        handling = handling_of(answer)
        proven = prove(handling, self._stream.shown)
        openers = answer.openers
        if openers:
            given = next((value for name, value in self.request.fields if name == "authorization"), None)
            self.presented = read_authorization(given) if given is not None else None
            outcome = self._site.judge.check(answer, self.presented, self._stream.visitor.who.source)
            if isinstance(outcome, Reason):
                raise Unfit(outcome)
            self.verified = outcome
        if self.verified is None and not answer.verdict.lets_through:
            raise self._stream.visitor.unfit(answer, self.request)
        if not answer.leads:
            raise Unfit(Reason.NO_MAPPING)
        if handling.limit is not None:
            token = self.verified.token if self.verified else ""
            self._site.limit(answer.mapping, handling.limit, self._stream.visitor.who.source, token)
        self.request = vouched(self.request, proven, self.verified.service if self.verified else "")

    async def _reach(self, first: Backend | None) -> None:
        """Connect to the first backend that can be reached and has room, `first` before the others."""
        unfit = Unfit(Reason.NO_BACKEND)
        site, handling = self._site, self._handling
        backend, crowded = first, None
        deadline = self._sought + max(site.limits.opening, handling.connect or 0.0)
        while self.phase is Phase.REACHING:
            if backend is None:
                if crowded is None:
                    break
                if not await site.care.wait_for_room(crowded, handling, deadline):
                    unfit = Unfit(Reason.NO_BACKEND, "as many requests are with the backends as may be")
                    break
                self._seat, backend, crowded = crowded, crowded, None
            if site.ledger.is_blocked(backend):
                unfit = Unfit(Reason.BLOCKED_DESTINATION)
            elif not self._enters(backend):
                crowded = crowded or backend
            else:
                try:
                    left = deadline - time.monotonic()
                    async with asyncio.timeout(max(0.0, min(handling.connect or site.limits.each, left))):
                        upstream = await self._pool(backend).connect(backend)
                except OSError as error:
                    self.attempts += 1
                    self._leave()
                    untrusted = isinstance(error, ssl.SSLError)
                    unfit = Unfit(Reason.TLS_FAILED if untrusted else sockets.refusal_reason(error))
                    if unfit.reason not in _OUR_OWN:
                        site.care.failed(backend, self._answer, handling, unfit.reason.meaning)
                    log.debug("%s at %s:%d: %s", backend.service, backend.address, backend.port, error)
                else:
                    self._task = None
                    self._ask(upstream)
                    return
            if time.monotonic() >= deadline:
                break
            backend = self._following()
        self._task = None
        if self.phase is Phase.REACHING:
            self.refuse(unfit)

    def _enters(self, backend: Backend) -> bool:
        """Whether there is room with a backend, which is taken."""
        most = self._handling.max_requests
        if not most or self._seat is backend:
            return True
        if not self._site.care.room.enter(backend, most):
            return False
        self._seat = backend
        return True

    def _leave(self) -> None:
        if self._seat is not None:
            seat, self._seat = self._seat, None
            self._site.care.room.leave(seat)

    def _repeats_for(self, what: str, upstream: Carrier) -> bool:
        """Whether it is sent again, to another backend if there is one, after this one has failed."""
        care, mapping = self._site.care, self._answer.mapping
        chosen = what in self._handling.retry_on and self.phase is Phase.ASKED and self._can_repeat()
        if self.request.early or not chosen or self._repeats >= MOST_REPEATS or not care.may_retry(mapping):
            return False
        self._upstream = None
        upstream.abandon()
        self._leave()
        self._repeats += 1
        self._kept = False
        if not self.request.authority:
            # It names the backend itself.
            self.request.encoded = b""
        self.phase = Phase.REACHING
        self._sought = time.monotonic()
        other = self._following()
        if other == upstream.backend:
            other = self._following()
        self._search(other or upstream.backend)
        return True

    def _search(self, first: Backend | None) -> None:
        self._stream.pause()
        flow = self.conversation.number if self.conversation else 0
        search = self._reach(first)
        self._task = self._site.tasks.start(search, name=lambda: f"request {self.id}", flow=flow)

    def _pool(self, backend: Backend) -> Connections:
        return self._site.connections(self._answer.rule, backend, self.request)

    def _following(self) -> Backend | None:
        """The next backend to try; None: there is no other."""
        if self._candidates is None:
            if self.conversation is None:
                return None
            found = self._site.ledger.candidates(self.conversation)
            self._candidates = self._site.care.candidates(found, self._handling)
        return next(self._candidates, None)

    def _ask(self, upstream: Carrier) -> None:
        self._upstream = upstream
        self.phase = Phase.ASKED
        self.attempts += 1
        self.connected = self.waits_since = time.monotonic()
        if self.conversation is not None:
            self._site.open(self.conversation, upstream.backend, begins=not self.request.websocket)
        request = self.request
        made = ""
        if not settle_id(request):
            made = self._id = self._id or new_id()
        if not request.about:
            source, scheme = self._stream.visitor.who.source, "https" if self._stream.secure else "http"
            request.about = about_client(str(source), scheme, request.authority, request.version)
        upstream.ask(self, for_backend(request, self._answer.actions), made)
        if self._held_back:
            upstream.pause()
        if self._trailers is not None:
            upstream.finish(self._trailers)
        # Also where nothing more is to come: a client that leaves is noticed by reading.
        self._stream.resume()

    def _expire(self) -> None:
        """The client has said how long a call may take, and it took longer."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abandon()
        self._fail(grpc.DeadlinePassed())

    def _can_repeat(self) -> bool:
        return not self._sent and (self.request.method in _REPEATABLE)

    def _fail(self, unfit: Unfit) -> None:
        """Before the backend answered, the client can be told; afterwards it must notice."""
        if self.phase is Phase.ANSWERING:
            self._end()
            if self._call:
                self._stream.finish(grpc.trailers_of(unfit))
            else:
                self._stream.fail()
            return
        self.refuse(unfit)

    def _answer_ourselves(self, unfit: Unfit) -> None:
        self._refused = unfit.reason
        response, body = (grpc.failure(unfit), b"") if self._call else refusal(unfit)
        self._say(response, body)

    def _say(self, response: Response, body: bytes) -> None:
        self.status = response.status
        self.responded = time.monotonic()
        response.fields = (*response.fields, (REQUEST_ID, self.id))
        response.bodiless = self._call or self.request.method == "HEAD"
        self._end()
        self._stream.respond(response)
        if not response.bodiless:
            self._stream.send(body)
        self._stream.finish(())

    def _end(self) -> None:
        if self.phase is Phase.OVER:
            return
        self.phase = Phase.OVER
        if self._seat is not None:
            self._leave()
        if self._copy is not None:
            self._copy.abandon()
        if self._site.tells:
            self.tell()
        if self.request.websocket and self.conversation is not None:
            # It stayed a request.
            self._site.closed(self.conversation)

    def tell(self) -> None:
        """Write the request down."""
        request, visitor, conversation = self.request, self._stream.visitor, self.conversation
        answer = self._answer
        if self._refused is not None:
            answer = replace(answer, verdict=Verdict.DENY, reason=self._refused)
        query = self._site.query(visitor.who, request)
        facts = exchanged(self, conversation, answer, self._stream.shown.version)
        self._site.ledger.exchanged(query, visitor.who.port, answer, conversation, facts)
