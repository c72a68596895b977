"""What the terminal front end stands on in tests: an appliance that says what it is told to say."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast

from textual.pilot import Pilot

from marchproxy.client import edits
from marchproxy.model.appliance import Block, Limit
from marchproxy.model.change import Kind, diff
from marchproxy.model.documents import read_entity
from marchproxy.model.entities import Mapping as MappingEntity
from marchproxy.model.entities import Service
from marchproxy.model.errors import DaemonNotRunning, MarchproxyError, NotPermitted
from marchproxy.model.snapshot import Cluster, Snapshot
from marchproxy.store.revision import Revision
from marchproxy.tui.app import MarchProxyApp
from marchproxy.tui.link import Build, Intended, Link, Page, Written
from marchproxy.tui.pace import Pace
from marchproxy.tui.views.logs import LEVELS
from marchproxy.tui.words import Row
from tests.cli.console import STATUS

SIZES = ((80, 24), (120, 40), (200, 60))
"""Columns and lines: an SSH session, a window, a large screen."""

SNAPSHOT = Snapshot(
    (
        Cluster(
            "default",
            (
                read_entity(Service, {"name": "clients", "addresses": ["10.1.0.0/16"]}),
                read_entity(Service, {"name": "web", "addresses": ["10.2.0.10", "10.2.0.11"], "port": 8080}),
            ),
            (
                read_entity(
                    MappingEntity,
                    {
                        "name": "cw",
                        "sources": ["clients"],
                        "destinations": ["web"],
                        "protocols": ["tcp"],
                        "listen": "10.1.0.1:80",
                        "description": "the intranet",
                    },
                ),
                read_entity(
                    MappingEntity,
                    {
                        "name": "no-ssh",
                        "sources": ["clients"],
                        "destinations": ["web"],
                        "protocols": ["tcp"],
                        "ports": ["22"],
                        "action": "deny",
                        "priority": 10,
                    },
                ),
            ),
        ),
    ),
    blocks=(read_entity(Block, {"name": "192.0.2.0/24", "reason": "documentation"}),),
    limits=(read_entity(Limit, {"name": "source-packets", "per": "source", "packets_per_second": 1000}),),
)


def decision(number: int, **fields: Any) -> Row:
    """A refusal, unless `fields` say otherwise."""
    return {
        "time": f"2030-01-01T00:00:{number % 60:02}.000Z",
        "id": 0,
        "source": "10.1.0.2",
        "source_port": 40000 + number,
        "destination": "10.2.0.10",
        "destination_port": 443,
        "protocol": "tcp",
        "tier": "tc",
        "verdict": "deny",
        "reason": "NO_MAPPING",
        "mapping": "",
        "revision": 7,
        "source_service": "clients",
        "destination_service": "web",
        "name": "",
        "interface": "in0",
        "count": 1,
        **fields,
    }


def flow(number: int, **fields: Any) -> Row:
    """A flow that runs."""
    allowed = {
        "id": number,
        "verdict": "allow",
        "reason": "FORWARDED",
        "mapping": "cw",
        "destination_port": 80,
    }
    return {
        **decision(number, **allowed),
        "backend": "10.2.0.10",
        "backend_port": 8080,
        "state": "established",
        "started": "",
        "last_seen": "2030-01-01T00:01:00.000Z",
        "packets_sent": number,
        "bytes_sent": 100 * number,
        "packets_received": number,
        "bytes_received": 900 * number,
        **fields,
    }


def record(number: int, level: str = "info", message: str = "marchproxy is ready", **fields: Any) -> Row:
    """What the daemon has logged."""
    return {
        "kind": "log",
        "number": number,
        "time": f"2030-01-01T00:00:{number % 60:02}.000Z",
        "level": level,
        "process": "daemon",
        "logger": "marchproxy.dataplane.supervisor",
        "flow": 0,
        "message": message,
        "exception": "",
        **fields,
    }


class Stage:
    """Has the methods of `Link`. What is asked and done is in `asked`."""

    def __init__(self, *, read_only: bool = False) -> None:
        self.read_only = read_only
        self.asked: list[tuple[str, Any]] = []
        self.document: dict[str, Any] = dict(STATUS)
        self.carried: list[Row] = [flow(1), flow(2), flow(3)]
        self.refused: list[Row] = [decision(1), decision(2, mapping="no-ssh", reason="DENY_MAPPING")]
        self.happening: list[Row] = []
        self.logged: list[Row] = [record(1), record(2, "warning", "tier: eth7: no such interface")]
        self.held, self.number = SNAPSHOT, 7
        self.error: MarchproxyError | None = None
        """What everything that asks the daemon raises."""

    def _say(self, what: str, value: Any = None) -> None:
        self.asked.append((what, value))
        if self.error is not None:
            raise self.error

    def gone(self) -> None:
        """The daemon ends."""
        self.error = DaemonNotRunning("no daemon answers", hint="start it with: marchproxy run")

    def status(self) -> Row:
        self._say("status")
        return self.document

    def flows(self, **query: Any) -> Page:
        self._say("flows", query)
        rows = list(self.refused if query.get("denied") else self.carried)
        return Page(rows, len(rows) + query.get("offset", 0))

    def top(self, by: str, sort: str, limit: int, *, denied: bool = False) -> Page:
        self._say("top", {"by": by, "sort": sort} | ({"denied": True} if denied else {}))
        counts = {"flows": 2, "packets": 100, "bytes": 5000, "packets_per_s": 10.0, "bytes_per_s": 1000.0}
        return Page([{"name": name, **counts} for name in ("clients", "web", "")], 3)

    def explain(self, question: Mapping[str, object]) -> Row:
        self._say("explain", question)
        decided = {"verdict": "deny", "reason": "NO_MAPPING", "mapping": "", "revision": 7, "tier": "kernel"}
        return {**decided, "why": ["10.1.0.2 is clients", "no mapping is for port 443"]}

    def cut(self, ids: Sequence[int]) -> int:
        self._say("cut", list(ids))
        return len(ids)

    def events(self, kinds: Sequence[str]) -> Iterator[Row]:
        self._say("events", tuple(kinds))
        yield from self.happening

    def logs(self, level: str, limit: int) -> Iterator[Row]:
        self._say("logs", level)
        yield from (row for row in self.logged if LEVELS.index(row["level"]) >= LEVELS.index(level))

    def snapshot(self, known: int = 0) -> tuple[int, Snapshot] | None:
        return None if known == self.number else (self.number, self.held)

    def revisions(self, limit: int) -> list[Revision]:
        when = datetime(2030, 1, 1, tzinfo=UTC)
        return [Revision(7, "ab" * 32, "root", when, "add mapping no-ssh")]

    def intend(self, message: str, build: Build) -> Intended:
        if self.read_only:
            raise NotPermitted("this session only looks")
        wanted = build(self.held)
        cut = {"cut": 1, "looked_at": 3, "complete": True, "unresolved": [], "flows": []}
        return Intended(message, build, diff(self.held, wanted), (), cut)

    def write(self, intended: Intended, *, on_trial: bool) -> Written:
        self._say("write", (intended.message, on_trial))
        self.held, self.number = intended.build(self.held), self.number + 1
        return Written(8, True, True, "")

    def confirm(self) -> int:
        self._say("confirm")
        return 8

    def count(self, what: str) -> int:
        """How often something was asked."""
        return sum(asked == what for asked, _ in self.asked)

    def last(self, what: str) -> Any:
        """With what it was asked last."""
        return next(value for asked, value in reversed(self.asked) if asked == what)

    def mapping(self, name: str) -> Any:
        """A mapping as it is stored now."""
        return edits.find(self.held, Kind.MAPPING, "default", name)


type Play = Callable[[MarchProxyApp, Pilot[None]], Awaitable[None]]


def perform(stage: Stage, play: Play, size: tuple[int, int] = (120, 40), **settings: Any) -> None:
    """Run the application without a terminal, and `play` on it."""

    async def run() -> None:
        async with open_app(stage, size, **settings) as (app, pilot):
            await play(app, pilot)

    asyncio.run(run())


@asynccontextmanager
async def open_app(stage: Stage, size: tuple[int, int], **settings: Any) -> Any:
    """The application, after its first look at the daemon."""
    # Whatever else this machine does.
    app = MarchProxyApp(cast(Link, stage), pace=Pace(idle=lambda: None), **settings)
    async with app.run_test(size=size, notifications=True) as pilot:
        await until(pilot, lambda: app.status is not None or app.lost is not None)
        yield app, pilot


async def until(pilot: Pilot[Any], condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Let the application work until `condition` holds."""
    for _ in range(round(seconds / 0.02)):
        if condition():
            await pilot.pause()
            return
        await pilot.pause(0.02)
    raise AssertionError("waited in vain")


def picture(app: MarchProxyApp) -> str:
    """The screen as text, without blanks at the ends of lines."""
    return "\n".join(strip.text.rstrip() for strip in app.screen._compositor.render_strips()) + "\n"
