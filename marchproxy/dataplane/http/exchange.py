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
from typing import Protocol

from marchproxy.dataplane.admission.judge import opened_by
from marchproxy.dataplane.credentials.book import Verified
from marchproxy.dataplane.http import grpc
from marchproxy.dataplane.http.answers import refusal
from marchproxy.dataplane.http.fields import about_client
from marchproxy.dataplane.http.messages import Fields, Request, Response
from marchproxy.dataplane.http.rewriting import for_backend, for_client, redirection
from marchproxy.dataplane.http.site import Site
from marchproxy.dataplane.http.upstream import Carrier, Connections, Upstream
from marchproxy.dataplane.http.visitor import Visitor
from marchproxy.dataplane.proxy import sockets
from marchproxy.dataplane.proxy.ledger import Conversation
from marchproxy.dataplane.proxy.protocol.credential import read_authorization
from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.dataplane.records import Exchanged
from marchproxy.model.endpoint import Endpoint
from marchproxy.model.presented import Presented
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.actions import Actions
from marchproxy.policy.evaluate import Answer
from marchproxy.policy.plan import Backend, Http2, Rule

log = logging.getLogger(__name__)

_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
"""Methods of which once more does no more (RFC 9110 section 9.2.2)."""
_GRACE = 0.5
"""Seconds behind the deadline of a call: who has set it should notice first."""


class Stream(Protocol):
    """The client's side of an exchange."""

    secure: bool
    """It came under TLS."""

    @property
    def visitor(self) -> Visitor:
        """Who asks, by the plan in force."""

    def conversation(self, answer: Answer, request: Request) -> Conversation:
        """What this client's requests count for that got such an answer."""

    def inform(self, response: Response) -> None:
        """Send an interim answer."""

    def respond(self, response: Response) -> None:
        """Send the head of the answer."""

    def send(self, data: memoryview | bytes) -> None:
        """Send a piece of its body."""

    def flush(self) -> None:
        """Send what was held back to go together with what follows."""

    def finish(self, trailers: Fields) -> None:
        """The answer is complete."""

    def fail(self) -> None:
        """It never will be: the client must notice."""

    def pause(self) -> None:
        """Give no more of the request's body for now."""

    def resume(self) -> None:
        """Give on."""

    def switch(
        self, exchange: "Exchange", conversation: Conversation, response: Response, upstream: Upstream
    ) -> None:
        """The answer is 101: both sides speak something else from here on."""


class Phase(Enum):
    """How far it is."""

    REACHING = auto()
    """No backend has it yet."""
    ASKED = auto()
    ANSWERING = auto()
    OVER = auto()


