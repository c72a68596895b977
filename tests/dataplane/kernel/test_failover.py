"""failover: what nobody answered is opened anew, and everything else stays."""

from ipaddress import ip_address

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.failover import Failover
from marchproxy.dataplane.kernel.flows import FlowTable, Timeouts
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.policy.checks import BackendKey
from marchproxy.policy.plan import Plan
from tests.dataplane.kernel.conversations import Conversation
from tests.dataplane.kernel.fakes import FakeCounts, FakeMap
from tests.policy.build import mapping, plan, service

BACKENDS = ("10.2.0.2", "10.2.0.3")
OPENING = layouts.STATE_OPENING


def made(*down: str, drain: tuple[str, ...] = ()) -> Plan:
    """Two backends, some of which take no new flows."""
    web = service("web", *BACKENDS, port=8080, health="tcp", drain=list(drain))
    keys = frozenset(BackendKey("web", ip_address(address), 8080) for address in down)
    return plan(web, mapping("m", "all", "web", "192.0.2.1:80"), down=keys)


class Kernel:
    """The tables, and what is held about them."""

    def __init__(self) -> None:
        self.flows, self.opening = FakeMap("flows"), FakeMap("opening")
        maps = {
            "flows": self.flows,
            "opening": self.opening,
            "tunnels": FakeMap("tunnels"),
            "beginnings": FakeCounts(),
        }
        self.failover = Failover(FlowTable(maps, MappingNames(FakeMap("mapping_names")), Timeouts()))
        self.held = {
            "unanswered": Conversation(id=1, port=1, nat_port=1, state=OPENING).put(self.opening),
            "answered": Conversation(
                id=2, port=2, nat_port=2, state=layouts.STATE_ANSWERED
            ).put(self.opening),
            "other": Conversation(
                id=3, port=3, nat_port=3, backend="10.2.0.3", state=OPENING
            ).put(self.opening),
            "ended": Conversation(id=4, port=4, nat_port=4, state=layouts.STATE_CLOSED).put(self.opening),
            "established": Conversation(id=5, port=5, nat_port=5).put(self.flows),
        }  # fmt: skip

    @property
    def gone(self) -> set[str]:
        """Conversations without either half."""
        entries = self.flows.entries.keys() | self.opening.entries.keys()
        halves = {name: {each.key, each.reply_key} for name, each in self.held.items()}
        assert all(entries >= keys or entries.isdisjoint(keys) for keys in halves.values())
        return {name for name, keys in halves.items() if entries.isdisjoint(keys)}


@pytest.fixture
def kernel() -> Kernel:
    found = Kernel()
    found.failover.follow(made())
    assert found.gone == set()
    return found


def test_only_what_was_not_answered_by_the_backend_that_went_down(kernel: Kernel) -> None:
    kernel.failover.follow(made("10.2.0.2"))
    assert kernel.gone == {"unanswered"}


def test_each_time_a_backend_goes_down(kernel: Kernel) -> None:
    kernel.failover.follow(made("10.2.0.3"))
    assert kernel.gone == {"other"}
    kernel.failover.follow(made("10.2.0.3", "10.2.0.2"))
    assert kernel.gone == {"other", "unanswered"}
    kernel.failover.follow(made())
    kernel.held["unanswered"].put(kernel.opening)
    kernel.failover.follow(made("10.2.0.2"))
    assert "unanswered" in kernel.gone


def test_nothing_is_read_while_nothing_goes_down(kernel: Kernel) -> None:
    kernel.failover.follow(made("10.2.0.2"))
    before = kernel.opening.read
    kernel.failover.follow(made("10.2.0.2"))
    kernel.failover.follow(made())
    assert kernel.opening.read == before


def test_a_drained_backend_may_still_answer(kernel: Kernel) -> None:
    kernel.failover.follow(made(drain=("10.2.0.2",)))
    assert kernel.gone == set()
