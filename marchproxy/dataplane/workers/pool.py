"""The daemon's side of its workers: admission as the supervisor knows it, carried out by other processes.

What needs the kernel's flows, and the policy of tunnels that are there already, stays with an `Admission` in
the daemon that listens nowhere. A worker that dies takes the tunnels with it that it relayed; the listening
sockets are still ours, and another takes its place.
"""

import asyncio
import logging
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from marchproxy.dataplane.admission.listeningsockets import ListeningSockets, Prepared
from marchproxy.dataplane.admission.names import Find
from marchproxy.dataplane.admission.ripe import Ripe
from marchproxy.dataplane.admission.service import Admission
from marchproxy.dataplane.carried import Carried
from marchproxy.dataplane.credentials.certificates import CertificateKeeper
from marchproxy.dataplane.credentials.keeper import CredentialKeeper
from marchproxy.dataplane.credentials.tickets import Tickets
from marchproxy.dataplane.http.rates import share
from marchproxy.dataplane.logring import Said
from marchproxy.dataplane.logs import LogFormat
from marchproxy.dataplane.names.found import Failure, LookupFailed
from marchproxy.dataplane.quic import replays
from marchproxy.dataplane.records import (
    Denials,
    EventKind,
    EventSink,
    Flow,
    LimitState,
    Outlier,
    TableFill,
    Traffic,
)
from marchproxy.dataplane.tasks import Tasks
from marchproxy.dataplane.workers import messages
from marchproxy.dataplane.workers.channel import DESCRIPTORS, Channel
from marchproxy.dataplane.workers.eventwire import unpack
from marchproxy.dataplane.workers.totals import Totals
from marchproxy.model.address import IPAddress
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import ListenerKey, Plan

if TYPE_CHECKING:
    from marchproxy.dataplane.admission.handover import Handover

log = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds for a worker to answer."""
MOMENT = 0.5
"""Seconds for workers to tell what they know, before it is answered without them."""
STARTING = 20.0
"""The same of one that has not said anything yet, and may still be looking for its modules."""
AGAIN = 1.0
"""Seconds between the end of a worker and the start of the next in its place."""
SILENT = 120
"""How often a worker that says nothing is looked after, four times a second, before it is killed. Looks,
not seconds: a daemon that stood still has not heard what was said meanwhile."""
LEAVE = 3.0
"""Seconds beyond its time that a draining worker gets before it is killed."""


class WorkerPool:
    """Stands in for `Admission`: what is said there of each method holds here for all workers together."""

    def __init__(
        self,
        count: int,
        find: Find,
        credentials: CredentialKeeper,
        certificates: CertificateKeeper,
        handover: "Handover | None",
        sockets: ListeningSockets | None = None,
        verbosity: int = 0,
        log_format: LogFormat = LogFormat.CONSOLE,
        logged: Callable[[Said], None] = lambda said: None,
    ) -> None:
        """`logged` takes what workers log; their lines on stderr are their own."""
        self.logged = logged
        self.rates = share()
        """The descriptor by which all workers count requests together."""
        self._replays = replays.share()
        """The descriptor by which they know together what clients of QUIC have said early."""
        self._own = Admission(find, credentials, handover=handover)
        self._find = find
        self._credentials = credentials
        self._certificates = certificates
        self._handover = handover
        self._workers = [_Place(self, index, verbosity, log_format) for index in range(count)]
        self._secret = secrets.token_bytes(32)
        """What workers prove to clients of QUIC, and their successors after them."""
        self._tickets = Tickets()
        self._plan = Plan()
        self._revision = self._edition = 0
        self._wanted: frozenset[ListenerKey] = frozenset()
        self._sockets = sockets or ListeningSockets()
        self._sink: EventSink = lambda event: None
        self._kinds = frozenset(EventKind)
        self._known: object = None
        self._proven: object = None
        self._tasks = Tasks()

    def start(self, sink: EventSink) -> None:
        """See `Admission.start`."""
        self._sink = sink
        self._own.start(sink)

    def want(self, kinds: frozenset[EventKind]) -> None:
        """See `Admission.want`."""
        self._kinds = kinds
        self._own.want(kinds)
        self._say(messages.Want(kinds))

    def prepare(self, plan: Plan) -> Prepared:
        """See `Admission.prepare`."""
        return Prepared(self, self._sockets, plan, self._sockets.open(plan))

    def adopt(
        self,
        plan: Plan,
        revision: int,
        wanted: frozenset[ListenerKey],
        opened: Mapping[ListenerKey, socket.socket],
    ) -> None:
        """See `Admission.adopt`."""
        self._own.adopt(plan, revision, frozenset(), {})
        self._plan, self._revision = plan, revision
        self._edition += 1
        self._wanted = wanted
        self._know()
        for place in self._workers:
            if place.alive:
                place.serve(opened)
            else:
                # At once: whoever is told that the plan is in force is not to wait for its first answer.
                place.look_after(needed=bool(wanted))

    async def inform(self) -> None:
        """See `Admission.inform`: whoever issues a token may use it when the command returns.

        Workers that have only been started answer once they serve.
        """
        self._know()
        await self._ask_all(messages.CatchUp())

    async def settle(self) -> None:
        """See `Admission.settle`. Who does not answer now is not waited for: it may be long."""
        serving = [place for place in self._workers if place.alive and place.serves]
        with suppress(TimeoutError):
            async with asyncio.timeout(MOMENT):
                await asyncio.gather(*(place.ask(messages.CatchUp()) for place in serving))

    def _know(self) -> None:
        """Tell workers of credentials and certificates that have changed."""
        if self._credentials.parts is not self._known:
            self._known = self._credentials.parts
            self._say(messages.Know(self._credentials.parts))
        if self._certificates.identities is not self._proven:
            self._proven = self._certificates.identities
            self._say(messages.Prove(self._certificates.identities))
        if self._tickets.renew():
            self._say(messages.Resume(self._tickets.secret))

    def poll(self) -> None:
        """See `Admission.poll`. Workers poll themselves; here they are started, and started again."""
        self._own.poll()
        self._know()
        for place in self._workers:
            place.look_after(needed=bool(self._wanted))

    async def flows(self, limit: int) -> Sequence[Flow]:
        """See `Admission.flows`."""
        found: list[Flow] = []
        for answer in await self._ask_all(messages.ListFlows(limit)):
            found += answer if isinstance(answer, list) else ()
        return found[:limit]

    async def in_use(self, addresses: frozenset[IPAddress]) -> frozenset[IPAddress]:
        """See `Admission.in_use`. Of a worker that does not answer, all are."""
        found: frozenset[IPAddress] = frozenset()
        for answer in await self._ask_all(messages.FindUsed(addresses)):
            found |= answer if isinstance(answer, frozenset) else addresses
        return found

    async def cut(self, ids: frozenset[int]) -> set[int]:
        """See `Admission.cut`."""
        found: set[int] = set()
        for answer in await self._ask_all(messages.Cut(ids)):
            found |= answer if isinstance(answer, set) else set()
        return found

    async def revoke(self, token: str) -> int:
        """See `Admission.revoke`."""
        self._know()
        answers = await self._ask_all(messages.Revoke(token))
        return await self._own.revoke(token) + sum(each for each in answers if isinstance(each, int))

    async def carried(self) -> Carried:
        """See `Admission.carried`. Of a worker that dies it is as it was when somebody last asked."""
        found = (await self._own.carried()).copy()
        for each in await asyncio.gather(*(place.carried() for place in self._workers)):
            found.add(each)
        return found

    def counters(self) -> Mapping[Reason, Traffic]:
        """See `Admission.counters`; they outlive the worker that counted."""
        return self._totals().counters

    def denials(self) -> Sequence[Denials]:
        """See `Admission.denials`."""
        return self._totals().denials

    def limit_states(self) -> Sequence[LimitState]:
        """See `Admission.limit_states`."""
        return self._totals().limits

    def fill(self) -> Sequence[TableFill]:
        """See `Admission.fill`."""
        return self._totals().fill

    def outliers(self) -> Sequence[Outlier]:
        """See `Admission.outliers`."""
        return self._totals().outliers

    def request_counts(self) -> Mapping[str, int]:
        """See `Admission.request_counts`."""
        return self._totals().requests

    def problems(self) -> Sequence[str]:
        """See `Admission.problems`, and workers that keep dying."""
        said = (text for place in self._workers for text in place.problems())
        return list(dict.fromkeys([*self._own.problems(), *filter(None, [self._sockets.unserved]), *said]))

    async def drain(self, seconds: float) -> None:
        """See `Admission.drain`."""
        self._sockets.close()
        await asyncio.gather(*(place.drain(seconds) for place in self._workers))
        await self._own.drain(0)

    async def close(self) -> None:
        """See `Admission.close`."""
        self._sockets.close()
        await asyncio.gather(*(place.drain(0) for place in self._workers))
        await self._tasks.stop()
        await self._own.close()
        tables = self.rates, self._replays
        self.rates = self._replays = -1
        for each in tables:
            if each >= 0:
                os.close(each)

    def _say(self, message: object) -> None:
        for place in self._workers:
            place.say(message)

    async def _ask_all(self, question: messages.Question) -> Sequence[object]:
        """An answer of each that lives, None of one that did not answer."""
        living = [place for place in self._workers if place.alive]
        return await asyncio.gather(*(place.ask(question) for place in living))

    def _totals(self) -> Totals:
        return Totals.of(place.facts for place in self._workers).beside(self._own)

    # ---- for places

    def introduce(self, place: "_Place") -> None:
        """Tell a new worker all that the others know."""
        place.say(messages.Want(self._kinds))
        place.say(messages.Steer(self._secret, place.index, len(self._workers)), [self._replays])
        place.say(messages.Know(self._credentials.parts))
        place.say(messages.Prove(self._certificates.identities))
        place.say(messages.Resume(self._tickets.secret))
        held = self._sockets.held
        place.serve({key: sock for key, sock in held.items() if key in self._wanted})

    def told(self, message: messages.Told) -> None:
        """Pass events on."""
        for packed in message.events:
            self._sink(unpack(packed))

    def note(self, facts: messages.Facts) -> None:
        """What is not only looked at when somebody asks."""
        for token, instant in facts.uses:
            self._credentials.note_use(token, instant)
        self._credentials.book.unknown_keys |= facts.unknown_keys

    def socket_of(self, key: ListenerKey, index: int) -> socket.socket:
        """The one that a worker listens at."""
        return self._sockets.of_process(key, index)

    def serve_message(self, plan_for: Mapping[ListenerKey, socket.socket]) -> messages.Serve:
        """What workers are to serve, these sockets being new to them."""
        return messages.Serve(self._plan, self._revision, self._edition, self._wanted, tuple(plan_for))

    def look_up(self, place: "_Place", message: messages.Find) -> None:
        """Answer with what a name resolves to."""
        self._tasks.start(self._look_up(place, message), name=f"look up {message.name}")

    async def _look_up(self, place: "_Place", message: messages.Find) -> None:
        try:
            found: object = await self._find(message.name)
        except LookupFailed as error:
            found = error
        except Exception as error:
            log.error("look up %s: %s: %s", message.name, type(error).__name__, error)
            found = LookupFailed(Failure.UNREACHABLE)
        place.say(messages.Answer(message.number, found))

    def take(self, place: "_Place", message: messages.Offered, descriptors: Sequence[int]) -> None:
        """Hand a worker's tunnel to the kernel, or say that this cannot be.

        One that was allowed by another plan is not taken: its worker judges again first.
        """
        client, upstream = (socket.socket(fileno=each) for each in descriptors)

        def answer() -> None:
            value = True if message.edition != self._edition else self._take(client, upstream, message.ripe)
            if value is not None:
                client.close()
                upstream.close()
            place.say(messages.Answer(message.number, value))

        if self._handover is None:
            answer()
        else:
            self._handover.when_numbered(message.ripe.mapping, answer)

    def _take(self, client: socket.socket, upstream: socket.socket, ripe: Ripe) -> bool | None:
        """See `messages.Offered`."""
        if self._handover is None:
            return False
        refused = self._handover.take(client, upstream, ripe)
        return refused.passes if refused else None

    def end_taken(self, ids: frozenset[int]) -> None:
        """End tunnels that the kernel took when they had ended in a worker, which has told of it."""
        if self._handover:
            self._handover.end_untold(ids)


class _Place:
    """One worker, and the next one in its place when it dies."""

    def __init__(self, pool: WorkerPool, index: int, verbosity: int, log_format: LogFormat) -> None:
        self.facts = messages.Facts()
        """Of all workers that were here."""
        self._carried, self._retired_carried = Carried(), Carried()
        """As the one that is here has last told, and of those before it."""
        self._pool = pool
        self.index = index
        self._logging = str(verbosity), log_format.value
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._retired = messages.Facts()
        self._asked: dict[int, asyncio.Future[object]] = {}
        self._numbers = 0
        self._died_at = self._not_before = float("-inf")
        self._cannot_start = ""
        self._silent = 0
        """How often it was looked after since it said how it is."""
        self.serves = False
        """It has said how it is."""
        self._leaving = False

    @property
    def alive(self) -> bool:
        """Whether there is somebody to talk to."""
        return self._channel is not None

    def look_after(self, *, needed: bool) -> None:
        """Start it where it is needed and is not there."""
        if self._process is not None and self._channel is None and self._process.poll() is not None:
            self._process = None
        if needed and self._process is None and not self._leaving and time.monotonic() >= self._not_before:
            self._start()
        elif self._channel and not self._leaving:
            self._listen()

    def serve(self, opened: Mapping[ListenerKey, socket.socket]) -> None:
        """Give it the plan in force, and sockets that it does not have; a few at a time."""
        keys = list(opened)
        while True:
            some = {key: opened[key] for key in keys[:DESCRIPTORS]}
            own = [self._pool.socket_of(key, self.index) for key in some]
            self.say(self._pool.serve_message(some), [sock.fileno() for sock in own])
            keys = keys[DESCRIPTORS:]
            if not keys:
                return

    def say(self, message: object, descriptors: Sequence[int] = ()) -> None:
        """Send a message, if there is somebody."""
        if self._channel:
            self._channel.say(message, descriptors)

    async def ask(self, question: messages.Question) -> object:
        """Its answer; None where it does not answer."""
        self._numbers += 1
        number = self._numbers
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        self.say(messages.Ask(number, question))
        try:
            async with asyncio.timeout(PATIENCE if self.serves else STARTING):
                return await future
        except TimeoutError:
            return None
        finally:
            self._asked.pop(number, None)

    async def carried(self) -> Carried:
        """What all workers that were here have carried."""
        answer = await self.ask(messages.AddUp()) if self.alive else None
        if isinstance(answer, Carried):
            self._carried = answer
        found = self._retired_carried.copy()
        found.add(self._carried)
        return found

    def problems(self) -> Sequence[str]:
        """What it says, and that it died lately or does not start."""
        if self._cannot_start:
            return [self._cannot_start]
        if time.monotonic() - self._died_at < 60:
            return [*self.facts.problems, f"worker {self.index + 1} ended unexpectedly a moment ago"]
        return self.facts.problems

    async def drain(self, seconds: float) -> None:
        """Let it finish, and wait until it is gone; kill it where that takes too long."""
        self._leaving = True
        self.say(messages.Drain(seconds))
        process = self._process
        if process is None:
            return
        deadline = time.monotonic() + seconds + LEAVE
        while process.poll() is None:
            if time.monotonic() > deadline:
                log.warning("worker %d does not end: killed", self.index + 1)
                process.kill()
                deadline = float("inf")
            await asyncio.sleep(0.02)
        self._process = None

    def _listen(self) -> None:
        """Kill it where it has said nothing for too long; another takes its place."""
        self._silent += 1
        if self._silent > SILENT and self._process:
            log.warning("worker %d does not answer: killed", self.index + 1)
            self._silent = 0
            self._process.kill()

    def _start(self) -> None:
        """Start it, or try again in a while."""
        try:
            self._spawn()
        except OSError as error:
            if not self._cannot_start:
                log.error("worker %d cannot be started: %s", self.index + 1, error.strerror)
            self._cannot_start = f"worker {self.index + 1} cannot be started: {error.strerror}"
            self._not_before = time.monotonic() + AGAIN
            return
        self._cannot_start = ""
        self._silent = 0
        self.serves = False
        self._pool.introduce(self)

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            rates = self._pool.rates
            words = [str(theirs.fileno()), str(self.index + 1), str(rates), *self._logging]
            # Where environment and working folder have no say in what we import, they have none in workers.
            isolated = ["-I"] if sys.flags.isolated else []
            try:
                self._process = subprocess.Popen(
                    [sys.executable, *isolated, "-m", "marchproxy.dataplane.workers.worker", *words],
                    pass_fds=[theirs.fileno(), rates],
                    stdin=subprocess.DEVNULL,
                )
            except OSError:
                ours.close()
                raise
        self._channel = Channel(ours, self._heard, self._lost)

    def _heard(self, message: object, descriptors: list[int]) -> None:
        match message:
            case messages.Told():
                self._pool.told(message)
            case messages.Facts():
                self._silent = 0
                self.serves = True
                self.facts = Totals.joined(self._retired, message)
                self._pool.note(message)
            case messages.Logged(said, lost):
                self._keep_log(said, lost)
            case messages.Answer(number, value):
                future = self._asked.pop(number, None)
                if future is not None and not future.done():
                    future.set_result(value)
            case messages.Find():
                self._pool.look_up(self, message)
            case messages.Offered():
                self._pool.take(self, message, descriptors)
            case messages.Cut(ids):
                self._pool.end_taken(ids)

    def _keep_log(self, said: Sequence[Said], lost: int) -> None:
        for each in said:
            self._pool.logged(each)
        if lost:
            log.warning("worker %d: %d of its log records came too fast to be kept", self.index + 1, lost)

    def _lost(self) -> None:
        self._channel = None
        for future in self._asked.values():
            if not future.done():
                future.set_result(None)
        self._asked.clear()
        # Nothing is open there any more, and what was counted stays counted.
        self._retired_carried.add(self._carried)
        self._carried = Carried()
        self._retired = self.facts = Totals.retired(self.facts)
        if not self._leaving:
            self._died_at = time.monotonic()
            self._not_before = self._died_at + AGAIN
            log.error("worker %d ended unexpectedly: the tunnels that it relayed are gone", self.index + 1)
        with suppress(ProcessLookupError):
            if self._process and not self._leaving:
                self._process.kill()
