"""active: counts that are wrong are put right, and those that only moved are left alone."""

from ipaddress import ip_address

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.active import ActiveFlows
from marchproxy.policy.plan import Plan
from tests.dataplane.kernel.conversations import Conversation
from tests.dataplane.kernel.fakes import FakeMap
from tests.policy.build import mapping, plan, service

KEY = layouts.BACKEND_KEY.struct.pack(layouts.pack_address(ip_address("10.2.0.2")), layouts.pack_port(8080))
OTHER = layouts.BACKEND_KEY.struct.pack(layouts.pack_address(ip_address("10.2.0.3")), layouts.pack_port(8080))
WEB = service("web", "10.2.0.2", "10.2.0.3", port=8080)


def wanted(balance: str = "least-connections") -> Plan:
    """A plan that compares the two backends, or does not."""
    return plan(WEB, mapping("m", "all", "web", "192.0.2.1:80", balance=balance))


class Busy(FakeMap):
    """While its flows are read, the programs count on: `meanwhile` is added to the first backend."""

    def __init__(self, active: FakeMap) -> None:
        super().__init__("flows")
        self.active = active
        self.meanwhile = 0

    def items(self, batch: int = 1024):  # type: ignore[no-untyped-def]
        yield from super().items(batch)
        (held,) = layouts.I64.unpack(self.active.entries[KEY])
        self.active.entries[KEY] = layouts.I64.pack(held + self.meanwhile)


class Kernel:
    """The two maps."""

    def __init__(self) -> None:
        self.active = FakeMap("active")
        self.flows = Busy(self.active)
        self.counting = ActiveFlows({"active": self.active, "flows": self.flows})

    def open(self, *numbers: int) -> None:
        for number in numbers:
            Conversation(id=number, port=number, nat_port=number).put(self.flows)

    @property
    def counts(self) -> dict[bytes, int]:
        return {key: layouts.I64.unpack(raw)[0] for key, raw in self.active.entries.items()}


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


def test_entries_are_those_of_pools_that_compare(kernel: Kernel) -> None:
    kernel.counting.want(wanted())
    assert kernel.counts == {KEY: 0, OTHER: 0}
    kernel.counting.want(wanted("maglev"))
    assert kernel.counts == {}


def test_what_an_earlier_daemon_left_is_taken_over(kernel: Kernel) -> None:
    kernel.open(1, 2)
    kernel.active.entries |= {KEY: layouts.I64.pack(2), b"x" * 20: layouts.I64.pack(9)}
    kernel.counting.want(wanted())
    assert kernel.counts == {KEY: 2, OTHER: 0}


def test_what_an_earlier_daemon_compared_and_this_one_does_not_goes(kernel: Kernel) -> None:
    kernel.active.entries[KEY] = layouts.I64.pack(2)
    kernel.counting.want(wanted("maglev"))
    assert kernel.counts == {}


def test_flows_that_the_programs_did_not_see_are_counted(kernel: Kernel) -> None:
    kernel.open(1, 2, 3)
    kernel.counting.want(wanted())
    assert kernel.counts == {KEY: 3, OTHER: 0}
    kernel.flows.entries.clear()
    kernel.counting.correct()
    assert kernel.counts == {KEY: 0, OTHER: 0}


@pytest.mark.parametrize(
    ("held", "meanwhile", "after"),
    [(3, 0, 3), (2, 4, 6), (4, -2, 2), (9, 1, 3), (0, 1, 3), (-7, 0, 3)],
    ids=["right", "opened while counting", "ended while counting", "too many", "too few", "negative"],
)
def test_only_what_cannot_be_right_is_changed(kernel: Kernel, held: int, meanwhile: int, after: int) -> None:
    kernel.counting.want(wanted())
    kernel.open(1, 2, 3)
    kernel.active.entries[KEY] = layouts.I64.pack(held)
    kernel.flows.meanwhile = meanwhile
    kernel.counting.correct()
    assert kernel.counts == {KEY: after, OTHER: 0}


def test_nothing_is_read_where_nothing_is_compared(kernel: Kernel) -> None:
    kernel.open(1, 2, 3)
    kernel.counting.want(wanted("source"))
    kernel.counting.correct()
    assert kernel.flows.read == 0


def test_what_is_counted_is_told_by_the_names_of_services(kernel: Kernel) -> None:
    assert not kernel.counting.loads()
    kernel.counting.want(wanted())
    kernel.active.entries |= {KEY: layouts.I64.pack(3), OTHER: layouts.I64.pack(-1)}
    assert [(each.service, str(each.address), each.port, each.flows) for each in kernel.counting.loads()] == [
        ("web", "10.2.0.2", 8080, 3),
        ("web", "10.2.0.3", 8080, 0),
    ]
    kernel.counting.want(wanted("maglev"))
    assert not kernel.counting.loads()
