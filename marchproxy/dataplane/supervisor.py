"""Starts, tends and stops the daemon. `intent` brings plans, a tier carries them; here nothing is decided."""

import asyncio
import gc
import logging
import os
import signal
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from marchproxy.dataplane.agreement import Explanation
from marchproxy.dataplane.ahead import Ahead
from marchproxy.dataplane.askednames import AskedNames
from marchproxy.dataplane.capture.packet import Feed
from marchproxy.dataplane.capture.wish import Wish, service_prefixes
from marchproxy.dataplane.carriedcounts import CarriedCounts
from marchproxy.dataplane.choice import choose_admission, choose_tier
from marchproxy.dataplane.control.api import ControlApi
from marchproxy.dataplane.control.server import HttpServer, Limits
from marchproxy.dataplane.credentials.book import Verified
from marchproxy.dataplane.credentials.certificates import CertificateKeeper
from marchproxy.dataplane.credentials.keeper import CredentialKeeper
from marchproxy.dataplane.dns.forwarder import Forwarder
from marchproxy.dataplane.dns.responder import Responder
from marchproxy.dataplane.dns.service import DnsService
from marchproxy.dataplane.events import EventHub, Subscription
from marchproxy.dataplane.export import LogExport
from marchproxy.dataplane.fdstore import DescriptorStore
from marchproxy.dataplane.flowquery import FlowFilter, FlowPage, FlowQuestion
from marchproxy.dataplane.health.checks import HealthChecks
from marchproxy.dataplane.health.probes import probe
from marchproxy.dataplane.healthserver import HealthServer
from marchproxy.dataplane.intent import Intent
from marchproxy.dataplane.keeper import TierKeeper
from marchproxy.dataplane.learning import Learning, learned_file
from marchproxy.dataplane.logring import LogRing, keep_log
from marchproxy.dataplane.logs import log_unhandled
from marchproxy.dataplane.names import memory
from marchproxy.dataplane.names.resolver import Resolver
from marchproxy.dataplane.naming import AllServices
from marchproxy.dataplane.notify import Notifier
from marchproxy.dataplane.options import RunOptions
from marchproxy.dataplane.outliers import Outliers
from marchproxy.dataplane.preview import SCANNED, Preview, preview
from marchproxy.dataplane.probation import Probation
from marchproxy.dataplane.pulling import Pulling
from marchproxy.dataplane.records import BackendEvent, EventKind, InterfaceEvent, InterfaceState, ProblemEvent
from marchproxy.dataplane.renewal import Renewal
from marchproxy.dataplane.runtime import RuntimeDir
from marchproxy.dataplane.settling import settle
from marchproxy.dataplane.status import Applied, Problem, Status
from marchproxy.dataplane.tasks import Tasks
from marchproxy.dataplane.toplists import TopList, TopLists, TopOrder, TopQuestion
from marchproxy.model.address import IPAddress
from marchproxy.model.change import Change
from marchproxy.model.endpoint import Endpoint
from marchproxy.model.names import qualify
from marchproxy.model.presented import Presented
from marchproxy.model.reason import Reason
from marchproxy.policy.evaluate import Query
from marchproxy.policy.plan import Finding, Plan, Rule
from marchproxy.store.location import DEFAULT_STATE_DIR
from marchproxy.version import VERSION

log = logging.getLogger(__name__)

POLL = 0.25
"""Seconds between two turns of looking after everything."""
CONTROL_LIMITS = Limits(body=16 * 1024 * 1024)
"""A preview takes all changes at once: 30,000 services and mappings are 10 MB."""
_STOPPING = (signal.SIGTERM, signal.SIGINT)


