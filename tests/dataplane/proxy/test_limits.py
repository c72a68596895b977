"""limits: new flows in the sockets tier, by the same classes and the same arithmetic as in the kernel."""

from ipaddress import ip_address

import pytest

from marchproxy.dataplane.proxy import limits as module
from marchproxy.dataplane.proxy.limits import FlowLimits
from marchproxy.dataplane.records import LimitState, Traffic
from marchproxy.policy.plan import RateLimit
from tests.limits import packets, rate

ALICE, BOB = ip_address("10.0.0.1"), ip_address("10.0.0.2")


def limiter(*limits: RateLimit) -> FlowLimits:
    """Asks these."""
    made = FlowLimits()
    made.adopt(limits)
    return made


def admitted(asked: FlowLimits, source: object, seconds: float, tries: int, start: float = 1000.0) -> int:
    """How many of evenly spread flows are let through."""
    return sum(asked.admit(source, start + seconds * number / tries) for number in range(tries))  # type: ignore[arg-type]


@pytest.mark.parametrize("per_second", [2, 10, 300])
def test_the_rate_is_kept_whatever_comes(per_second: int) -> None:
    asked = limiter(rate("r", "source", flows_per_second=per_second, burst=2))
    assert admitted(asked, ALICE, 20, 40 * per_second) == pytest.approx(20 * per_second, rel=0.06)


def test_a_burst_comes_back_with_time() -> None:
    asked = limiter(rate("r", "source", flows_per_second=1, burst=5))
    assert admitted(asked, ALICE, 0, 9) == 5
    assert admitted(asked, ALICE, 0, 9, start=1003) == 3
    assert admitted(asked, ALICE, 0, 9, start=2000) == 5


def test_sources_services_and_all_together() -> None:
    asked = limiter(
        rate("own", "source", flows_per_second=1, burst=4),
        rate("ours", "service", {"pair": "10.0.0.0/30"}, flows_per_second=1, burst=6),
        rate("total", "total", flows_per_second=1, burst=7, exempt="10.0.0.9"),
    )
    assert admitted(asked, ALICE, 0, 9) == 4
    assert admitted(asked, BOB, 0, 9) == 2
    assert admitted(asked, ip_address("fd00::1"), 0, 9) == 1
    assert admitted(asked, ip_address("10.0.0.9"), 0, 9) == 4
    assert asked.states() == [
        LimitState("own", Traffic(11), Traffic(10)),
        LimitState("ours", Traffic(6), Traffic(7)),
        LimitState("total", Traffic(7), Traffic(8)),
    ]


def test_a_change_keeps_what_was_taken() -> None:
    asked = limiter(rate("r", "source", flows_per_second=1, burst=3))
    assert admitted(asked, ALICE, 0, 9) == 3
    asked.adopt((rate("r", "source", flows_per_second=1, burst=4),))
    assert admitted(asked, ALICE, 0, 9) == 1
    asked.adopt((rate("r", "source", flows_per_second=1, burst=4, exempt="10.0.0.1"),))
    assert admitted(asked, ALICE, 0, 9) == 9


def test_clients_are_remembered_within_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLIENTS", 10)
    asked = limiter(rate("r", "source", flows_per_second=1, burst=1))
    assert asked.admit(ALICE, 0)
    for last in range(20):
        assert asked.admit(ip_address(f"10.9.0.{last}"), 0)
        assert not asked.admit(ALICE, 0), "who keeps coming is not forgotten"
    assert asked.admit(ip_address("10.9.0.0"), 0)


def test_what_sockets_cannot_keep_is_said() -> None:
    asked = limiter(packets("source", 100), rate("r", "source", flows_per_second=1))
    assert admitted(asked, ALICE, 0, 9) == 1
    assert asked.problems() == [
        "limit source-packets: packets and bytes are not limited without BPF, only new flows are"
    ]
