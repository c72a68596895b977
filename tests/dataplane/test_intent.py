"""From the store to the tier: each step may refuse, and what was carried out goes on."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from marchproxy.dataplane import intent as module
from marchproxy.dataplane.health.checks import HealthChecks
from marchproxy.dataplane.intent import Intent, PlanRefused
from marchproxy.dataplane.names.found import Found
from marchproxy.dataplane.names.resolver import Resolver
from marchproxy.dataplane.records import BackendState, ReloadEvent
from marchproxy.model.appliance import DEFAULT_SETTINGS
from marchproxy.model.change import diff
from marchproxy.model.documents import read_mapping, read_service
from marchproxy.model.endpoint import parse_endpoints
from marchproxy.model.entities import Mapping, Service
from marchproxy.model.errors import Conflict, MarchproxyError
from marchproxy.model.snapshot import Cluster, Snapshot
from marchproxy.policy.checks import BackendKey, Check
from marchproxy.policy.plan import Plan
from marchproxy.store.errors import StoreError, StoreMissing
from marchproxy.store.store import Store
from tests.dataplane.loops import looped, until

WEB = read_service({"name": "web", "addresses": ["192.0.2.1"], "port": 80})
NAMED = read_service({"name": "web", "addresses": ["web.example.com"], "port": 80})
ANYONE = read_mapping(
    {
        "name": "open",
        "sources": ["all"],
        "destinations": ["web"],
        "protocols": ["tcp"],
        "listen": "127.0.0.1:80",
    }
)
TO_SSH = replace(ANYONE, name="ssh", listen=parse_endpoints("127.0.0.1:22"))


class Tier:
    """Remembers what it was told to carry out, and refuses when told to."""

    def __init__(self) -> None:
        self.applied: list[tuple[Plan, int]] = []
        self.refusal: Exception | None = None

    async def apply(self, plan: Plan, revision: int) -> None:
        if self.refusal:
            raise self.refusal
        self.applied.append((plan, revision))

    @property
    def revisions(self) -> list[int]:
        return [revision for _, revision in self.applied]


def ignore(_: BackendState) -> None:
    """What health checks tell, where nobody listens."""


class Names:
    """A resolver's directory that tests change."""

    def __init__(self) -> None:
        self.addresses: dict[str, str] = {"web.example.com": "192.0.2.80"}

    async def find(self, name: str) -> Found:
        return Found((ip_address(self.addresses[name]),), 0)


class House:
    """A store, an intent over it, and a tier that only remembers."""

    def __init__(
        self, folder: Path, intent: Intent, tier: Tier, names: Names, resolver: Resolver, sick: set[str]
    ) -> None:
        self.folder = folder
        self.intent = intent
        self.tier = tier
        self.names = names
        self.resolver = resolver
        self.sick = sick
        """Addresses whose checks fail."""

    def write(self, services: Iterable[Service], mappings: Iterable[Mapping]) -> None:
        """Make a revision."""
        cluster = Cluster("default", tuple(services), tuple(sorted(mappings, key=lambda item: item.name)))
        with Store.open(self.folder) as store:
            store.replace(lambda _: Snapshot((cluster,)), message="test")

    def backends(self) -> list[str]:
        """Addresses of the backends that the tier has."""
        plan = self.tier.applied[-1][0]
        pools = (rule.pool for listener in plan.listeners for rule in listener.rules if rule.pool)
        return [str(backend.address) for pool in pools for backend in pool.taking]


@asynccontextmanager
async def house(folder: Path) -> AsyncGenerator[House]:
    Store.open(folder, create=True).close()
    tier, names = Tier(), Names()
    resolver = Resolver(find=names.find, shortest=0.005)
    sick: set[str] = set()

    async def ask(backend: BackendKey, check: Check) -> str:
        return "refused" if str(backend.address) in sick else ""

    health = HealthChecks(ignore, ask=ask)
    with ThreadPoolExecutor(max_workers=1) as worker:
        intent = Intent(folder, worker, resolver, health, tier.apply)
        await intent.open()
        try:
            yield House(folder, intent, tier, names, resolver, sick)
        finally:
            await intent.close()
            await resolver.close()
            await health.close()


@looped
async def test_changes_are_compiled_without_being_carried_out(tmp_path: Path) -> None:
    async with house(tmp_path) as built:
        built.write([WEB], [ANYONE])
        await built.intent.reload()
        sha256, before = built.intent.applied.sha256, built.intent.plan
        snapshot = Snapshot((Cluster("default", (NAMED,), ()),))
        with Store.open(built.folder, read_only=True) as store:
            changes = diff(store.snapshot(), snapshot)
        plan, unresolved = await built.intent.compile_changes(sha256, changes)
        assert not plan.listeners
        assert built.intent.plan is before
        assert len(built.tier.applied) == 1
        with pytest.raises(Conflict, match="carries out revision 2"):
            await built.intent.compile_changes("00" * 32, changes)
        assert unresolved == frozenset()