async def serve(options: RunOptions, runtime: RuntimeDir, ahead: Ahead) -> None:
    """Serve in the running loop until a signal says otherwise. Raises as `start.run`."""
    asyncio.get_running_loop().set_exception_handler(log_unhandled)
    notifier = Notifier.from_environment()
    async with AsyncExitStack() as stack:
        stack.callback(notifier.close)
        ring = stack.enter_context(keep_log())
        store = DescriptorStore.adopt(notifier)
        # Whoever writes a revision while this starts can connect, and is answered when it serves: were the
        # socket made later, what was written after the first reading would wait for the next change.
        listening = stack.enter_context(runtime.open_socket())
        worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        stack.callback(worker.shutdown)

        async def in_use(addresses: frozenset[IPAddress]) -> frozenset[IPAddress]:
            return await keeper.in_use(addresses)

        resolver = Resolver(in_use=in_use, kept_in=_names_file(options.state_dir))
        stack.push_async_callback(resolver.close)
        checks = HealthChecks(
            lambda state: keeper.events.tell(BackendEvent(state)),
            ask=lambda backend, check: probe(backend, check, certificates.contexts),
        )
        stack.push_async_callback(checks.close)

        async def carry_out(plan: Plan, revision: int) -> None:
            # Before the first client comes to a listener that is new.
            await certificates.read(plan)
            await keeper.apply(plan, revision)

        # Open before there is a tier: how large tables are to be is among the settings.
        intent = Intent(options.state_dir, worker, resolver, checks, carry_out)
        stack.push_async_callback(intent.close)
        await intent.open()
        # What was to be confirmed while no daemon ran goes back before anything is carried out.
        probation = Probation(intent, options.state_dir)
        await probation.attend()
        credentials = CredentialKeeper(intent, options.state_dir)
        stack.push_async_callback(credentials.close)
        certificates = CertificateKeeper(intent)
        flow_table = (await intent.settings()).flow_table
        tier, why = choose_tier(no_bpf=options.no_bpf, flow_table=flow_table, ahead=ahead)
        admission = choose_admission(tier, resolver.find, credentials, certificates, store, options, ring.add)
        keeper = TierKeeper(tier, why, admission)
        export = LogExport(intent, keeper, options.log_dir)
        # Ends what is told when the tier ends: so it is closed after it.
        stack.push_async_callback(export.close)
        stack.push_async_callback(keeper.close)
        renewal = Renewal(intent.refresh, intent.names_in_force)
        forwarder = Forwarder(resolver.asker)
        stack.push_async_callback(forwarder.close)
        asked = AskedNames(resolver)
        learning = Learning(learned_file(options.state_dir))
        keeper.events.host_name, keeper.events.audited = asked.name, learning.take
        keeper.events.service, intent.told = AllServices(lambda: intent.snapshot).name, keeper.events.tell
        dns = DnsService(Responder(forwarder, asked, renewal.reach, intent.blocked_name))
        stack.push_async_callback(dns.close)
        supervisor = Supervisor(
            keeper,
            intent,
            credentials,
            certificates,
            probation,
            learning,
            ring,
            resolver,
            renewal,
            dns,
            checks,
            export,
            notifier,
            options.metrics,
        )
        stack.push_async_callback(supervisor.close)
        await supervisor.start()
        control = HttpServer("control", ControlApi(supervisor).handle, limits=CONTROL_LIMITS)
        stack.push_async_callback(control.close)
        await control.start(listening)
        await supervisor.attend(options.drain)


