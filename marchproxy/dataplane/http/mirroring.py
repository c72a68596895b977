"""Copies of requests for a service whose answers nobody reads (`Mapping.mirror`).

A copy is kept beside its request and sent when that is complete: it has values of the request, nothing that
the exchange waits for, and its own deadline. What would cost too much is not copied, and counted. What comes
of it is no fact about the backend: nobody leaves one out for how it treats copies.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace

from marchproxy.dataplane.http.counts import Mirrored
from marchproxy.dataplane.http.fields import VIA, about_client
from marchproxy.dataplane.http.messages import Fields, Request, Response
from marchproxy.dataplane.http.rewriting import for_backend
from marchproxy.dataplane.http.tracing import settle_id
from marchproxy.dataplane.http.upstream import Carrier, Connections
from marchproxy.dataplane.http.visitor import Visitor
from marchproxy.dataplane.proxy.ledger import Ledger
from marchproxy.dataplane.tasks import Tasks
from marchproxy.model.reason import Reason
from marchproxy.policy.evaluate import Answer
from marchproxy.policy.mirrors import withheld
from marchproxy.policy.plan import Backend, Mirror, Rule

MOST_BODY = 256 * 1024
"""Bytes of a body; what is larger is not copied."""
MOST_HELD = 16 * 1024 * 1024
"""Bytes of bodies that one process holds for copies."""
MOST = 64
"""Copies that one process has under way."""
DEADLINE = 10.0
"""Seconds for a copy, from the end of its request to the end of its answer."""
MOST_ANSWER = 1024 * 1024
"""Bytes of an answer that are read so that its connection may be used again."""
MARK = "x-marchproxy-mirror"
"""Names the mapping in a copy. Clients' own fields of that beginning go no further."""
_COPIED = f"{VIA} (mirror)"
"""In `Via` of copies (RFC 9110 section 7.6.3): where one comes back to us it is not copied again."""

type Choose = Callable[[Rule, Backend, Request], Connections]
"""Where connections for a request to a backend come from."""


class Copy:
    """One, while its request comes."""

    __slots__ = ("_body", "_mirrors", "_open", "backend", "dropped", "made", "pool", "request")

    def __init__(
        self, mirrors: "Mirrors", pool: Connections, backend: Backend, request: Request, made: str
    ) -> None:
        self.backend = backend
        self.pool = pool
        self.request = request
        self.made = made
        """The id that it has from us; empty: it came with one."""
        self._body = bytearray()
        self._mirrors = mirrors
        self._open = True
        self.dropped = False

    def send(self, data: memoryview | bytes) -> None:
        """A piece of the body."""
        if not self._open:
            return
        if len(self._body) + len(data) > MOST_BODY or not self._mirrors.hold(len(data)):
            self.abandon()
            return
        self._body += data

    def finish(self, trailers: Fields) -> None:
        """The request is complete: send it, if there is room."""
        if not self._open:
            return
        if self._mirrors.begin(self, bytes(self._body), trailers):
            self._open = False
            self._body.clear()
        else:
            self.abandon()

    def abandon(self) -> None:
        """The request will not be complete, or is too large."""
        if self._open:
            self._open, self.dropped = False, True
            self._mirrors.drop(len(self._body))
            self._body.clear()


