"""checks: who is asked, what follows, and what is said about it."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.health import checks as module
from marchproxy.dataplane.health.checks import HealthChecks
from marchproxy.dataplane.health.probes import CannotCheck
from marchproxy.dataplane.records import BackendState
from marchproxy.policy.checks import BackendKey, Check, Watched
from tests.dataplane.loops import looped, until

CHECK = Check("tcp", "", "10.0.0.1", interval=1, timeout=1, rise=2, fall=3)


def key(number: int = 1, service: str = "web") -> BackendKey:
    """A backend."""
    return BackendKey(service, ip_address("10.0.0.0") + number, 80)


def watched(
    number: int = 1, *, check: Check | None = CHECK, service: str = "web", drained: bool = False
) -> Watched:
    """The same, to be looked after."""
    return Watched(key(number, service), check, drained)


class Ward:
    """Checks over backends that are as the test says, with a clock that runs a thousand times as fast."""

    def __init__(self) -> None:
        self.failures: dict[BackendKey, str | Exception] = {}
        self.asked: Counter[BackendKey] = Counter()
        self.told: list[BackendState] = []
        self.under_way = 0
        self.most = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.checks = HealthChecks(self.told.append, ask=self._ask, clock=self._clock)
        self._ticks = 0.0

    def state(self, number: int = 1) -> BackendState:
        """What is known of a backend."""
        return next(state for state in self.checks.states() if state.address == key(number).address)

    async def asked_again(self, times: int = 2, number: int = 1) -> None:
        """Wait for that many more checks to have ended."""
        wanted = self.asked[key(number)] + times
        await until(lambda: self.asked[key(number)] >= wanted)

    def _clock(self) -> float:
        self._ticks += 1.0
        return self._ticks

    async def _ask(self, backend: BackendKey, _: Check) -> str:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
        finally:
            self.under_way -= 1
            self.asked[backend] += 1
        failure = self.failures.get(backend, "")
        if isinstance(failure, Exception):
            raise failure
        return failure


@asynccontextmanager
async def ward() -> AsyncGenerator[Ward]:
    made = Ward()
    try:
        yield made
    finally:
        await made.checks.close()


@looped
async def test_a_backend_goes_down_and_comes_up_and_each_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with ward() as made:
        made.checks.watch([watched(1), watched(2)])
        assert (made.state().up, made.state().checked, made.checks.down) == (True, False, frozenset())
        await until(lambda: made.state(1).checked and made.state(2).checked)
        made.failures[key(1)] = "refused"
        await until(lambda: made.checks.down == {key(1)})
        assert (made.state().up, made.state().why) == (False, "refused")
        await made.asked_again()
        made.failures.clear()
        await until(lambda: not made.checks.down)
        await made.asked_again()
        assert [(state.up, state.why) for state in made.told] == [(False, "refused"), (True, "")]
        assert [record.getMessage() for record in caplog.records] == [
            "10.0.0.1:80 of web is down: refused",
            "10.0.0.1:80 of web is up",
        ]


@looped
async def test_down_is_the_same_object_until_it_changes() -> None:
    async with ward() as made:
        made.failures[key(1)] = "refused"
        made.checks.watch([watched(1), watched(2)])
        await until(lambda: bool(made.checks.down))
        before = made.checks.down
        made.checks.watch([watched(1), watched(2), watched(3)])
        await made.asked_again(3, 2)
        assert made.checks.down is before


@looped
async def test_what_is_no_longer_watched_is_forgotten_even_while_it_is_asked() -> None:
    async with ward() as made:
        made.failures[key(1)] = "refused"
        made.gate.clear()
        made.checks.watch([watched(1)])
        await until(lambda: made.under_way == 1)
        made.checks.watch([])
        made.gate.set()
        await until(lambda: made.asked[key(1)] == 1)
        made.checks.watch([watched(2)])
        await made.asked_again(3, 2)
        assert (made.asked[key(1)], made.checks.down, made.told) == (1, frozenset(), [])


@looped
async def test_other_numbers_keep_what_is_known_and_another_question_does_not() -> None:
    async with ward() as made:
        made.failures[key(1)] = "refused"
        made.checks.watch([watched()])
        await until(lambda: bool(made.checks.down))
        made.gate.clear()
        made.checks.watch([watched(check=replace(CHECK, rise=9, interval=7), drained=True)])
        assert made.checks.down
        assert made.state().drained
        made.checks.watch([watched(check=replace(CHECK, method="http", path="/"))])
        assert not made.checks.down
        assert (made.state().up, made.state().check) == (True, "http")
        made.checks.watch([watched(check=None, drained=True)])
        assert (made.state().up, made.state().check, made.state().drained) == (None, "none", True)
        made.gate.set()


@looped
async def test_a_check_that_cannot_be_made_says_nothing_about_the_backend() -> None:
    async with ward() as made:
        made.failures[key(1)] = CannotCheck("icmp checks need CAP_NET_RAW")
        made.checks.watch([watched(1), watched(2)])
        await made.asked_again(5)
        assert made.state().up
        assert (made.state().checked, made.state().why) == (False, "icmp checks need CAP_NET_RAW")
        assert [str(problem) for problem in made.checks.problems()] == [
            "health: icmp checks need CAP_NET_RAW"
        ]
        made.failures.clear()
        await until(lambda: made.state().checked)
        assert made.checks.problems() == []


@looped
async def test_a_service_without_any_healthy_backend_is_a_problem() -> None:
    async with ward() as made:
        made.failures |= {key(1): "refused", key(2): "refused", key(9, "db"): "refused"}
        made.checks.watch(
            [
                watched(1),
                watched(2),
                watched(8, service="db"),
                watched(9, service="db"),
                watched(3, drained=True),
            ]
        )
        await until(lambda: len(made.checks.down) == 3)
        assert [str(problem) for problem in made.checks.problems()] == [
            "health: every backend of web is down"
        ]


@looped
async def test_no_more_than_so_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 5)
    async with ward() as made:
        made.gate.clear()
        made.checks.watch([watched(number) for number in range(1, 41)])
        await until(lambda: made.under_way == 5)
        made.gate.set()
        await until(lambda: len(made.asked) == 40)
        assert made.most == 5


@looped
async def test_a_defect_in_a_check_does_not_end_the_checks(caplog: pytest.LogCaptureFixture) -> None:
    async with ward() as made:
        made.failures[key(1)] = ZeroDivisionError("a defect")
        made.checks.watch([watched(1), watched(2)])
        await made.asked_again(2, 1)
        await made.asked_again(2, 2)
        assert made.state().up
    assert "check of web 10.0.0.1 80 failed: ZeroDivisionError" in caplog.text
