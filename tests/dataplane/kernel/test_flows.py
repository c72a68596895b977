"""flows: which conversations are listed, which end and are told of, and what is passed over."""

import time
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from marchproxy import bpf
from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.flows import FlowTable, Timeouts
from marchproxy.dataplane.kernel.layouts import (
    FLAG_FIN,
    FLAG_PEER_FIN,
    ICMP,
    ICMPV6,
    STATE_ANSWERED,
    STATE_CLOSED,
    STATE_ESTABLISHED,
    STATE_OPENING,
    TCP,
    UDP,
)
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.objects import BpfObject
from marchproxy.dataplane.kernel.tunnels import HeldTunnel, Tunnel, TunnelTable
from marchproxy.dataplane.records import Event, EventKind, Flow
from marchproxy.model.appliance import DEFAULT_SETTINGS
from marchproxy.model.reason import Reason
from tests.dataplane.kernel.conversations import SECOND, Conversation
from tests.dataplane.kernel.fakes import FakeCounts, FakeMap

HOURS = 3600


class Tables:
    """Both tables of the kernel, and what was reported."""

    def __init__(self) -> None:
        self.flows, self.opening = FakeMap("flows"), FakeMap("opening")
        self.reports: list[Event] = []
        names = MappingNames(FakeMap("mapping_names", value_size=128))
        self.tunnels, self.beginnings = FakeMap("tunnels"), FakeCounts()
        maps = {
            "flows": self.flows,
            "opening": self.opening,
            "tunnels": self.tunnels,
            "beginnings": self.beginnings,
        }
        self.hung_up: list[bytes] = []
        self.counted: list[Flow] = []
        self.table = FlowTable(maps, names, Timeouts(), hang_up=self._hang_up, ended=self.counted.append)

    def _hang_up(self, key: bytes) -> None:
        assert key not in self.flows.entries.keys() | self.opening.entries.keys()
        self.hung_up.append(key)

    def begun(self, count: int, kind: int = layouts.BEGINNING_TOLD) -> None:
        """The programs have counted so many."""
        self.beginnings.set_percpu(layouts.U32.pack(kind), [layouts.U64.pack(count), bytes(8)])

    def expire(self) -> int:
        return self.table.expire(self.reports.append).established

    @property
    def told(self) -> list[tuple[int, Reason]]:
        """Flow ids and reasons of reported ends."""
        assert all(report.kind is EventKind.FLOW_END for report in self.reports)
        assert [report.flow for report in self.reports] == self.counted
        return [(report.decision.id, report.decision.reason) for report in self.reports]


