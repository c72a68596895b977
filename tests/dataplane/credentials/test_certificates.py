"""The keeper has what the plan's listeners want, and says when it ends."""

from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from marchproxy.dataplane.credentials.certificates import CertificateKeeper
from marchproxy.dataplane.health.checks import HealthChecks
from marchproxy.dataplane.intent import Intent
from marchproxy.dataplane.names.resolver import Resolver
from marchproxy.model.address import IPAddress
from marchproxy.model.appliance import Settings
from marchproxy.model.change import Change, Kind
from marchproxy.model.documents import to_document
from marchproxy.policy.plan import Plan
from marchproxy.store.store import Store
from tests.certificates import signed
from tests.dataplane.loops import looped
from tests.store.build import add, mapping, service

YEAR = timedelta(days=365)


class House:
    """An operator's store, and the daemon's view of it."""

    def __init__(self, store: Store, intent: Intent, keeper: CertificateKeeper) -> None:
        self.store = store
        self.intent = intent
        self.keeper = keeper

    async def reload(self) -> None:
        await self.intent.reload()
        await self.keeper.reload()

    async def use(self, name: str, port: int = 7000) -> None:
        rule = mapping(f"{name}-rule", "lan", "db", listen=f"127.0.0.1:{port}", tls=name)
        self.store.commit([add(Kind.MAPPING, rule)], message=name)
        await self.reload()

    def said(self) -> tuple[list[str], list[str]]:
        return [str(each) for each in self.keeper.problems()], [str(each) for each in self.keeper.warnings()]


@asynccontextmanager
async def house(folder: Path) -> AsyncGenerator[House]:
    with Store.open(folder, create=True) as store, ThreadPoolExecutor(1) as worker:
        services = [service("lan", "127.0.0.1"), service("db", "127.0.0.2", port=7)]
        store.commit([add(Kind.SERVICE, item) for item in services], message="site")

        async def in_use(addresses: frozenset[IPAddress]) -> frozenset[IPAddress]:
            return frozenset()

        resolver = Resolver(in_use=in_use)
        checks = HealthChecks(lambda state: None)

        async def carry_out(plan: Plan, revision: int) -> None:
            await keeper.read(plan)

        intent = Intent(folder, worker, resolver, checks, carry_out)
        keeper = CertificateKeeper(intent)
        await intent.open()
        try:
            yield House(store, intent, keeper)
        finally:
            await intent.close()
            await resolver.close()
            await checks.close()


@looped
async def test_only_what_is_used_is_opened(tmp_path: Path) -> None:
    async with house(tmp_path / "s") as at:
        for name in ("one", "two"):
            at.store.certificates.generate("default", name, ["a.example"], YEAR)
        await at.reload()
        assert not at.keeper.identities
        await at.use("one")
        assert [each.name for each in at.keeper.identities] == ["one"]
        assert at.keeper.contexts.server("one") is not None
        assert at.keeper.contexts.server("two") is None
        (state,) = at.keeper.states()
        assert (state.name, state.hosts, state.usable) == ("one", ("a.example",), True)
        assert at.said() == ([], [])


@looped
async def test_what_has_not_changed_is_the_same_object(tmp_path: Path) -> None:
    async with house(tmp_path / "s") as at:
        at.store.certificates.generate("default", "one", ["a.example"], YEAR)
        await at.use("one")
        held, context = at.keeper.identities, at.keeper.contexts.server("one")
        await at.reload()
        assert at.keeper.identities is held
        at.store.certificates.renew("default", "one", YEAR)
        await at.reload()
        assert at.keeper.identities is not held
        assert at.keeper.contexts.server("one") is not context