class Supervisor:
    """The daemon's parts at work together. This is the `Appliance` that the control socket talks to."""

    def __init__(
        self,
        keeper: TierKeeper,
        intent: Intent,
        credentials: CredentialKeeper,
        certificates: CertificateKeeper,
        probation: Probation,
        learning: Learning,
        logs: LogRing,
        resolver: Resolver,
        renewal: Renewal,
        dns: DnsService,
        checks: HealthChecks,
        export: LogExport,
        notifier: Notifier,
        metrics: Endpoint | None,
    ) -> None:
        self._keeper = keeper
        self._intent = intent
        self._credentials = credentials
        self._certificates = certificates
        self._probation = probation
        self.learning = learning
        self.logs = logs
        self._resolver = resolver
        self._renewal = renewal
        self._dns = dns
        self._checks = checks
        self._export = export
        self._carried = CarriedCounts(keeper)
        self._counts = metrics is not None
        self._health = HealthServer(metrics, self.status, self._carried.read)
        self._notifier = notifier
        self._tasks = Tasks()
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._started = time.time()
        self._top = TopLists(keeper)
        self._outliers = Outliers(lambda state: keeper.events.tell(BackendEvent(state)))
        self._pulling = Pulling(intent)
        self._known: frozenset[Problem] = frozenset()
        self._attached: dict[str, InterfaceState] = {}
        self._retrying: asyncio.Task[None] | None = None
        self._attending: asyncio.Task[None] | None = None

    @property
    def events(self) -> EventHub:
        """See `Appliance`."""
        return self._keeper.events

    async def settle(self) -> None:
        """See `Appliance`."""
        await self._keeper.settle()

    def status(self) -> Status:
        """See `Appliance`."""
        tier = self._keeper.tier
        return Status(
            version=VERSION,
            pid=os.getpid(),
            started=self._started,
            now=time.time(),
            applied=self._intent.applied,
            tier=tier.name,
            tier_reason=self._keeper.reason,
            interfaces=tier.interfaces(),
            listeners=self._intent.plan.listeners,
            explicit=self._intent.plan.explicit,
            admitted=self._keeper.admission.counters(),
            counters=self._keeper.counters(),
            denials=self._keeper.denials(),
            limits=self._keeper.limits(),
            tables=self._keeper.fill(),
            lost_events=self._keeper.lost_events(),
            reloads=self._intent.reloads,
            failed_reloads=self._intent.failed_reloads,
            names=self._resolver.states(),
            dns=self._dns.state(),
            trial=self._probation.trial,
            backends=[*self._checks.states(), *self._outliers.states()],
            loads=tier.loads(),
            missed=self.learning.missed,
            requests=self._keeper.admission.request_counts(),
            certificates=self._certificates.states(),
            sinks=self._export.states(),
            problems=self._problems(),
            warnings=self._certificates.warnings(),
        )

    def findings(self) -> Sequence[Finding]:
        """See `Appliance`."""
        return self._intent.plan.findings

    async def page(self, question: FlowQuestion) -> FlowPage:
        """See `Appliance`."""
        return await self._keeper.page(question)

    async def top(self, of: TopQuestion, order: TopOrder, limit: int) -> TopList:
        """See `Appliance`."""
        return await self._top.list(of, order, limit)

    async def explain(self, query: Query) -> Explanation:
        """See `Appliance`."""
        found = await self._keeper.explain(query)
        rule, here = found.answer.rule, Endpoint(query.destination, query.port)
        certificate = rule.tls if isinstance(rule, Rule) else self._intent.plan.tls.get(here)
        wrong = self._certificates.complaint(certificate) if certificate else ""
        return replace(found, why=(*found.why, wrong)) if wrong else found

    def judge(self, secret: str) -> Verified | Reason:
        """See `Appliance`."""
        services = [
            qualify(cluster.name, service.name)
            for cluster in self._intent.snapshot.clusters
            for service in cluster.services
        ]
        return self._credentials.book.verify(Presented(secret), services, datetime.now(UTC))

    async def cut(self, ids: frozenset[int], tokens: frozenset[str]) -> tuple[frozenset[int], int]:
        """See `Appliance`."""
        found = await self._keeper.cut(ids) if ids else frozenset[int]()
        return found, sum([await self._keeper.revoke(token) for token in tokens])

    async def capture(self, wish: Wish) -> Feed:
        """See `Appliance`."""
        if wish.service:
            wish = replace(wish, services=service_prefixes(self._intent.plan, wish.service))
        return await self._keeper.capture(wish)

    async def preview(self, sha256: str, changes: Sequence[Change]) -> Preview:
        """See `Appliance`."""
        plan, unresolved = await self._intent.compile_changes(sha256, changes)
        flows = await self._keeper.flows(SCANNED + 1)
        complete = len(flows) <= SCANNED
        found = await self._intent.in_worker(
            lambda: preview(plan, flows[:SCANNED], complete=complete, unresolved=unresolved)
        )
        named = [replace(cut, flow=self.events.names.complete_flow(cut.flow)) for cut in found.cuts]
        return replace(found, cuts=tuple(named))

    async def subscribe(self, kinds: Iterable[EventKind], wanted: FlowFilter) -> Subscription:
        """See `Appliance`."""
        return await self._keeper.subscribe(kinds, wanted)

    def unsubscribe(self, subscription: Subscription) -> None:
        """See `Appliance`."""
        self._keeper.unsubscribe(subscription)

    async def reload(self) -> Applied:
        """See `Appliance`."""
        await self._intent.reload()
        await self._settle()
        # Tokens, secrets and certificates are no part of a revision: what was issued, taken back or renewed
        # holds from here on.
        await self._credentials.reload()
        await self._certificates.reload()
        await self._keeper.inform()
        await self._export.reload()
        await self._dns.look_after(self._intent.plan)
        return self._intent.applied

    async def start(self) -> None:
        """Start the tier and carry out the store's head.

        A plan that cannot be carried out is a problem and no end: the daemon serves and says so.
        """
        loop = asyncio.get_running_loop()
        for number in _STOPPING:
            loop.add_signal_handler(number, self._ask_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._reread)
        self._health.claim()
        await self._keeper.start()
        if self._counts:
            # Before there is anything to count.
            await self._carried.begin()
        self._credentials.start()
        # What is wrong with it is in the log already, and `status` goes on saying it.
        with suppress(Exception):
            await self.reload()
        await self._keeper.poll()
        if self._counts:
            self._carried.look()
        await self._health.ensure()

    async def attend(self, drain: float) -> None:
        """Say ready, look after everything until asked to stop, then drain for up to `drain` seconds."""
        self._tell_problems()
        self._tell_interfaces()
        text = self._summary()
        log.info("marchproxy %s is ready: %s", VERSION, text)
        self._notifier.ready(text)
        # A store's transaction in another thread may have found it off, and have left it so.
        gc.enable()
        settle()
        tending = self._tasks.start(self._tend(), name="tend")
        self._tasks.start(self._renewal.run(), name="renewal")
        await self._stop.wait()
        log.info("stopping")
        self._notifier.stopping()
        tending.cancel()
        draining = self._tasks.start(self._keeper.drain(drain), name="drain")
        hurry = self._tasks.start(self._hurry.wait(), name="hurry")
        await asyncio.wait({draining, hurry}, return_when=asyncio.FIRST_COMPLETED)

    async def close(self) -> None:
        """End what runs in the background."""
        await self._tasks.stop()
        await self._carried.close()
        await self._pulling.close()
        self.learning.save()
        await self._health.close()

    async def _tend(self) -> None:
        turns_of_a_second = round(1 / POLL)
        turn = 0
        while True:
            await self._keeper.poll()
            self._outliers.look(self._keeper.admission.outliers())
            if self._keeper.alive:
                self._notifier.alive()
            if self._intent.is_stale():
                self._renewal.demand()
            if self._intent.wants_retry() and (self._retrying is None or self._retrying.done()):
                self._retrying = self._tasks.start(self._retry(), name="retry")
            if turn % turns_of_a_second == 0:
                if self._attending is None or self._attending.done():
                    self._attending = self._tasks.start(self._attend_trial(), name="trial")
                if self.learning.due():
                    await self._intent.in_worker(self.learning.save)
                await self._dns.look_after(self._intent.plan)
                self._tell_problems()
                self._tell_interfaces()
                self._top.rest()
                self._pulling.look()
                await self._health.ensure()
            turn += 1
            await asyncio.sleep(POLL)

    async def _retry(self) -> None:
        # Failures are kept in `problems`, where they stay until they are gone.
        with suppress(Exception):
            await self.reload()

    async def _attend_trial(self) -> None:
        with suppress(Exception):
            await self._settle()

    async def _settle(self) -> None:
        """See to the trial, and carry out what it went back to."""
        if await self._probation.attend():
            await self._intent.reload()
            await self._export.reload()

    def _reread(self) -> None:
        self._tasks.start(self._reload_for_signal(), name="reload")

    async def _reload_for_signal(self) -> None:
        self._notifier.reloading()
        with suppress(Exception):
            await self.reload()
        # systemd waits for this word even if the reload was refused; the summary says so.
        self._notifier.ready(self._summary())

    def _ask_to_stop(self) -> None:
        """The second time somebody is in a hurry."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def _problems(self) -> Sequence[Problem]:
        return [
            *self._intent.problems(),
            *self._probation.problems(),
            *self._keeper.problems(),
            *self._resolver.problems(),
            *self._dns.problems(),
            *self._checks.problems(),
            *self._credentials.problems(),
            *self._certificates.problems(),
            *self._pulling.problems(),
            *self._export.problems(),
            *self._health.problems(),
        ]

    def _tell_problems(self) -> None:
        """Log what has gone wrong, or right again, since the last call."""
        problems = frozenset((*self._problems(), *self._certificates.warnings()))
        if problems == self._known:
            return
        now = time.time()
        for problem in sorted(problems - self._known, key=str):
            log.warning("%s", problem)
            self.events.tell(ProblemEvent(now, problem.component, problem.message, over=False))
        for problem in sorted(self._known - problems, key=str):
            log.info("over: %s", problem)
            self.events.tell(ProblemEvent(now, problem.component, problem.message, over=True))
        self._known = problems
        self._notifier.status(self._summary())

    def _tell_interfaces(self) -> None:
        """Tell what has been attached to, or is no longer, since the last call."""
        states = {state.name: state for state in self._keeper.tier.interfaces()}
        gone = (replace(state, attached="") for name, state in self._attached.items() if name not in states)
        for state in (*states.values(), *gone):
            known = self._attached.get(state.name)
            if state.attached != (known.attached if known else ""):
                self.events.tell(InterfaceEvent(time.time(), state))
        self._attached = states

    def _summary(self) -> str:
        tier, count = self._keeper.tier.name, len(self._problems())
        wrong = f", {count} problem{'s' * (count > 1)}" if count else ""
        plan = self._intent.plan
        listeners = len(plan.listeners) + len(plan.explicit)
        return f"revision {self._intent.applied.number}, {tier} tier, {listeners} listeners{wrong}"


def _names_file(state_dir: Path | None) -> Path | None:
    """Beside the store's file; with a store elsewhere, in the state folder if there is one."""
    folder = state_dir or Path(os.environ.get("MARCHPROXY_STATE_DIR") or DEFAULT_STATE_DIR)
    return folder / memory.FILE_NAME if folder.is_dir() else None
