"""One worker: a process that admits and relays, told what to do by the daemon over descriptor 3 or another.

`python -m marchproxy.dataplane.workers.worker DESCRIPTOR INDEX RATES VERBOSITY FORMAT`, started by `pool`.
When the daemon is gone it accepts nothing more, lets what is open finish for a while, and ends.
"""

import asyncio
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from datetime import datetime

import uvloop

from marchproxy.dataplane.admission.limits import default_limits
from marchproxy.dataplane.admission.ripe import ripe
from marchproxy.dataplane.admission.service import Admission
from marchproxy.dataplane.admission.tunnels import Tunnel
from marchproxy.dataplane.credentials.book import CredentialBook
from marchproxy.dataplane.credentials.contexts import Contexts
from marchproxy.dataplane.http.rates import Rates
from marchproxy.dataplane.kernel.backlog import lift_limits, limit_backlog
from marchproxy.dataplane.kernel.upstreamports import UpstreamPorts
from marchproxy.dataplane.logring import Handler
from marchproxy.dataplane.logs import LogFormat, configure, listen, log_unhandled, unlisten
from marchproxy.dataplane.names.found import Failure, Found, LookupFailed
from marchproxy.dataplane.proxy import ledger
from marchproxy.dataplane.proxy.connecting import connect, connected
from marchproxy.dataplane.proxy.relay import Relay
from marchproxy.dataplane.quic.replays import Replays
from marchproxy.dataplane.quic.steering import Steering
from marchproxy.dataplane.records import Event
from marchproxy.dataplane.settling import settle
from marchproxy.dataplane.tasks import Tasks
from marchproxy.dataplane.workers import messages
from marchproxy.dataplane.workers.channel import Channel
from marchproxy.dataplane.workers.eventwire import pack
from marchproxy.dataplane.workers.logsender import LogSender
from marchproxy.model.address import IPAddress
from marchproxy.model.errors import MarchproxyError

POLL = 0.25
TOLD_EVERY = 0.05
"""Seconds for which events are collected."""
TOLD_AT_ONCE = 512
ORPHANED = 10.0
"""Seconds that tunnels get to finish when the daemon is gone."""