class Exchange:
    """From the head of a request to the end of its response."""

    def __init__(self, site: Site, stream: Stream, request: Request) -> None:
        self.request = self._asked = request
        self.phase = Phase.REACHING
        self.began = self.waits_since = time.monotonic()
        self.status = 0
        self.responded = 0.0
        self.verified: Verified | None = None
        self.conversation: Conversation | None = None
        self._site = site
        self._stream = stream
        self._answer: Answer
        self._actions: Actions | None = None
        self._presented: Presented | None = None
        self._candidates: Iterator[Backend] | None = None
        self._upstream: Carrier | None = None
        self._kept = False
        """The connection was used before: that it has ended says nothing about the backend."""
        self._sent = False
        """Some of the body has gone."""
        self._full = False
        """The backend takes no more for now."""
        self._held_back = False
        """So does the client."""
        self._refused: Reason | None = None
        self.received_bytes = 0
        self._trailers: Fields | None = None
        """Of a request whose body is complete; None: it is not."""
        self._task: asyncio.Task[None] | None = None
        self._deadline = 0.0
        self._call = grpc.is_call(request)
        """It is one of gRPC."""
        self._expires = math.inf
        self.patience: float = site.limits.silence
        """Seconds that either side may be silent while it is waited for."""
        if self._call:
            # Calls that stream are silent for long, and say themselves how long they may take.
            self.patience = site.ledger.evaluator.plan.settings.tunnel_idle or math.inf
            self._expires = self.began + (grpc.timeout_of(request) or math.inf)

    # ---- from the client

    def begin(self) -> None:
        """Decide, and send the request on its way."""
        visitor, request = self._stream.visitor, self.request
        answer = self._answer = visitor.answer(request.host, request.path, request)
        actions = self._actions = answer.actions
        opened = answer
        if not visitor.lets_anyone(answer):
            try:
                self._judge(answer)
            except Unfit as unfit:
                self.refuse(unfit)
                return
            opened = opened_by(answer, self.verified)
            if actions is not None and actions.redirect:
                self._redirect(actions)
                return
        request, ledger = self.request, self._site.ledger
        if request.websocket:
            query = self._site.query(visitor.who, request)
            conversation = ledger.begin(query, visitor.who.port, opened, request.host)
        else:
            conversation = self._stream.conversation(opened, request)
        self.conversation = conversation
        self._deadline = self.began + self._site.limits.opening
        stuck = self._site.stuck(opened, request) if actions is not None and actions.sticky else None
        first = stuck or self._site.settled(conversation) or self._following()
        upstream = self._pool(first).take(first) if first and not ledger.is_blocked(first) else None
        if upstream is not None:
            self._kept = True
            self._ask(upstream)
            return
        self._stream.pause()
        self._task = self._site.tasks.start(self._reach(first), name=f"reach {request.host}")

    def send(self, data: memoryview | bytes) -> None:
        """A piece of the request's body."""
        if self._upstream is not None:
            self._sent = True
            self._upstream.send(data)

    def finish(self, trailers: Fields) -> None:
        """The request's body is complete."""
        if trailers:
            trailers = self._stream.visitor.trailing(trailers)
        self._trailers = trailers
        self.waits_since = time.monotonic()
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
        backend, asked = self.conversation.backend, self._asked
        if backend and self._site.ledger.is_blocked(backend):
            return False
        answer = self._stream.visitor.answer(asked.host, asked.path, asked)
        return self._site.judge.keeps(answer, self.verified)

    @property
    def presented(self) -> Presented | None:
        """What opened it."""
        return self._presented

    # ---- from the backend

    def informed(self, response: Response) -> None:
        """See `Asking`."""
        self.waits_since = time.monotonic()
        self._stream.inform(response)

    def answered(self, response: Response) -> None:
        """See `Asking`."""
        self.phase = Phase.ANSWERING
        self.status = response.status
        self.responded = self.waits_since = time.monotonic()
        if response.status != 101:
            self._stream.respond(self._changed(response, self._actions) if self._actions else response)
            return
        upstream, self._upstream = self._upstream, None
        if upstream is None:
            return
        if self.request.websocket and self.conversation is not None and isinstance(upstream, Upstream):
            self.phase = Phase.OVER
            self._stream.switch(self, self.conversation, response, upstream)
            return
        upstream.abandon()
        self.phase = Phase.ASKED
        self._broken(Reason.UPSTREAM_REFUSED, "the backend switched protocols, and nobody had asked for it")

    def received(self, data: memoryview | bytes) -> None:
        """See `Asking`."""
        self.waits_since = time.monotonic()
        self.received_bytes += len(data)
        if self.conversation is not None:
            self.conversation.carry(self.conversation.received, len(data))
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
        self._upstream = None
        if self.phase is Phase.ASKED and self._kept and self._can_repeat():
            self._kept = False
            self.phase = Phase.REACHING
            backend = self.conversation.backend if self.conversation else None
            self._stream.pause()
            self._task = self._site.tasks.start(self._reach(backend), name=f"reach {self.request.host} again")
            return
        self._broken(reason, detail)

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
        waiting = self._upstream is not None and (self._trailers is not None or self._full)
        # A backend that is not read from, because the client does not read, is not silent.
        if waiting and not self._held_back and now - self.waits_since > self.patience:
            upstream, self._upstream = self._upstream, None
            if upstream is not None:
                upstream.abandon()
            self._broken(Reason.UPSTREAM_TIMEOUT, "")

    # ---- within

    def _judge(self, answer: Answer) -> None:
        """Raises `Unfit` where policy, or a credential, says no."""
        openers = answer.openers
        if openers:
            given = next((value for name, value in self.request.fields if name == "authorization"), None)
            self._presented = read_authorization(given) if given is not None else None
            outcome = self._site.judge.check(answer, self._presented, self._stream.visitor.who.source)
            if isinstance(outcome, Reason):
                raise Unfit(outcome)
            self.verified = outcome
        if self.verified is None and not answer.verdict.lets_through:
            raise self._stream.visitor.unfit(answer, self.request)
        if answer.pool is None and not (self._actions and self._actions.redirect):
            raise Unfit(Reason.NO_MAPPING)
        if self.verified is not None:
            # It was for us: what opens a door here is not for who is behind it.
            fields = tuple([each for each in self.request.fields if each[0] != "authorization"])
            named = ("x-marchproxy-service", self.verified.service)
            self.request = replace(self.request, fields=(*fields, named), encoded=b"")

    async def _reach(self, first: Backend | None) -> None:
        """Connect to the first backend that can be reached, `first` before the others."""
        reason = Reason.NO_BACKEND
        ledger, limits = self._site.ledger, self._site.limits
        backend = first
        while backend is not None and self.phase is Phase.REACHING:
            if ledger.is_blocked(backend):
                reason = Reason.BLOCKED_DESTINATION
            else:
                try:
                    left = self._deadline - time.monotonic()
                    async with asyncio.timeout(max(0.0, min(limits.each, left))):
                        upstream = await self._pool(backend).connect(backend)
                except OSError as error:
                    untrusted = isinstance(error, ssl.SSLError)
                    reason = Reason.TLS_FAILED if untrusted else sockets.refusal_reason(error)
                    log.debug("%s at %s:%d: %s", backend.service, backend.address, backend.port, error)
                else:
                    self._task = None
                    self._ask(upstream)
                    return
            if time.monotonic() >= self._deadline:
                break
            backend = self._following()
        self._task = None
        if self.phase is Phase.REACHING:
            self.refuse(Unfit(reason))

    def _pool(self, backend: Backend) -> Connections:
        """Where its connections to a backend come from. A WebSocket asks by HTTP/1.1."""
        site, rule = self._site, self._answer.rule
        wanted = rule.http2 if isinstance(rule, Rule) else Http2.NEVER
        if wanted is Http2.NEVER and not backend.http2:
            return site.pool
        calls = wanted is Http2.CALLS and not backend.http2
        return site.pool if self.request.websocket or (calls and not self._call) else site.http2

    def _following(self) -> Backend | None:
        """The next backend to try; None: there is no other."""
        if self._candidates is None:
            if self.conversation is None:
                return None
            self._candidates = self._site.ledger.candidates(self.conversation)
        return next(self._candidates, None)

    def _ask(self, upstream: Carrier) -> None:
        visitor = self._stream.visitor
        self._upstream = upstream
        self.phase = Phase.ASKED
        self.waits_since = time.monotonic()
        if self.conversation is not None:
            self._site.open(self.conversation, upstream.backend, begins=not self.request.websocket)
        request = self.request
        if not request.about:
            scheme = "https" if self._stream.secure else "http"
            request.about = about_client(str(visitor.who.source), scheme, request.authority, request.version)
        upstream.ask(self, for_backend(request, self._actions) if self._actions else request)
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

    def _changed(self, response: Response, actions: Actions) -> Response:
        """The answer as the client gets it."""
        cookie = ""
        if actions.sticky and self._upstream is not None:
            backend, secure = self._upstream.backend, self._stream.secure
            cookie = self._site.sticking(self._answer, self._asked, backend, secure=secure)
        return for_client(response, actions, cookie)

    def _can_repeat(self) -> bool:
        return not self._sent and (self.request.method in _REPEATABLE)

    def _broken(self, reason: Reason, detail: str) -> None:
        """The backend failed."""
        self._fail(Unfit(reason, detail))

    def _fail(self, unfit: Unfit) -> None:
        """Before the backend answered, the client can be told; afterwards it must notice."""
        if self.phase is Phase.ANSWERING:
            self._end()
            if self._call:
                self._stream.finish(grpc.trailers_of(unfit))
            else:
                self._stream.fail()
            return
        visitor = self._stream.visitor
        query = self._site.query(visitor.who, self.request)
        self._site.ledger.refuse(query, visitor.who.port, self._answer, unfit.reason, name=self.request.host)
        self._answer_ourselves(unfit)

    def _answer_ourselves(self, unfit: Unfit) -> None:
        self._refused = unfit.reason
        response, body = (grpc.failure(unfit), b"") if self._call else refusal(unfit)
        self._say(response, body)

    def _redirect(self, actions: Actions) -> None:
        try:
            said = redirection(self.request, actions)
        except Unfit as unfit:
            self.refuse(unfit)
        else:
            self._say(*said)

    def _say(self, response: Response, body: bytes) -> None:
        """Answer in place of a backend."""
        self.status = response.status
        self.responded = time.monotonic()
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
        if self._site.tells:
            self.tell()
        if self.request.websocket and self.conversation is not None:
            # It stayed a request.
            self._site.closed(self.conversation)

    def tell(self) -> None:
        """Write the request down."""
        request, visitor, conversation = self.request, self._stream.visitor, self.conversation
        backend = conversation.backend if conversation else None
        now = time.monotonic()
        facts = Exchanged(
            method=request.method,
            path=request.path,
            version=request.version,
            secure=self._stream.secure,
            status=self.status,
            backend=str(Endpoint(backend.address, backend.port)) if backend else "",
            received=self.received_bytes,
            waited=(self.responded or now) - self.began,
            took=now - self.began,
        )
        answer = self._answer
        if self._refused is not None:
            answer = replace(answer, verdict=Verdict.DENY, reason=self._refused)
        query = self._site.query(visitor.who, request)
        number = conversation.number if conversation else 0
        self._site.ledger.exchanged(query, visitor.who.port, answer, number, facts)
