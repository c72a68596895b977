"""The way from the store to the data plane: read, compile, resolve names, check, apply.

Each step may refuse, and then what was carried out before goes on.
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from marchproxy.dataplane.health.checks import HealthChecks
from marchproxy.dataplane.names.resolver import Resolver
from marchproxy.dataplane.names.table import NamesView
from marchproxy.dataplane.records import ReloadEvent
from marchproxy.dataplane.status import Applied, Problem
from marchproxy.model.appliance import DEFAULT_SETTINGS, Settings
from marchproxy.model.blocklist import BlockContents
from marchproxy.model.change import Change, patch
from marchproxy.model.errors import Conflict, MarchproxyError
from marchproxy.model.management import read_management_ports
from marchproxy.model.snapshot import Snapshot
from marchproxy.policy.blocks import Contents
from marchproxy.policy.checks import BackendKey
from marchproxy.policy.compile import Compiled, compile_plan
from marchproxy.policy.plan import Finding, Plan, Severity
from marchproxy.store.errors import SchemaTooOld
from marchproxy.store.store import Store

log = logging.getLogger(__name__)

NAME_WAIT = 1.0
"""Seconds that a new plan waits for host names it brings; slower ones are added when they are known."""
FIRST_RETRY, LAST_RETRY = 1.0, 10.0
"""Seconds until a plan that could not be applied is tried again; each time twice as long as before."""

_EMPTY = Snapshot()

type Apply = Callable[[Plan, int], Awaitable[None]]


class PlanRefused(MarchproxyError):
    """The snapshot compiles to a plan with errors among its findings."""

    def __init__(self, revision: int, errors: Sequence[Finding]) -> None:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        first = errors[0]
        super().__init__(
            f"revision {revision} cannot be carried out: {first.subject}: {first.message}{more}",
            hint=first.hint or "marchproxy check lists everything",
        )


@dataclass(frozen=True, slots=True)
class _Ready:
    """A plan that may be carried out, and what it was made of."""

    snapshot: Snapshot
    compiled: Compiled
    names: NamesView
    down: frozenset[BackendKey]


class Intent:
    """What is carried out, and how the next revision takes its place.

    The store and the compiler run in `worker`, one call at a time; `apply` is the tier's.
    """

    def __init__(
        self, state_dir: Path | None, worker: Executor, resolver: Resolver, health: HealthChecks, apply: Apply
    ) -> None:
        self.applied = Applied()
        self.plan = Plan()
        self.reloads = 0
        self.failed_reloads = 0
        self.told: Callable[[ReloadEvent], None] = _ignore
        """Hears what becomes of revisions."""
        self._state_dir = state_dir
        self._worker = worker
        self._resolver = resolver
        self._health = health
        self._apply = apply
        self._contents = _ListContents()
        self._lock = asyncio.Lock()
        self._store: Store | None = None
        self._carried: _Ready | None = None
        self._failure = ""
        self._retry_at = float("inf")
        self._retry_after = FIRST_RETRY

    def problems(self) -> Sequence[Problem]:
        """Why the newest intent is not what is carried out."""
        return [Problem("policy", self._failure)] if self._failure else []

    async def open(self) -> None:
        """Open the store. Raises `StoreError`: without a store there is nothing to serve."""
        self._store = await self.in_worker(lambda: _open(self._state_dir))

    async def settings(self) -> Settings:
        """The settings in the store; the defaults where it cannot be read, about which `reload` complains."""
        try:
            return (await self.read(Store.current))[1].settings
        except MarchproxyError:
            return DEFAULT_SETTINGS

    async def reload(self) -> Applied:
        """Carry out the store's head. Raises `MarchproxyError` and leaves what was there."""
        async with self._lock:
            began, target = time.perf_counter(), None
            try:
                revision, snapshot = await self.read(Store.current)
                target = Applied(revision.number, revision.sha256)
                if self._failure or not self._is_carried(target):
                    await self._carry_out(snapshot, target, began)
                    log.info("revision %d applied in %.0f ms", target.number, self.applied.took * 1000)
                    self._tell("")
            except Exception as error:
                self._failed(error, target)
                raise
            self.reloads += 1
            self._failure = ""
            self._retry_at, self._retry_after = float("inf"), FIRST_RETRY
            return self.applied

    async def refresh(self) -> None:
        """Compile what is carried out again: a mapping expired, a name moved, a backend failed or is back."""
        async with self._lock:
            if self._carried is None:
                return
            try:
                await self._carry_out(self._carried.snapshot, self.applied, time.perf_counter())
            except Exception as error:
                self._failed(error, self.applied)
                raise

    async def read[T](self, question: Callable[[Store], T]) -> T:
        """What the store says. Raises `StoreError`."""
        store = self._store
        if store is None:
            raise MarchproxyError("the store is not open")
        return await self.in_worker(lambda: question(store))

    async def compile_changes(self, sha256: str, changes: Sequence[Change]) -> tuple[Plan, frozenset[str]]:
        """The plan that `changes` to what is carried out would compile to, and its names without addresses.

        Nothing is resolved for it and nothing remembered. Raises `Conflict` where the snapshot of `sha256` is
        not what is carried out, `PlanRefused`, and what `patch` raises.
        """
        carried, number = self._carried, self.applied.number
        if carried is None or self.applied.sha256 != sha256:
            raise Conflict(
                f"the daemon carries out revision {number}, which the changes do not start from",
                hint="marchproxy status says why the newest is not in force",
            )
        names, down = self._resolver.view, self._health.down
        wanted = await self.in_worker(lambda: patch(carried.snapshot, changes))
        contents = await self.read(lambda store: self._contents.of(store, wanted))
        compiled = await self.in_worker(lambda: _compile(wanted, names, down, contents, carried.compiled))
        _refuse_errors(number + 1, compiled.plan)
        return compiled.plan, compiled.plan.names - names.current.keys()

    @property
    def snapshot(self) -> Snapshot:
        """What is carried out; the empty one before the first."""
        return self._carried.snapshot if self._carried else _EMPTY

    def is_stale(self) -> bool:
        """Whether a mapping expired, a name moved or a backend failed since the plan was compiled."""
        if self._carried is None:
            return False
        expiry = self._carried.compiled.next_expiry
        expired = expiry is not None and expiry <= datetime.now(UTC)
        moved = self._carried.names.version != self._resolver.view.version
        return expired or moved or self._carried.down != self._health.down

    def blocked_name(self, name: str) -> str:
        """What blocks a host name in the plan that is carried out; empty: nothing."""
        return self.plan.blocks.find_name(name)

    def names_in_force(self) -> int:
        """The version of the resolver's names that is carried out; 0: none yet."""
        return self._carried.names.version if self._carried else 0

    def wants_retry(self) -> bool:
        """Whether something failed that may have been put right by now, and it is time to look."""
        return time.monotonic() >= self._retry_at

    async def close(self) -> None:
        """Let go of the store."""
        store, self._store = self._store, None
        if store:
            await self.in_worker(store.close)

    def _is_carried(self, target: Applied) -> bool:
        return (target.number, target.sha256) == (self.applied.number, self.applied.sha256)

    async def _carry_out(self, snapshot: Snapshot, target: Applied, began: float) -> None:
        ready = await self._compile(snapshot)
        plan = ready.compiled.plan
        _refuse_errors(target.number, plan)
        if self._failure or plan != self.plan or not self._is_carried(target):
            await self._apply(plan, target.number)
            self.applied = replace(target, at=time.time(), took=time.perf_counter() - began)
        self.plan = plan
        self._carried = ready
        self._health.watch(plan.watched)
        await self._resolver.watch(plan.names, wait=0)

    async def _compile(self, snapshot: Snapshot) -> _Ready:
        """Compile with the names there are, wait a moment for those that are new, and then once more."""
        names, down = self._resolver.view, self._health.down
        previous = self._carried.compiled if self._carried else None
        contents = await self.read(lambda store: self._contents.of(store, snapshot))
        compiled = await self.in_worker(lambda: _compile(snapshot, names, down, contents, previous))
        if not any(item.severity is Severity.ERROR for item in compiled.plan.findings):
            self._resolver.configure(compiled.plan.settings, compiled.plan.dns)
        await self._resolver.watch(compiled.plan.names | self.plan.names, wait=NAME_WAIT)
        known = self._resolver.view
        if known is names:
            return _Ready(snapshot, compiled, names, down)
        again = await self.in_worker(lambda: _compile(snapshot, known, down, contents, compiled))
        return _Ready(snapshot, again, known, down)

    def _failed(self, error: Exception, target: Applied | None) -> None:
        """`target` could not be carried out; None: it is not known what there is."""
        self.failed_reloads += 1
        known = self._failure
        self._failure = (
            error.message if isinstance(error, MarchproxyError) else f"{type(error).__name__}: {error}"
        )
        if self._failure != known:
            self._tell(self._failure)
        # What the operator wrote does not get better by itself; a port in use or a locked store may.
        self._retry_at = (
            float("inf") if isinstance(error, PlanRefused) else time.monotonic() + self._retry_after
        )
        self._retry_after = min(2 * self._retry_after, LAST_RETRY)
        what = f"revision {target.number}" if target else "the newest revision"
        log.error("%s not applied: %s", what, self._failure)

    def _tell(self, failure: str) -> None:
        """Of a revision that is in force, or why none is; not again each time that this is tried again."""
        applied = self.applied
        took = 0.0 if failure else applied.took
        self.told(ReloadEvent(time.time(), applied.number, applied.sha256, took, failure))

    async def in_worker[T](self, work: Callable[[], T]) -> T:
        """Do what takes long, or asks the store, where it keeps nobody waiting."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)


def _ignore(_: ReloadEvent) -> None:
    """Nobody listens."""


def _open(state_dir: Path | None) -> Store:
    """For reading: the daemon never writes intent. What an older version left is migrated first."""
    try:
        return Store.open(state_dir, read_only=True)
    except SchemaTooOld:
        Store.open(state_dir).close()
        return Store.open(state_dir, read_only=True)


def _refuse_errors(revision: int, plan: Plan) -> None:
    errors = [item for item in plan.findings if item.severity is Severity.ERROR]
    if errors:
        raise PlanRefused(revision, errors)


def _compile(
    snapshot: Snapshot,
    names: NamesView,
    down: frozenset[BackendKey],
    contents: Contents,
    previous: Compiled | None,
) -> Compiled:
    return compile_plan(
        snapshot,
        names=names.current,
        lingering=names.lingering,
        down=down,
        contents=contents,
        management=read_management_ports(os.environ),
        now=datetime.now(UTC),
        previous=previous,
    )


class _ListContents:
    """What the block lists of a snapshot hold, read once."""

    def __init__(self) -> None:
        self._held: dict[str, BlockContents] = {}

    def of(self, store: Store, snapshot: Snapshot) -> Contents:
        """By SHA-256. Raises `NotFound` or `StoreError`."""
        wanted = {item.sha256 for item in snapshot.block_lists}
        self._held = {name: self._held.get(name) or store.block_contents(name) for name in wanted}
        return self._held
