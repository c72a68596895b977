"""changes: a new policy ends what it refuses, and only asks where it could."""

from dataclasses import replace

import pytest

from marchproxy.dataplane.kernel import changes, layouts
from marchproxy.dataplane.kernel.changes import FlowReview, changed_listeners, moved_services
from marchproxy.dataplane.kernel.flows import FlowTable, Timeouts
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.tables import listener_key
from marchproxy.dataplane.kernel.tunnels import HeldTunnel, Tunnel, TunnelTable
from marchproxy.dataplane.records import Event
from marchproxy.model.address import IPAddress
from marchproxy.model.entities import Mapping, Service
from marchproxy.model.reason import Reason
from marchproxy.policy.compile import Compiled
from marchproxy.policy.evaluate import Answer, Evaluator, Query
from marchproxy.policy.plan import Plan
from tests.dataplane.kernel.conversations import Conversation
from tests.dataplane.kernel.fakes import FakeCounts, FakeMap
from tests.policy.blocking import blocks
from tests.policy.build import OWN, compiled, mapping, service

OFFICE, LAB = service("office", "10.0.0.0/24"), service("lab", "10.0.9.0/24")
WEB, SPARE = service("web", "10.2.0.2", port=8080), service("spare", "10.2.0.3", port=8080)
SERVICES = (OFFICE, LAB, WEB, SPARE)
AT_ONE = mapping("one", "office,lab", "web", "192.0.2.1:80")
AT_TWO = mapping("two", "office", "web", "192.0.2.2:80")
ANYWHERE = mapping("anywhere", "office", "web", "*:80")

FROM_OFFICE = Conversation(id=1, port=1, nat_port=1)
FROM_LAB = Conversation(id=2, port=2, nat_port=2, client="10.0.9.1")
AT_TWO_FROM_OFFICE = Conversation(id=3, port=3, nat_port=3, listener="192.0.2.2")


class Daemon:
    """A review over tables with flows, and what it asked."""

    def __init__(self, *flows: Conversation) -> None:
        self.flows, self.tunnels = FakeMap("flows"), FakeMap("tunnels")
        for flow in flows:
            flow.put(self.flows)
        self.restart()
        self.reports: list[Event] = []
        self.asked: list[Query] = []

    def restart(self) -> None:
        """Another daemon takes over the tables."""
        names = MappingNames(FakeMap("mapping_names", value_size=128))
        names.number("one")
        maps = {
            "flows": self.flows,
            "opening": FakeMap("opening"),
            "tunnels": self.tunnels,
            "beginnings": FakeCounts(),
        }
        self._review = FlowReview(FlowTable(maps, names, Timeouts()))

    def review(self, made: Compiled) -> list[int]:
        """The ids of flows that end."""
        self.reports.clear()
        self.asked.clear()
        self._review.review(made.plan, self.reports.append)
        assert all(report.decision.reason is Reason.POLICY_CHANGED for report in self.reports)
        return [report.decision.id for report in self.reports]

    def review_plan(self, plan: Plan) -> None:
        """Whatever the reasons are."""
        self._review.review(plan, self.reports.append)


@pytest.fixture(autouse=True)
def own_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_local(address: IPAddress) -> bool:
        return address in OWN

    monkeypatch.setattr(changes, "is_local", is_local)


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """With three flows that the plan of `AT_ONE` and `AT_TWO` allows."""
    made = Daemon(FROM_OFFICE, FROM_LAB, AT_TWO_FROM_OFFICE)
    evaluate = Evaluator.evaluate

    def noting(self: Evaluator, query: Query) -> Answer:
        made.asked.append(query)
        return evaluate(self, query)

    monkeypatch.setattr(Evaluator, "evaluate", noting)
    return made


def made(*entities: Service | Mapping, before: Compiled | None = None) -> Compiled:
    return compiled(*entities, previous=before)


def test_after_a_restart_every_flow_is_looked_at(daemon: Daemon) -> None:
    assert daemon.review(made(*SERVICES, AT_ONE, AT_TWO)) == []
    assert len(daemon.asked) == 3