@pytest.fixture(autouse=True)
def long_after_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernel time starts at boot, and flows here are hours old."""
    read = time.clock_gettime_ns
    monkeypatch.setattr(time, "clock_gettime_ns", lambda clock: read(clock) + 24 * HOURS * SECOND)


@pytest.fixture
def kernel() -> Tables:
    return Tables()


@pytest.mark.parametrize(
    ("protocol", "state", "closing", "limit", "told"),
    [
        pytest.param(TCP, STATE_ESTABLISHED, 0, 2 * HOURS + 240, True, id="established"),
        pytest.param(TCP, STATE_ESTABLISHED, FLAG_FIN, 300, True, id="client has closed"),
        pytest.param(TCP, STATE_ESTABLISHED, FLAG_PEER_FIN, 300, True, id="backend has closed"),
        pytest.param(TCP, STATE_OPENING, 0, 60, False, id="opening"),
        pytest.param(TCP, STATE_ANSWERED, 0, 60, False, id="answered"),
        pytest.param(TCP, STATE_CLOSED, FLAG_FIN | FLAG_PEER_FIN, 10, False, id="closed"),
        pytest.param(UDP, STATE_OPENING, 0, 30, False, id="udp unanswered"),
        pytest.param(UDP, STATE_ANSWERED, 0, 180, True, id="udp answered"),
        pytest.param(UDP, STATE_ESTABLISHED, 0, 180, True, id="udp"),
        pytest.param(ICMP, STATE_ESTABLISHED, 0, 30, True, id="icmp"),
        pytest.param(ICMPV6, STATE_OPENING, 0, 30, False, id="icmpv6 unanswered"),
    ],
)
def test_silence_ends_a_flow(
    kernel: Tables, protocol: int, state: int, closing: int, limit: int, told: bool
) -> None:
    table = kernel.flows if state == STATE_ESTABLISHED else kernel.opening

    def left_at(age: float) -> int:
        Conversation(protocol=protocol, state=state, closing=closing, age=age, reply_age=age + 5).put(table)
        kernel.expire()
        return len(table.entries)

    assert left_at(limit - 5) == 2
    assert not kernel.reports
    assert left_at(limit + 5) == 0
    assert kernel.told == ([(7, Reason.IDLE)] if told else [])


def test_timeouts_are_the_settings_from_now_on(kernel: Tables) -> None:
    Conversation(age=100, reply_age=100).put(kernel.flows)
    assert kernel.expire() == 2
    kernel.table.allow(Timeouts.of(replace(DEFAULT_SETTINGS, timeout_tcp_established=90)))
    assert kernel.expire() == 0
    assert kernel.told == [(7, Reason.IDLE)]


def test_default_settings_are_the_default_timeouts() -> None:
    assert Timeouts.of(DEFAULT_SETTINGS) == Timeouts()


def test_a_walk_counts_what_stays_and_what_is_half_open(kernel: Tables) -> None:
    Conversation(id=1, port=1, nat_port=1).put(kernel.flows)
    Conversation(id=2, port=2, nat_port=2, state=STATE_OPENING).put(kernel.opening)
    Conversation(id=3, port=3, nat_port=3, state=STATE_CLOSED).put(kernel.opening)
    census = kernel.table.expire(kernel.reports.append)
    assert (census.established, census.opening, census.half_open) == (2, 4, 2)


def test_answered_datagrams_without_an_end_are_counted(kernel: Tables) -> None:
    """Of six that began one is established, one ends by silence, one is there, one has lost its reply, and
    two are gone: with all they had, or with the client's half.
    """
    kernel.begun(6)
    for number, state, age in ((1, STATE_ESTABLISHED, 0), (2, STATE_ANSWERED, 999), (3, STATE_ANSWERED, 0)):
        table = kernel.flows if state == STATE_ESTABLISHED else kernel.opening
        _answered(number, state=state, age=age, reply_age=age).put(table)
    kernel.begun(1, layouts.BEGINNING_ESTABLISHED)
    halves = _answered(4, age=999), _answered(5, reply_age=999)
    kernel.opening.set(halves[0].key, halves[0].entry)
    kernel.opening.set(halves[1].reply_key, halves[1].reply)
    # What was not answered, and what is TCP, has no beginning that was told here.
    _answered(7, state=STATE_OPENING).put(kernel.opening)
    _answered(8, protocol=TCP).put(kernel.opening)
    kernel.expire()
    assert kernel.told == [(2, Reason.IDLE), (4, Reason.IDLE)]
    kernel.expire()
    assert kernel.table.unended == 2


def _answered(
    number: int,
    protocol: int = UDP,
    state: int = STATE_ANSWERED,
    age: float = 0,
    reply_age: float = 0,
) -> Conversation:
    return Conversation(
        id=number,
        port=number,
        nat_port=number,
        protocol=protocol,
        state=state,
        age=age,
        reply_age=reply_age,
    )


def test_what_only_another_version_knows_is_not_ended_early(kernel: Tables) -> None:
    Conversation(state=9, protocol=132, age=7000, reply_age=7000).put(kernel.flows)
    assert kernel.expire() == 2


@pytest.mark.parametrize(("age", "reply_age"), [(8000, 1), (1, 8000)])
def test_one_side_that_speaks_is_enough(kernel: Tables, age: float, reply_age: float) -> None:
    Conversation(age=age, reply_age=reply_age).put(kernel.flows)
    assert kernel.expire() == 2
    assert not kernel.reports


def test_the_end_has_the_totals_of_both_directions(kernel: Tables) -> None:
    Conversation(age=8000, reply_age=8000).put(kernel.flows)
    kernel.expire()
    (report,) = kernel.reports
    assert report.flow is not None
    assert (report.flow.sent.packets, report.flow.received.packets) == (3, 2)


def test_entries_that_stay_are_counted(kernel: Tables) -> None:
    for number in range(5):
        age = 8000 if number < 2 else 0
        Conversation(port=number, nat_port=number, id=number, age=age, reply_age=age).put(kernel.flows)
    assert kernel.expire() == 6


@pytest.mark.parametrize("half", ["entry", "reply"])
def test_a_half_that_lost_the_other_ends_too(kernel: Tables, half: str) -> None:
    """It would hold its port towards the backend for ever."""
    made = Conversation(state=STATE_OPENING, age=61, reply_age=61)
    key, value = (made.key, made.entry) if half == "entry" else (made.reply_key, made.reply)
    kernel.opening.set(key, value)
    kernel.expire()
    assert not kernel.opening.entries


def test_a_half_is_not_taken_for_that_of_another_flow(kernel: Tables) -> None:
    """The reply of flow 7 was evicted, its port given to flow 8."""
    old = Conversation(id=7, state=STATE_CLOSED, age=60)
    kernel.opening.set(old.key, old.entry)
    new = Conversation(client="10.0.0.2", id=8, state=STATE_OPENING).put(kernel.opening)
    kernel.expire()
    assert kernel.opening.entries.keys() == {new.key, new.reply_key}


def test_what_the_kernel_ended_meanwhile_is_not_told_twice(kernel: Tables) -> None:
    made = Conversation(age=8000, reply_age=8000).put(kernel.flows)

    def refused(_: object) -> bool:
        kernel.flows.delete(made.key)
        return True

    kernel.table.end_where(lambda _: True, refused, kernel.reports.append)
    assert not kernel.reports
    assert not kernel.flows.entries


def test_live_flows_are_listed_established_ones_first(kernel: Tables) -> None:
    Conversation(id=1, port=1, state=STATE_OPENING, nat_port=1).put(kernel.opening)
    Conversation(id=2, port=2, state=STATE_CLOSED, nat_port=2).put(kernel.opening)
    Conversation(id=3, port=3, nat_port=3).put(kernel.flows)
    assert [flow.decision.id for flow in kernel.table.list(10)] == [3, 1]
    assert [flow.decision.id for flow in kernel.table.list(1)] == [3]
    assert kernel.table.list(0) == []


def test_a_flow_whose_reply_is_gone_is_listed_without_it(kernel: Tables) -> None:
    made = Conversation()
    kernel.flows.set(made.key, made.entry)
    (flow,) = kernel.table.list(10)
    assert (flow.sent.packets, flow.received.packets) == (3, 0)


def test_listing_reads_no_further_than_it_must(kernel: Tables) -> None:
    for number in range(1000):
        Conversation(port=number, nat_port=number, id=number).put(kernel.flows)
    kernel.table.list(3)
    assert kernel.flows.read < 10


def test_policy_ends_flows_wherever_they_are(kernel: Tables) -> None:
    Conversation(id=1, port=1, nat_port=1).put(kernel.flows)
    Conversation(id=2, port=2, nat_port=2, state=STATE_OPENING).put(kernel.opening)
    Conversation(id=3, port=3, nat_port=3, protocol=UDP, state=STATE_ANSWERED).put(kernel.opening)
    Conversation(id=4, port=4, nat_port=4, client="10.0.0.9").put(kernel.flows)

    def refused(key: layouts.FlowKey) -> bool:
        return key.source != layouts.read_key(Conversation(client="10.0.0.9").key).source

    kernel.table.end_where(lambda _: True, refused, kernel.reports.append)
    assert kernel.told == [(1, Reason.POLICY_CHANGED), (3, Reason.POLICY_CHANGED)]
    assert len(kernel.flows.entries) == 2
    assert not kernel.opening.entries


def test_who_is_not_concerned_is_not_asked_about(kernel: Tables) -> None:
    Conversation(id=1, port=1, nat_port=1).put(kernel.flows)
    Conversation(id=2, port=2, nat_port=2, listen_port=81).put(kernel.flows)
    asked: list[int] = []

    def refused(key: layouts.FlowKey) -> bool:
        asked.append(layouts.read_port(key.destination_port))
        return False

    kernel.table.end_where(lambda raw: raw[34:36] == b"\0\x51", refused, kernel.reports.append)
    assert asked == [81]
    assert len(kernel.flows.entries) == 4


@pytest.mark.requires("bpf", "ringbuf")
def test_over_the_kernel_s_own_tables() -> None:
    reports: list[Event] = []
    with BpfObject.load(
        Path(bpf.OBJECTS / "tc.bpf.o"), max_entries={"flows": 8192, "opening": 8192}
    ) as loaded:
        table = FlowTable(loaded.maps, MappingNames(loaded.maps["mapping_names"]), Timeouts(closed=0.001))
        for number in range(2000):
            Conversation(port=number, nat_port=number, id=number).put(loaded.maps["flows"])
        for number in range(500):
            made = Conversation(
                port=number, nat_port=number, id=number, state=STATE_CLOSED, age=1, reply_age=1
            )
            made.put(loaded.maps["opening"])
        assert len(table.list(5000)) == 2000
        assert table.expire(reports.append).established == 4000
        assert not list(loaded.maps["opening"].keys())
        table.end_where(lambda _: True, lambda _: True, reports.append)
        assert not list(loaded.maps["flows"].keys())
    assert len({report.decision.id for report in reports}) == 2000


def test_addresses_in_use_are_those_that_packets_come_from_or_go_to(kernel: Tables) -> None:
    Conversation(client="10.0.0.1", listener="192.0.2.1", backend="10.2.0.2").put(kernel.flows)
    Conversation(client="2001:db8::1", listener="2001:db8::80", backend="fd02::2").put(kernel.opening)

    def touching(*texts: str) -> list[str]:
        packed = {layouts.pack_address(ip_address(text)): text for text in texts}
        return sorted(packed[raw] for raw in kernel.table.touching(packed.keys()))

    ends = ("10.0.0.1", "10.2.0.2", "192.0.2.1", "2001:db8::1", "2001:db8::80", "fd02::2")
    assert touching(*ends, "10.0.0.9", "2001:db8::9") == sorted(ends)
    assert touching("10.0.0.9") == []


class TestHandedOff:
    """Flows of tunnels, which rules do not decide about."""

    TUNNEL = Conversation(id=1, port=1, nat_port=1, splice=7)
    OTHER = Conversation(id=2, port=2, nat_port=2)

    def held(self, kernel: Tables, id: int = 1) -> None:
        """A tunnel and another flow; the table of tunnels has an entry of that id."""
        self.TUNNEL.put(kernel.flows)
        self.OTHER.put(kernel.flows)
        opener = Tunnel("default/clients", name="www.example.org")
        TunnelTable(kernel.tunnels).put(HeldTunnel(id, self.TUNNEL.key, opener))

    def test_the_list_says_who_opened_them(self, kernel: Tables) -> None:
        self.held(kernel)
        handed, other = sorted(kernel.table.list(10), key=lambda flow: flow.decision.id)
        assert (handed.decision.reason, other.decision.reason) == (Reason.HANDED_OFF, Reason.FORWARDED)
        assert (handed.decision.source_service, handed.decision.name) == (
            "default/clients",
            "www.example.org",
        )
        assert (other.decision.source_service, other.decision.name) == ("", "")

    def test_rules_are_not_asked_about_them(self, kernel: Tables) -> None:
        self.held(kernel)
        kernel.table.end_where(lambda _: True, lambda _: True, kernel.reports.append)
        assert kernel.told == [(2, Reason.POLICY_CHANGED)]

    def test_a_judge_is(self, kernel: Tables) -> None:
        self.held(kernel)
        asked: list[tuple[Flow, HeldTunnel]] = []

        def judge(flow: Flow, held: HeldTunnel) -> Reason | None:
            asked.append((flow, held))
            return Reason.AUTH_REVOKED

        kernel.table.end_tunnels(judge, kernel.reports.append)
        ((flow, held),) = asked
        assert (flow.decision.id, held.id, held.tunnel.name) == (1, 1, "www.example.org")
        assert kernel.told == [(1, Reason.AUTH_REVOKED)]
        assert kernel.flows.entries.keys() == {self.OTHER.key, self.OTHER.reply_key}
        assert kernel.hung_up == [self.TUNNEL.key, self.TUNNEL.reply_key]

    def test_one_whose_tuple_is_another_flows_by_now_is_left_alone(self, kernel: Tables) -> None:
        self.held(kernel, id=99)
        kernel.table.end_tunnels(lambda *_: Reason.AUTH_REVOKED, kernel.reports.append)
        assert kernel.table.end(self.TUNNEL.key, 99, Reason.RESET, kernel.reports.append) is False
        assert kernel.told == []

    def test_one_can_be_ended_by_its_key_once(self, kernel: Tables) -> None:
        self.held(kernel)
        report = kernel.reports.append
        assert kernel.table.end(self.TUNNEL.key, 1, Reason.RESET, report) is True
        assert kernel.table.end(self.TUNNEL.key, 1, Reason.RESET, report) is False
        assert kernel.told == [(1, Reason.RESET)]
        # Whoever ends it so still has the sockets.
        assert kernel.hung_up == []

    def test_a_walk_notes_the_places_that_are_in_use(self, kernel: Tables) -> None:
        self.held(kernel)
        Conversation(id=3, port=3, nat_port=3, splice=9, state=STATE_CLOSED).put(kernel.opening)
        assert kernel.table.expire(kernel.reports.append).spliced == {7, 9}


def test_flows_are_cut_by_their_ids_wherever_they_are(kernel: Tables) -> None:
    for id, table in ((1, kernel.flows), (2, kernel.flows), (3, kernel.opening)):
        Conversation(id=id, port=id, nat_port=id, splice=id == 1).put(table)
    Conversation(id=4, port=4, nat_port=4, state=STATE_CLOSED).put(kernel.opening)
    assert kernel.table.cut({1, 3, 4, 77}, Reason.CUT, kernel.reports.append) == {1, 3}
    assert sorted(kernel.told) == [(1, Reason.CUT), (3, Reason.CUT)]
    handed_off = Conversation(id=1, port=1, nat_port=1)
    assert kernel.hung_up == [handed_off.key, handed_off.reply_key]
    assert kernel.flows.entries.keys() == {
        Conversation(id=2, port=2, nat_port=2).key,
        Conversation(id=2, port=2, nat_port=2).reply_key,
    }
    assert kernel.opening.entries == {}
