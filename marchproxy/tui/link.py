"""The way to the daemon and the store. Everything here blocks: call it in a thread."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from marchproxy.client.appliance import Appliance
from marchproxy.client.control import Control
from marchproxy.client.preview import foresee
from marchproxy.model.change import Change, diff
from marchproxy.model.errors import DaemonNotRunning, MarchproxyError, NotPermitted
from marchproxy.model.snapshot import Snapshot
from marchproxy.tui.words import Row

if TYPE_CHECKING:
    from marchproxy.policy.plan import Finding
    from marchproxy.store.revision import Revision
    from marchproxy.store.store import Store

type Build = Callable[[Snapshot], Snapshot]

TRIAL = 60
"""Seconds until a change on trial goes back."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows of many."""

    rows: Sequence[Row]
    total: int
    """How many there are."""


@dataclass(frozen=True, slots=True)
class Intended:
    """A change that is not written yet."""

    message: str
    build: Build
    changes: Sequence[Change]
    warnings: "Sequence[Finding]"
    cut: Row | None
    """The daemon's answer to which running flows it would end; None: it did not say."""
    untold: str = ""
    """Why not."""


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a change."""

    number: int
    """Of the revision."""
    changed: bool
    in_force: bool
    problem: str
    """Why the daemon does not carry it out; empty: it does, or none runs."""


@dataclass(frozen=True, slots=True)
class Link:
    """One appliance, as far as this user may look and write."""

    appliance: Appliance
    read_only: bool = False
    control: Control = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "control", Control(self.appliance))

    def status(self) -> Row:
        """`GET /v1/status`. Raises `DaemonNotRunning` and others of `client.control`."""
        answer: Row = self.control.get("/v1/status")
        return answer

    def flows(self, **query: object) -> Page:
        """`GET /v1/flows` with these parameters."""
        rows, headers = self.control.fetch("/v1/flows", **query)
        return Page(rows, int(headers.get("x-marchproxy-total", len(rows))))

    def top(self, by: str, sort: str, limit: int, *, denied: bool = False) -> Page:
        """`GET /v1/top`."""
        asked = {"by": by, "sort": sort, "limit": limit} | ({"denied": "1"} if denied else {})
        answer, _ = self.control.fetch("/v1/top", **asked)
        return Page(answer["rows"], answer["total"])

    def explain(self, question: Mapping[str, object]) -> Row:
        """`POST /v1/explain`."""
        answer: Row = self.control.post("/v1/explain", dict(question))
        return answer

    def cut(self, ids: Sequence[int]) -> int:
        """End flows; how many there were. Raises `NotPermitted` in a read-only session."""
        self._demand_writing()
        return int(self.control.post("/v1/flows/cut", {"ids": list(ids)})["cut"])

    def events(self, kinds: Sequence[str]) -> Iterator[Row]:
        """`GET /v1/events`, as they come."""
        return self.control.stream("/v1/events", kind=",".join(kinds))

    def logs(self, level: str, limit: int) -> Iterator[Row]:
        """`GET /v1/logs`: the last `limit` records of this level or worse, then those that come."""
        return self.control.stream("/v1/logs", follow=True, level=level, limit=limit)

    def snapshot(self, known: int = 0) -> tuple[int, Snapshot] | None:
        """Number and contents of the newest revision; None: it is still `known`. Raises `StoreError`."""
        with self._store(read_only=True) as store:
            # Ten thousand mappings are not read again every other second to find that they are the same.
            if store.head().number == known:
                return None
            revision, snapshot = store.current()
            return revision.number, snapshot

    def revisions(self, limit: int) -> "list[Revision]":
        """The newest revisions, newest first."""
        with self._store(read_only=True) as store:
            return store.revisions(limit)

    def intend(self, message: str, build: Build) -> Intended:
        """See what a change would do; nothing is written. Raises what is wrong with it."""
        from marchproxy.client.review import review

        self._demand_writing()
        with self._store(read_only=True) as store:
            revision, held = store.current()
            wanted = self._guarded(store, build)(held)
        changes = diff(held, wanted)
        warnings = review(held, wanted, self.appliance.management_ports)
        cut, untold = self._foresee(revision.sha256, changes)
        return Intended(message, build, changes, warnings, cut, untold)

    def write(self, intended: Intended, *, on_trial: bool) -> Written:
        """Make the revision, and have a running daemon take it over. Raises what `intend` does.

        `on_trial`: it goes back after `TRIAL` seconds unless `confirm` follows, which needs a daemon.
        """
        from marchproxy.client.writing import make_revision

        self._demand_writing()
        if on_trial:
            self.status()
        with self._store() as store:
            trial = TRIAL if on_trial else None
            build = self._guarded(store, intended.build)
            made = make_revision(self.appliance, store, intended.message, build, trial=trial)
        in_force, problem = self._reload()
        return Written(made.revision.number, made.changed, in_force, problem)

    def confirm(self) -> int:
        """Keep the revision on trial; its number. Raises `NoTrial`, or `Conflict` where it is too late."""
        self._demand_writing()
        with self._store() as store:
            number = store.confirm().revision
        self._reload()
        return number

    def _store(self, *, read_only: bool = False) -> "Store":
        from marchproxy.store.store import Store

        return Store.open(self.appliance.state_dir, read_only=read_only)

    def _guarded(self, store: "Store", build: Build) -> Build:
        """The same, unless what it blocks covers the operator's own way."""
        from marchproxy.client.covered import guard_way

        def careful(held: Snapshot) -> Snapshot:
            wanted = build(held)
            guard_way(self.appliance, store, held, wanted)
            return wanted

        return careful

    def _foresee(self, sha256: str, changes: Sequence[Change]) -> tuple[Row | None, str]:
        try:
            return foresee(self.control, sha256, changes), ""
        except MarchproxyError as error:
            return None, error.message

    def _reload(self) -> tuple[bool, str]:
        """Whether a daemon has taken the newest revision over, and why one has not."""
        try:
            self.control.post("/v1/reload")
        except DaemonNotRunning:
            return False, ""
        except MarchproxyError as error:
            return False, error.message
        return True, ""

    def _demand_writing(self) -> None:
        if self.read_only:
            raise NotPermitted("this session only looks", hint="start it without --read-only")