def test_after_a_restart_with_another_policy_only_the_refused_end(daemon: Daemon) -> None:
    daemon.review(made(*SERVICES, AT_ONE, AT_TWO))
    daemon.restart()
    assert daemon.review(made(*SERVICES, mapping("one", "office", "web", "192.0.2.1:80"))) == [2, 3]
    assert daemon.flows.entries.keys() == {FROM_OFFICE.key, FROM_OFFICE.reply_key}


def test_the_same_plan_asks_nothing(daemon: Daemon) -> None:
    first = made(*SERVICES, AT_ONE, AT_TWO)
    daemon.review(first)
    assert daemon.review(made(*SERVICES, AT_ONE, AT_TWO, before=first)) == []
    assert not daemon.asked


def test_only_flows_at_changed_listeners_are_asked_about(daemon: Daemon) -> None:
    first = made(*SERVICES, AT_ONE, AT_TWO)
    daemon.review(first)
    after = made(*SERVICES, AT_ONE, mapping("two", "lab", "web", "192.0.2.2:80"), before=first)
    assert daemon.review(after) == [3]
    assert [str(query.destination) for query in daemon.asked] == ["192.0.2.2"]


def test_a_source_that_moved_concerns_the_listeners_that_name_it(daemon: Daemon) -> None:
    first = made(*SERVICES, AT_ONE, AT_TWO)
    daemon.review(first)
    moved = (OFFICE, service("lab", "10.0.10.0/24"), WEB, SPARE)
    assert daemon.review(made(*moved, AT_ONE, AT_TWO, before=first)) == [2]
    assert {str(query.destination) for query in daemon.asked} == {"192.0.2.1"}


def test_a_flow_keeps_a_backend_that_has_left_the_pool(daemon: Daemon) -> None:
    first = made(*SERVICES, AT_ONE, AT_TWO)
    daemon.review(first)
    elsewhere = mapping("one", "office,lab", "spare", "192.0.2.1:80")
    assert daemon.review(made(*SERVICES, elsewhere, AT_TWO, before=first)) == []
    assert daemon.asked == [], "where new flows go says nothing about the old ones"


def all_down(*entities: Service | Mapping, before: Compiled | None = None) -> Compiled:
    """What checks of `web` make of a plan when none succeeds."""
    down = frozenset(watched.backend for watched in compiled(*entities).plan.watched)
    assert down
    return compiled(*entities, down=down, previous=before)


SICK = (OFFICE, LAB, service("web", "10.2.0.2", port=8080, health="tcp"), SPARE, AT_ONE, AT_TWO)


def test_flows_outlive_the_health_of_their_backends(daemon: Daemon) -> None:
    first = compiled(*SICK)
    daemon.review(first)
    after = all_down(*SICK, before=first)
    assert {rule.reason for rule in after.plan.listeners[0].rules} == {Reason.NO_BACKEND}
    assert daemon.review(after) == []
    assert daemon.asked == [], "and nobody looks at them"


def test_flows_that_audit_lets_through_outlive_it_too(daemon: Daemon) -> None:
    audited = (*SICK, mapping("no", "lab", "web", "192.0.2.1:80", action="deny", priority=1, audit=True))
    first = compiled(*audited)
    assert daemon.review(first) == []
    after = all_down(*audited, before=first)
    assert daemon.review(after) == []
    daemon.restart()
    assert daemon.review(after) == []
    assert daemon.review(
        compiled(*SICK, mapping("no", "lab", "web", "192.0.2.1:80", action="deny", priority=1))
    ) == [2]


def test_a_daemon_that_starts_with_all_backends_down_ends_no_flow(daemon: Daemon) -> None:
    assert daemon.review(all_down(*SICK)) == []
    assert daemon.asked


def test_another_mapping_may_allow_it_from_now_on(daemon: Daemon) -> None:
    first = made(*SERVICES, AT_ONE, AT_TWO)
    daemon.review(first)
    assert daemon.review(made(*SERVICES, AT_ONE, ANYWHERE, before=first)) == []


def test_a_deny_ends_what_it_denies(daemon: Daemon) -> None:
    first = made(*SERVICES, AT_ONE, AT_TWO)
    daemon.review(first)
    deny = mapping("no", "lab", "web", "192.0.2.1:80", action="deny", priority=1)
    assert daemon.review(made(*SERVICES, AT_ONE, AT_TWO, deny, before=first)) == [2]