class Worker:
    """Carries out what the daemon says."""

    def __init__(self, sock: socket.socket, rates: Rates | None = None) -> None:
        self.book = CredentialBook()
        self.ended = asyncio.Event()
        self._channel = Channel(sock, self._heard, self._orphaned)
        self.log = LogSender(self._channel.say)
        self._tasks = Tasks()
        self._asked: dict[int, asyncio.Future[object]] = {}
        self._numbers = 0
        self._edition = 0
        self._alone = False
        """The daemon is gone."""
        self._uses: dict[str, datetime] = {}
        self._events: list[Event] = []
        self._telling: asyncio.TimerHandle | None = None
        limits = default_limits(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self._remote = Remote(self._offer)
        self._contexts = Contexts()
        self._admission = Admission(
            self._find, self, handover=self._remote, limits=limits, contexts=self._contexts, rates=rates
        )
        self._admission.start(self._tell)

    def note_use(self, token: str, now: datetime) -> None:
        """See `judge.Credentials`."""
        self._uses[token] = now

    async def run(self) -> None:
        """Until the daemon says that it is over, or is gone."""
        polling = self._tasks.start(self._poll(), name="poll")
        await self.ended.wait()
        polling.cancel()
        self._report()
        self._flush()
        self.log.flush()
        await asyncio.sleep(0)
        self._channel.close()

    def _heard(self, message: object, descriptors: list[int]) -> None:
        match message:
            case messages.Serve():
                self._serve(message, descriptors)
            case messages.Know(parts):
                self.book = parts.book()
            case messages.Prove(identities):
                self._contexts.learn(identities)
            case messages.Resume(secret):
                self._contexts.share(secret)
            case messages.Steer(secret, index, count):
                self._admission.steer(Steering(secret, index, count), Replays(*descriptors))
            case messages.Want(kinds):
                self._admission.want(kinds)
            case messages.Ask(number, question):
                self._tasks.start(self._answer(number, question), name="answer")
            case messages.Answer(number, value):
                future = self._asked.pop(number, None)
                if future is not None and not future.done():
                    future.set_result(value)
            case messages.Drain(seconds):
                self._tasks.start(self._drain(seconds), name="drain")

    def _serve(self, message: messages.Serve, descriptors: list[int]) -> None:
        sockets = [socket.socket(fileno=each) for each in descriptors]
        opened = dict(zip(message.opened, sockets, strict=True))
        first, self._edition = not self._edition, message.edition
        self._admission.adopt(message.plan, message.revision, message.wanted, opened)
        # What a policy consists of stays.
        settle(trim=first)

    async def _answer(self, number: int, question: messages.Question) -> None:
        value: object
        match question:
            case messages.ListFlows(limit):
                value = await self._admission.flows(limit)
            case messages.FindUsed(addresses):
                value = await self._admission.in_use(addresses)
            case messages.Cut(ids):
                value = await self._admission.cut(ids)
            case messages.Revoke(token):
                value = await self._admission.revoke(token)
            case messages.AddUp():
                value = await self._admission.carried()
            case messages.CatchUp():
                self._report()
                self._flush()
                self.log.flush()
                value = True
        self._channel.say(messages.Answer(number, value))

    def _ask(self, make: Callable[[int], object], descriptors: Sequence[int] = ()) -> asyncio.Future[object]:
        self._numbers += 1
        future = self._asked[self._numbers] = asyncio.get_running_loop().create_future()
        self._channel.say(make(self._numbers), descriptors)
        return future

    async def _find(self, name: str) -> Found:
        found = await self._ask(lambda number: messages.Find(number, name))
        if isinstance(found, Found):
            return found
        raise found if isinstance(found, LookupFailed) else LookupFailed(Failure.UNREACHABLE)

    def _offer(self, tunnel: Tunnel, relay: Relay, gone: Callable[[], None]) -> None:
        """Ask the daemon to hand a paused tunnel to the kernel."""
        if self._alone:
            relay.start()
            return
        descriptors = relay.client.fileno(), relay.upstream.fileno()
        what = ripe(tunnel)
        tunnel.offered = True
        answered = self._ask(lambda number: messages.Offered(number, what, self._edition), descriptors)

        def decided(answer: asyncio.Future[object]) -> None:
            tunnel.offered = False
            taken = not answer.cancelled() and answer.result() is None
            if relay.ended:
                if taken:
                    self._channel.say(messages.Cut(frozenset({what.number})))
                return
            if taken:
                relay.leave()
                # The daemon's are the last: what it says to them is how they end.
                relay.client.close()
                relay.upstream.close()
                gone()
                return
            if tunnel.refused(passes=answer.cancelled() or bool(answer.result())):
                lift_limits(relay.client, relay.upstream)
            relay.start()

        answered.add_done_callback(decided)

    def _tell(self, event: Event) -> None:
        self._events.append(event)
        if len(self._events) >= TOLD_AT_ONCE:
            self._flush()
        elif self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(TOLD_EVERY, self._flush)

    def _flush(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        if self._events:
            self._channel.say(messages.Told(tuple(map(pack, self._events))))
            self._events.clear()

    async def _poll(self) -> None:
        while True:
            self._admission.poll()
            self._report()
            await asyncio.sleep(POLL)

    def _report(self) -> None:
        admission = self._admission
        unknown, self.book.unknown_keys = self.book.unknown_keys, set()
        uses, self._uses = self._uses, {}
        self._channel.say(
            messages.Facts(
                dict(admission.counters()),
                tuple(admission.denials()),
                tuple(admission.limit_states()),
                tuple(admission.fill()),
                tuple(admission.problems()),
                tuple(uses.items()),
                frozenset(unknown),
                tuple(admission.outliers()),
                admission.request_counts(),
            )
        )

    async def _drain(self, seconds: float) -> None:
        await self._admission.drain(seconds)
        self.ended.set()

    def _orphaned(self) -> None:
        self._alone = True
        self._admission.leave_ports()
        for future in self._asked.values():
            future.cancel()
        self._asked.clear()
        self._tasks.start(self._drain(ORPHANED), name="drain")


class Remote:
    """A worker's `Handover`: the daemon does what touches the kernel's flows."""

    def __init__(self, offer: Callable[[Tunnel, Relay, Callable[[], None]], None]) -> None:
        self._offer = offer
        self._ports: UpstreamPorts | None = None

    def start(self) -> None:
        """Take upstream ports from the range that may be handed off, where the kernel has our tables."""
        from marchproxy.dataplane.kernel import location
        from marchproxy.dataplane.kernel.objects import open_pinned_map

        pins = location.pin_directory()
        try:
            self._ports = UpstreamPorts({name: open_pinned_map(pins / name) for name in ("flows", "opening")})
        except MarchproxyError:
            self._ports = None

    def stop(self) -> None:
        """Offer nothing more: there is nobody to take it, and what is offered waits."""
        self._ports = None

    async def connect(self, address: IPAddress, port: int, until: float | None) -> socket.socket:
        """See `connecting.Connect`."""
        if self._ports is None:
            return await connect(address, port, until)
        return await connected(self._ports.open(address, port), until)

    def expect(self, client: socket.socket, upstream: socket.socket) -> None:
        """See `tunnels.Offering`."""
        if self._ports is not None:
            limit_backlog(client, upstream)

    def offer(self, tunnel: Tunnel, gone: Callable[[], None]) -> None:
        """See `tunnels.Handover`."""
        relay = tunnel.relay
        if self._ports is None or relay is None or relay.ended:
            return
        relay.when_quiet(lambda: self._offer(tunnel, relay, gone))

    def end_where(self, judge: object) -> None:
        """Tunnels that the kernel has are the daemon's."""

    def revoke(self, token: str) -> int:
        """The same."""
        return 0

    async def close(self) -> None:
        """Nothing drains here."""


async def serve(sock: socket.socket, index: int, rates: Rates | None = None) -> None:
    """Be the worker of this number of whoever has the other end of `sock`."""
    asyncio.get_running_loop().set_exception_handler(log_unhandled)
    worker = Worker(sock, rates)
    handler = Handler(worker.log.put, f"worker {index}")
    listen(handler)
    try:
        await worker.run()
    finally:
        unlisten(handler)


def main() -> int:
    """The process."""
    descriptor, index, shared, verbosity = map(int, sys.argv[1:5])
    os.set_inheritable(descriptor, False)
    rates = Rates(shared)
    os.close(shared)
    # Ctrl-C and the service manager's SIGTERM are for the daemon, which then ends its workers in order.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    configure(verbosity, LogFormat(sys.argv[5]))
    ledger.number_as(index)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(socket.socket(fileno=descriptor), index, rates))
    return 0


if __name__ == "__main__":
    sys.exit(main())