@looped
async def test_the_stores_head_is_carried_out_once(tmp_path: Path) -> None:
    async with house(tmp_path) as built:
        built.write([WEB], [ANYONE])
        applied = await built.intent.reload()
        with Store.open(tmp_path) as store:
            assert (applied.number, applied.sha256) == (2, store.head().sha256)
        assert built.backends() == ["192.0.2.1"]
        assert applied.took > 0
        await built.intent.reload()
        assert built.tier.revisions == [2]
        built.write([WEB], [])
        assert (await built.intent.reload()).number == 3
        assert built.tier.revisions == [2, 3]
        assert (built.intent.reloads, built.intent.failed_reloads) == (3, 0)


@looped
async def test_settings_are_known_before_anything_is_carried_out(tmp_path: Path) -> None:
    async with house(tmp_path) as built:
        assert await built.intent.settings() == DEFAULT_SETTINGS
        large = replace(DEFAULT_SETTINGS, flow_table=4096)
        with Store.open(tmp_path) as store:
            store.replace(lambda found: replace(found, settings=large), message="test")
        assert await built.intent.settings() == large
        assert built.tier.applied == []


@looped
async def test_settings_that_cannot_be_read_are_the_defaults(tmp_path: Path) -> None:
    with ThreadPoolExecutor(max_workers=1) as worker:
        intent = Intent(tmp_path, worker, Resolver(), HealthChecks(ignore), Tier().apply)
        assert await intent.settings() == DEFAULT_SETTINGS


@looped
async def test_a_plan_with_errors_is_refused_and_the_next_good_one_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(tmp_path) as built:
        built.write([WEB], [ANYONE])
        await built.intent.reload()
        built.write([WEB], [ANYONE, TO_SSH])
        with pytest.raises(PlanRefused, match="revision 3 cannot be carried out: mapping ssh"):
            await built.intent.reload()
        assert [text for text in caplog.messages if text.startswith("revision 3 not applied: ")]
        assert built.tier.revisions == [2]
        assert built.intent.applied.number == 2
        (problem,) = built.intent.problems()
        assert problem.component == "policy"
        assert not built.intent.wants_retry()
        built.write([WEB], [ANYONE])
        assert (await built.intent.reload()).number == 4
        assert built.intent.problems() == []
        assert built.intent.failed_reloads == 1


@pytest.mark.parametrize("refusal", [Conflict("port 80 is taken"), ZeroDivisionError("a bug")])
@looped
async def test_what_the_tier_refuses_is_tried_again(
    tmp_path: Path, refusal: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_RETRY", 0.0)
    async with house(tmp_path) as built:
        built.tier.refusal = refusal
        built.write([WEB], [ANYONE])
        with pytest.raises(type(refusal)):
            await built.intent.reload()
        (problem,) = built.intent.problems()
        assert str(refusal) in problem.message
        assert built.intent.plan == Plan()
        assert built.intent.wants_retry()
        built.tier.refusal = None
        await built.intent.reload()
        assert (built.tier.revisions, built.intent.problems()) == ([2], [])
        assert not built.intent.wants_retry()


@looped
async def test_it_is_tried_again_at_once_at_first_and_then_ever_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    async with house(tmp_path) as built:
        built.tier.refusal = Conflict("port 80 is taken")
        built.write([WEB], [ANYONE])
        for wait in (1, 2, 4, 8, 10, 10):
            with pytest.raises(Conflict):
                await built.intent.reload()
            now += wait - 0.1
            assert not built.intent.wants_retry()
            now += 0.1
            assert built.intent.wants_retry()
        built.tier.refusal = None
        await built.intent.reload()
        built.tier.refusal = Conflict("port 80 is taken")
        built.write([WEB], [])
        with pytest.raises(Conflict):
            await built.intent.reload()
        now += 1
        assert built.intent.wants_retry()


@looped
async def test_what_becomes_of_revisions_is_told_once(tmp_path: Path) -> None:
    async with house(tmp_path) as built:
        told: list[ReloadEvent] = []
        built.intent.told = told.append
        built.write([WEB], [ANYONE])
        applied = await built.intent.reload()
        await built.intent.reload()
        assert [(each.revision, each.sha256, each.message) for each in told] == [(2, applied.sha256, "")]
        built.tier.refusal = Conflict("port 80 is taken")
        built.write([WEB], [])
        for _ in range(3):
            with pytest.raises(Conflict):
                await built.intent.reload()
        assert [(each.revision, each.message) for each in told[1:]] == [(2, "port 80 is taken")]
        built.tier.refusal = None
        await built.intent.reload()
        assert [(each.revision, each.message) for each in told[2:]] == [(3, "")]


@looped
async def test_a_plan_waits_for_its_host_names_and_follows_them(tmp_path: Path) -> None:
    async with house(tmp_path) as built:
        built.write([NAMED], [ANYONE])
        await built.intent.reload()
        assert built.backends() == ["192.0.2.80"]
        assert not built.intent.is_stale()
        built.names.addresses["web.example.com"] = "192.0.2.81"
        await until(built.intent.is_stale)
        await built.intent.refresh()
        assert built.backends() == ["192.0.2.81"]
        assert built.tier.revisions == [2, 2]
        assert not built.intent.is_stale()
        built.write([WEB], [ANYONE])
        await built.intent.reload()
        assert built.resolver.view.current == {}


@looped
async def test_a_mapping_that_expires_makes_the_plan_stale(tmp_path: Path) -> None:
    async with house(tmp_path) as built:
        built.write([WEB], [replace(ANYONE, expires=datetime.now(UTC) + timedelta(hours=1))])
        await built.intent.reload()
        assert len(built.intent.plan.listeners) == 1
        assert not built.intent.is_stale()
        # Of one second, what truncation leaves may be over before the plan is compiled.
        expired = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=4)
        built.write([WEB], [replace(ANYONE, expires=expired)])
        await built.intent.reload()
        assert len(built.intent.plan.listeners) == 1
        await until(built.intent.is_stale)
        await built.intent.refresh()
        assert built.tier.applied[-1][0].listeners == ()
        assert not built.intent.is_stale()


