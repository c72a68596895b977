"""deadlines: what is over by the clock, by the plan in force."""

import time
from dataclasses import replace

import pytest

from marchproxy.dataplane.admission.deadlines import Deadlines
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import Plan

NOW = 1_000_000.0


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW)


@pytest.mark.parametrize(
    ("grace", "expires", "reason"),
    [
        (None, 100, None),
        (0, None, None),
        (0, NOW + 1, None),
        (0, NOW, Reason.AUTH_EXPIRED),
        (10, NOW - 9, None),
        (10, NOW - 10, Reason.AUTH_EXPIRED),
    ],
    ids=["keep", "no end", "not yet", "cut", "in its grace", "after its grace"],
)
def test_a_credential_s_end_is_what_its_mapping_makes_of_it(
    grace: int | None, expires: float | None, reason: Reason | None
) -> None:
    deadlines = Deadlines(graces={} if grace is None else {"mine": grace})
    assert deadlines.overdue("mine", 5, expires) is reason
    assert deadlines.overdue("another", 5, expires) is None


def test_a_lifetime_ends_all() -> None:
    deadlines = Deadlines(lifetime=60.0)
    assert deadlines.overdue("any", 60, None) is None
    assert deadlines.overdue("any", 61, None) is Reason.LIFETIME


def test_a_plan_without_any_says_so() -> None:
    plan = Plan()
    assert not Deadlines.of(plan)
    assert Deadlines.of(replace(plan, settings=replace(plan.settings, tunnel_lifetime=60))).lifetime == 60