@pytest.mark.parametrize(
    ("listener", "client", "backend"),
    [("192.0.2.1", "10.0.0.1", "10.2.0.2"), ("2001:db8::1", "2001:db8:a::1", "fd02::2")],
)
def test_a_wildcard_that_changes_concerns_flows_to_every_address(
    listener: str, client: str, backend: str
) -> None:
    daemon = Daemon(Conversation(listener=listener, client=client, backend=backend))
    both = service("both", "10.0.0.0/24", "2001:db8:a::/48")
    web = service("web", "10.2.0.2", "fd02::2", port=8080)
    first = made(both, LAB, web, mapping("anywhere", "both", "web", "*:80"))
    assert daemon.review(first) == []
    assert daemon.review(made(both, LAB, web, mapping("anywhere", "lab", "web", "*:80"), before=first)) == [7]


def test_a_listener_of_its_own_takes_over_from_the_wildcard() -> None:
    daemon = Daemon(FROM_OFFICE, AT_TWO_FROM_OFFICE)
    first = made(*SERVICES, ANYWHERE)
    daemon.review(first)
    assert daemon.review(
        made(*SERVICES, ANYWHERE, mapping("x", "lab", "web", "192.0.2.1:80"), before=first)
    ) == [1]


def test_a_wildcard_does_not_cover_addresses_of_others() -> None:
    """What the appliance is routed but does not own was allowed by the listener for that very address."""
    daemon = Daemon(Conversation(listener="198.51.100.1"))
    first = made(*SERVICES, ANYWHERE, mapping("exact", "office", "web", "198.51.100.1:80"))
    assert daemon.review(first) == []
    assert daemon.review(made(*SERVICES, ANYWHERE, before=first)) == [7]


def test_protocols_are_told_apart() -> None:
    daemon = Daemon(Conversation(protocol=layouts.UDP))
    assert daemon.review(made(*SERVICES, AT_ONE)) == [7]