class Mirrors:
    """Those of one process."""

    def __init__(self, ledger: Ledger, tasks: Tasks, choose: Choose) -> None:
        self.counts = Mirrored()
        self._ledger = ledger
        self._tasks = tasks
        self._choose = choose
        self._held = 0
        self._under_way = 0

    def take(
        self,
        answer: Answer,
        visitor: Visitor,
        request: Request,
        made: str,
        trailers: Fields | None,
        *,
        secure: bool,
    ) -> Copy | None:
        """A copy of a request that was let through by `answer`; None: of this one there is none.

        `made` is the id that it gets unless it came with one. `trailers` None: its body is to come.
        """
        rule = answer.rule
        mirror = rule.handling.mirror if isinstance(rule, Rule) else None
        if request.websocket or mirror is None or not isinstance(rule, Rule) or _is_copy(request):
            return None
        # What is drawn protects nothing.
        if mirror.percent < 100 and random.random() * 100 >= mirror.percent:  # noqa: S311
            return None
        backend = self._backend(mirror, visitor, rule)
        if backend is None or (request.length or 0) > MOST_BODY or self._under_way >= MOST:
            self.counts.mirror_dropped += 1
            return None
        scheme = "https" if secure else "http"
        about = about_client(str(visitor.who.source), scheme, request.authority, request.version)
        told = tuple([(name, f"{value} (mirror)" if name == "via" else value) for name, value in about])
        copied = for_backend(request, answer.actions)
        copied = replace(copied, about=(*told, (MARK, answer.mapping)), encoded=b"")
        own = "" if settle_id(copied) else made
        copy = Copy(self, self._choose(rule, backend, copied), backend, copied, own)
        if trailers is not None:
            copy.finish(trailers)
        return copy

    def hold(self, size: int) -> bool:
        """Whether there is room for so many more bytes, which is taken."""
        if self._held + size > MOST_HELD:
            return False
        self._held += size
        return True

    def drop(self, held: int) -> None:
        """A copy was given up that held so many bytes."""
        self._held -= held
        self.counts.mirror_dropped += 1

    def begin(self, copy: Copy, body: bytes, trailers: Fields) -> bool:
        """Send one, if not too many are under way, and its backend was not blocked while it was gathered."""
        if self._under_way >= MOST or self._ledger.is_blocked(copy.backend):
            return False
        self._under_way += 1
        self._tasks.start(self._send(copy, body, trailers), name=f"copy to {copy.backend.service}")
        return True

    def _backend(self, mirror: Mirror, visitor: Visitor, rule: Rule) -> Backend | None:
        """One that may get it, as often as its weight wants."""
        table = mirror.pool.table
        if not table:
            return None
        backend = mirror.pool.backends[random.choice(table)]  # noqa: S311
        evaluator = visitor.evaluator
        services = evaluator.sources.services(visitor.who.source)
        kept = self._ledger.is_blocked(backend) or withheld(evaluator, services, backend, rule)
        return None if kept else backend

    async def _send(self, copy: Copy, body: bytes, trailers: Fields) -> None:
        answered = False
        try:
            async with asyncio.timeout(DEADLINE):
                answered = await _ask(copy, body, trailers)
        except OSError:
            pass
        finally:
            self._held -= len(body)
            self._under_way -= 1
            self.counts.mirrored += answered
            self.counts.mirror_failed += not answered


async def _ask(copy: Copy, body: bytes, trailers: Fields) -> bool:
    """Whether there was an answer. Raises `OSError`."""
    carrier = copy.pool.take(copy.backend) or await copy.pool.connect(copy.backend)
    unread = _Unread(carrier)
    request = replace(copy.request, length=None if trailers else len(body))
    try:
        carrier.ask(unread, request, copy.made)
        if body:
            carrier.send(body)
        carrier.finish(trailers)
        return await unread.over
    finally:
        unread.leave()


class _Unread:
    """Whoever has sent a copy: `Asking` that wants to know nothing but the end."""

    def __init__(self, carrier: Carrier) -> None:
        self.over: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._carrier: Carrier | None = carrier
        self._received = 0

    def leave(self) -> None:
        """Let go of the connection, unless the answer is complete."""
        carrier = self._carrier
        if carrier is not None:
            self._end(answered=self._received > 0)
            carrier.abandon()

    def informed(self, response: Response) -> None:
        """See `Asking`."""

    def answered(self, response: Response) -> None:
        """See `Asking`."""
        self._received += 1
        if response.status == 101:
            self.leave()

    def received(self, data: memoryview | bytes) -> None:
        """See `Asking`."""
        self._received += len(data)
        if self._received > MOST_ANSWER:
            self.leave()

    def flush(self) -> None:
        """See `Asking`."""

    def complete(self, trailers: Fields) -> None:
        """See `Asking`."""
        self._end(answered=True)

    def failed(self, reason: Reason, detail: str) -> None:
        """See `Asking`."""
        self._end(answered=self._received > 0)

    def upstream_full(self) -> None:
        """See `Asking`; a copy is small enough to wait in the buffer of its connection."""

    def upstream_ready(self) -> None:
        """See `Asking`."""

    def _end(self, *, answered: bool) -> None:
        self._carrier = None
        if not self.over.done():
            self.over.set_result(answered)


def _is_copy(request: Request) -> bool:
    return any(name == "via" and _COPIED in value for name, value in request.fields)
