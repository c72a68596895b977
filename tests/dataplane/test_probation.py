"""The daemon takes back what nobody confirmed, once, and says why where it cannot."""

from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from marchproxy.dataplane import probation as module
from marchproxy.dataplane.health.checks import HealthChecks
from marchproxy.dataplane.intent import Intent
from marchproxy.dataplane.names.resolver import Resolver
from marchproxy.dataplane.probation import Probation
from marchproxy.policy.plan import Plan
from marchproxy.store.errors import StoreLocked
from marchproxy.store.store import Store
from marchproxy.store.trial import Moment, Trial
from tests.dataplane.loops import looped
from tests.store.build import appending, service


async def carried_out(plan: Plan, revision: int) -> None:
    """A tier that takes everything."""


@asynccontextmanager
async def house(folder: Path) -> AsyncGenerator[tuple[Store, Probation]]:
    """An operator's store, with revision 2 on trial, and the daemon's view of it."""
    with ThreadPoolExecutor(1) as worker, Store.open(folder, create=True) as store:
        store.replace(appending(service("web")), message="web", trial=60)
        resolver = Resolver()
        intent = Intent(folder, worker, resolver, HealthChecks(lambda _: None), carried_out)
        await intent.open()
        try:
            yield store, Probation(intent, folder)
        finally:
            await intent.close()
            await resolver.close()


def let_pass(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Make it later for the daemon."""
    now = Moment.now()

    class Later(Moment):
        @classmethod
        def now(cls) -> Moment:  # type: ignore[override]
            return replace(now, uptime=now.uptime + seconds)

    monkeypatch.setattr(module, "Moment", Later)


@looped
async def test_until_it_is_due_nothing_happens(tmp_path: Path) -> None:
    async with house(tmp_path) as (store, probation):
        assert not await probation.attend()
        assert isinstance(probation.trial, Trial)
        assert store.head().number == 2


@looped
async def test_due_it_goes_back_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(tmp_path) as (store, probation):
        let_pass(monkeypatch, 62)
        assert await probation.attend()
        assert store.head().message == "revision 2 was not confirmed: back to 1"
        assert probation.trial is None
        assert not await probation.attend()
        assert store.head().number == 3


@looped
async def test_confirmed_it_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(tmp_path) as (store, probation):
        await probation.attend()
        store.confirm()
        let_pass(monkeypatch, 62)
        assert not await probation.attend()
        assert probation.trial is None
        assert store.head().number == 2


@looped
async def test_what_cannot_go_back_is_a_problem_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as (store, probation):
        let_pass(monkeypatch, 62)

        def locked(*_: object) -> None:
            raise StoreLocked("store")

        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(module, "_revert", locked)
            assert not await probation.attend()
        (problem,) = probation.problems()
        assert str(problem).startswith("policy: revision 2 cannot be taken back: store 'store' is locked")
        assert await probation.attend()
        assert not probation.problems()
        assert store.head().number == 3