def test_a_review_that_failed_is_made_up_for(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    first = made(*SERVICES, AT_ONE, AT_TWO)
    daemon.review(first)
    after = made(*SERVICES, AT_TWO, before=first)

    def fail(_: object) -> bool:
        raise OSError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(daemon.flows, "delete", fail)
        with pytest.raises(OSError, match="broken"):
            daemon.review(after)
    assert daemon.review(after) == [1, 2]


def test_changed_listeners() -> None:
    first = made(*SERVICES, AT_ONE, AT_TWO, mapping("out", "external", "web", "192.0.2.1:81"))
    one, out, two = first.plan.listeners
    assert changed_listeners(first.plan, first.plan, set()) == frozenset()
    moved = made(
        OFFICE,
        service("lab", "10.0.10.0/24"),
        *(WEB, SPARE, AT_ONE, AT_TWO),
        mapping("out", "external", "web", "192.0.2.1:81"),
        before=first,
    )
    assert changed_listeners(first.plan, moved.plan, moved_services(first.plan, moved.plan)) == {
        listener_key(one),
        listener_key(out),
    }
    assert listener_key(two) not in changed_listeners(
        first.plan, moved.plan, moved_services(first.plan, moved.plan)
    )


REMOTE = service("remote", "203.0.113.1", "203.0.113.2")
OUT = mapping("out", "office", "remote", protocols="tcp,icmp")
PASSING = Conversation(
    id=8, port=8, nat_port=8, listener="203.0.113.1", backend="203.0.113.1", listen_port=443
)
PASSING_TOO = Conversation(
    id=9, port=9, nat_port=9, listener="203.0.113.2", backend="203.0.113.2", listen_port=443
)
PINGING = Conversation(
    id=10, port=77, nat_port=77, listener="203.0.113.1", listen_port=0, protocol=layouts.ICMP
)


@pytest.fixture
def gateway(daemon: Daemon) -> Daemon:
    """With three flows in transit beside those of `daemon`, all reviewed."""
    for flow in (PASSING, PASSING_TOO, PINGING):
        flow.put(daemon.flows)
    assert not daemon.review(made(*SERVICES, REMOTE, AT_ONE, AT_TWO, OUT))
    return daemon


def test_a_mapping_that_goes_ends_its_flows_in_transit(gateway: Daemon) -> None:
    assert sorted(gateway.review(made(*SERVICES, REMOTE, AT_ONE, AT_TWO))) == [8, 9, 10]


def test_ports_of_a_mapping_hold_for_running_flows(gateway: Daemon) -> None:
    only_web = mapping("out", "office", "remote", protocols="tcp", ports="80,443")
    assert gateway.review(made(*SERVICES, REMOTE, AT_ONE, AT_TWO, only_web)) == [10]


def test_an_address_that_goes_ends_its_flows_and_asks_about_no_others(gateway: Daemon) -> None:
    fewer = service("remote", "203.0.113.1")
    assert gateway.review(made(*SERVICES, fewer, AT_ONE, AT_TWO, OUT)) == [9]
    assert [str(query.destination) for query in gateway.asked] == ["203.0.113.2"]


def test_an_address_that_comes_to_what_is_allowed_concerns_nobody(gateway: Daemon) -> None:
    more = service("remote", "203.0.113.1", "203.0.113.2", "203.0.113.3")
    assert not gateway.review(made(*SERVICES, more, AT_ONE, AT_TWO, OUT))
    assert not gateway.asked


def test_an_address_that_comes_to_what_is_denied_ends_its_flows(gateway: Daemon) -> None:
    bad = service("bad", "198.51.100.1")
    denying = mapping("no", "all", "bad", action="deny", priority=1)
    policy = (*SERVICES, REMOTE, AT_ONE, AT_TWO, OUT, denying)
    assert not gateway.review(made(*policy, bad))
    assert gateway.review(made(*policy, service("bad", "198.51.100.1", "203.0.113.2"))) == [9]


def test_what_external_no_longer_is_ends_with_it(gateway: Daemon) -> None:
    anywhere = mapping("out", "office", "external", protocols="tcp,icmp")
    policy = (*SERVICES, AT_ONE, AT_TWO, anywhere)
    assert not gateway.review(made(*policy, service("other", "192.0.2.77")))
    assert gateway.review(made(*policy, service("other", "192.0.2.77", "203.0.113.2"))) == [9]


def test_a_wide_prefix_that_goes_concerns_all_flows_in_transit(gateway: Daemon) -> None:
    wide = service("remote", "203.0.113.0/24")
    assert not gateway.review(made(*SERVICES, wide, AT_ONE, AT_TWO, OUT))
    assert sorted(gateway.review(made(*SERVICES, service("remote", "203.0.113.2"), AT_ONE, AT_TWO, OUT))) == [
        8,
        10,
    ]


@pytest.mark.parametrize(
    ("blocked", "ends"),
    [
        ("10.0.9.0/24", {2: Reason.BLOCKED_SOURCE}),
        ("192.0.2.2", {3: Reason.BLOCKED_DESTINATION}),
        ("10.2.0.2", dict.fromkeys((1, 2, 3), Reason.BLOCKED_DESTINATION)),
        ("0.0.0.0/0", dict.fromkeys((1, 2, 3), Reason.BLOCKED_SOURCE)),
        ("203.0.113.0/24", {}),
    ],
)
def test_flows_from_and_to_what_is_blocked_end_with_that_reason(
    daemon: Daemon, blocked: str, ends: dict[int, Reason]
) -> None:
    first = made(*SERVICES, AT_ONE, AT_TWO)
    daemon.review(first)
    daemon.reports.clear()
    wanted = replace(first.plan, blocks=blocks(blocked))
    daemon.review_plan(wanted)
    assert {report.decision.id: report.decision.reason for report in daemon.reports} == ends
    daemon.reports.clear()
    daemon.review_plan(replace(wanted))
    assert daemon.reports == []


def test_a_tunnel_that_user_space_handed_off_is_asked_of_its_mapping_alone(daemon: Daemon) -> None:
    """No rule needs to match its tuple, which is of a connection that the appliance itself accepted."""
    tunnel = Conversation(id=9, port=9, nat_port=9, listener="203.0.113.9", splice=5).put(daemon.flows)
    TunnelTable(daemon.tunnels).put(HeldTunnel(9, tunnel.key, Tunnel()))
    assert daemon.review(made(*SERVICES, AT_ONE, AT_TWO)) == []
    assert daemon.review(made(*SERVICES, mapping("one", "lab", "web", "192.0.2.7:80"), AT_TWO)) == [1, 2]
    assert daemon.review(made(*SERVICES, AT_TWO)) == [9]