@looped
async def test_it_is_there_before_the_plan_is_carried_out_and_gone_after_the_last(tmp_path: Path) -> None:
    async with house(tmp_path / "s") as at:
        at.store.certificates.generate("default", "one", ["a.example"], YEAR)
        await at.use("one")
        plan = replace(at.intent.plan, certificates=frozenset())
        await at.keeper.read(plan)
        # Whoever is carried out until then still needs it.
        assert at.keeper.contexts.server("one") is not None
        at.intent.plan = plan
        await at.keeper.reload()
        assert at.keeper.identities == ()
        assert at.keeper.states() == []


@pytest.mark.parametrize(("days", "problems", "warnings"), [(31, 0, 0), (29, 0, 1), (-1, 1, 0)])
@looped
async def test_its_end_is_told(tmp_path: Path, days: int, problems: int, warnings: int) -> None:
    async with house(tmp_path / "s") as at:
        now = datetime.now(UTC).replace(microsecond=0)
        made = signed("a.example", days=90, now=now + timedelta(days=days - 90, minutes=5))
        at.store.certificates.add("default", "one", made)
        await at.use("one")
        found = at.said()
        assert tuple(map(len, found)) == (problems, warnings)
        for text in (*found[0], *found[1]):
            assert text.startswith("certificates: certificate one expire")
            assert f"{made.facts.expires:%Y-%m-%d}" in text


@pytest.mark.parametrize(("days", "warnings"), [(16, 0), (14, 1)])
@looped
async def test_of_one_that_is_fetched_only_what_is_late_is_told(
    tmp_path: Path, days: int, warnings: int
) -> None:
    async with house(tmp_path / "s") as at:
        now = datetime.now(UTC).replace(microsecond=0)
        made = signed("a.example", days=90, now=now + timedelta(days=days - 90, minutes=5))
        at.store.certificates.add("default", "one", made)
        at.store.certificate_sources.keep("default", "one", {}, "secret")
        await at.use("one")
        found = at.said()[1]
        assert len(found) == warnings
        assert all(text.endswith(": marchproxy cert pull one --now") for text in found)


@looped
async def test_what_is_wrong_with_one_is_a_sentence(tmp_path: Path) -> None:
    async with house(tmp_path / "s") as at:
        now = datetime.now(UTC).replace(microsecond=0)
        at.store.certificates.add("default", "over", signed("a.example", now=now - timedelta(days=91)))
        at.store.certificates.generate("default", "fine", ["a.example"], YEAR)
        await at.use("over")
        await at.use("fine", 7001)
        assert at.keeper.complaint("fine") == ""
        assert "certificate over expired at " in at.keeper.complaint("over")
        assert "certificate gone is not there" in at.keeper.complaint("gone")


@looped
async def test_how_early_says_the_settings(tmp_path: Path) -> None:
    async with house(tmp_path / "s") as at:
        at.store.certificates.generate("default", "one", ["a.example"], timedelta(days=20))
        await at.use("one")
        assert at.said()[1]
        settings = to_document(Settings(certificate_warning=86400))
        change = Change(Kind.SETTINGS, "", "settings", to_document(Settings()), settings)
        at.store.commit([change], message="later")
        await at.reload()
        assert at.said() == ([], [])


@looped
async def test_what_cannot_be_had_is_a_problem_and_stops_nothing(tmp_path: Path) -> None:
    async with house(tmp_path / "s") as at:
        for name in ("one", "two", "three"):
            at.store.certificates.generate("default", name, ["a.example"], YEAR)
        for port, name in enumerate(("one", "two", "three"), 7000):
            await at.use(name, port)
        with at.store._database.writing():
            at.store._database.query("DELETE FROM certificate WHERE name = 'one'")
            at.store._database.query("UPDATE certificate SET sealed = 'AAAA' WHERE name = 'two'")
        await at.reload()
        problems, _ = at.said()
        assert len(problems) == 2
        assert "certificate one is not there" in problems[0]
        assert "'two' does not open" in problems[1]
        assert [each.name for each in at.keeper.identities] == ["three"]
        assert {each.name: each.usable for each in at.keeper.states()} == {"two": False, "three": True}