@looped
async def test_a_backend_that_fails_its_checks_leaves_the_plan(tmp_path: Path) -> None:
    web = replace(WEB, addresses=(*WEB.addresses, ip_network("192.0.2.2")), health="tcp")
    async with house(tmp_path) as built:
        built.sick.add("192.0.2.2")
        built.write([web], [ANYONE])
        await built.intent.reload()
        assert built.backends() == ["192.0.2.1", "192.0.2.2"]
        await until(built.intent.is_stale)
        await built.intent.refresh()
        assert built.backends() == ["192.0.2.1"]
        assert not built.intent.is_stale()
        built.write([replace(web, health="none")], [ANYONE])
        await built.intent.reload()
        assert built.backends() == ["192.0.2.1", "192.0.2.2"]


@looped
async def test_a_refresh_that_changes_nothing_touches_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as built:
        await built.intent.refresh()
        built.write([WEB], [ANYONE])
        await built.intent.reload()
        await built.intent.refresh()
        assert built.tier.revisions == [2]


@looped
async def test_only_what_changed_is_compiled_anew(tmp_path: Path) -> None:
    other = replace(ANYONE, name="other", listen=parse_endpoints("127.0.0.1:81"))
    async with house(tmp_path) as built:
        built.write([WEB], [ANYONE, other])
        await built.intent.reload()
        built.write([WEB], [ANYONE, replace(other, priority=7)])
        await built.intent.reload()
        (before, _), (after, _) = built.tier.applied
        assert before.listeners[0] is after.listeners[0]
        assert before.listeners[1] != after.listeners[1]


@looped
async def test_reloads_at_the_same_time_are_one_after_another(tmp_path: Path) -> None:
    async with house(tmp_path) as built:
        built.write([WEB], [ANYONE])
        applied = await asyncio.gather(*(built.intent.reload() for _ in range(5)))
        assert {item.number for item in applied} == {2}
        assert built.tier.revisions == [2]


@looped
async def test_a_store_that_went_away_keeps_what_is_carried_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(tmp_path) as built:
        built.write([WEB], [ANYONE])
        await built.intent.reload()
        await built.intent.close()
        with pytest.raises(MarchproxyError):
            await built.intent.reload()
        assert caplog.messages[-1].startswith("the newest revision not applied: ")
        assert len(built.intent.problems()) == 1
        assert built.tier.revisions == [2]


@looped
async def test_without_a_store_there_is_nothing_to_serve(tmp_path: Path) -> None:
    with ThreadPoolExecutor(max_workers=1) as worker:
        intent = Intent(tmp_path, worker, Resolver(), HealthChecks(ignore), Tier().apply)
        with pytest.raises(StoreMissing):
            await intent.open()
        assert issubclass(StoreMissing, StoreError)
