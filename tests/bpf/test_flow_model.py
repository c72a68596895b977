"""Any sequence of packets and evictions leaves the flow tables as a simple model of conversations says.

Clients share two source ports, so they compete for them; halves of what is no established flow may vanish at
any moment, as the table of such flows evicts its oldest. `MARCHPROXY_EXAMPLES=50` tries
fifty times as many.
"""

from collections import Counter
from functools import partial

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.active import ActiveFlows
from marchproxy.dataplane.kernel.beginnings import Beginnings
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.model.reason import Reason
from tests.bpf.bed import FROM_SERVER, Action, Bed, Outcome, Tier, flow_key
from tests.bpf.ear import Ear
from tests.bpf.flowmodel import FlowModel, Segment, State
from tests.bpf.packets import Packet, Tcp, Udp, packet
from tests.bpf.reading import read
from tests.bpf.talk import from_client
from tests.examples import examples
from tests.policy.build import mapping, plan, service

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs", "ringbuf")

PORTS = range(20000, 20002)
CLIENTS = ("10.1.0.2", "10.1.0.3", "10.1.0.4")
BACKEND = ("10.2.0.2", 8080)
POLICY = (
    service("web", BACKEND[0], port=BACKEND[1]),
    mapping("open", "all", "web", "*:80", protocols="tcp,udp", balance="least-connections"),
)
WANTED = 1 << layouts.EVENT_START | 1 << layouts.EVENT_END
EXAMPLES, STEPS = 15, 40

FLAGS = st.sampled_from(("S", "SA", "A", "A", "PA", "FA", "FA", "F", "R", "RA"))
NUMBERS = st.sampled_from((0, 1, 2000, (1 << 32) - 1))
NEAR = st.sampled_from((0, 0, 0, -1, 1, (1 << 20) - 1, 1 << 20, 1 << 31))
SIZES = st.sampled_from((0, 0, 5))


class Conversations(RuleBasedStateMachine):
    """The programs beside the model."""

    bed: Bed
    tier: Tier
    ear: Ear

    def __init__(self, transport: type[Tcp] | type[Udp]) -> None:
        super().__init__()
        self.transport = transport
        self.model = FlowModel()
        for name in ("flows", "opening"):
            self.bed.maps[name].delete_many(list(self.bed.maps[name].keys()))
        active = self.bed.maps["active"]
        active.update_many([(key, layouts.I64.pack(0)) for key, _ in active.items()])
        self.bed.forget_beginnings()
        self.beginnings = Beginnings(self.bed.maps["beginnings"])
        self.begun: set[int] = set()
        """Datagrams: conversations whose beginning was told; their end is never a program's to tell."""
        self.bed.counters.difference()
        self.ear.heard()

    @rule(client=st.sampled_from(CLIENTS), flags=FLAGS, sequence=NUMBERS, near=NEAR, size=SIZES)
    def client_sends(self, client: str, flags: str, sequence: int, near: int, size: int) -> None:
        """A segment whose acknowledgement is near what the backend sent."""
        talk = self.model.clients.get(client)
        heard = 0 if talk is None else talk.fin.get("backend", talk.answered)
        segment = self._segment(flags, sequence, heard + near, size)
        outcome = self.bed.send(self.tier, self._asking(client, segment))
        carried = self.model.from_client(client, segment)
        if carried or not segment.opens:
            self._check(outcome, Reason.FORWARDED if carried else Reason.NO_FLOW)
        else:
            self._check_opened(client, outcome)

    @rule(port=st.sampled_from(PORTS), flags=FLAGS, sequence=NUMBERS, near=NEAR, size=SIZES)
    def backend_sends(self, port: int, flags: str, sequence: int, near: int, size: int) -> None:
        """A segment whose acknowledgement is near what the client sent."""
        talk = self.model.ports.get(port)
        heard = 0 if talk is None else talk.fin.get("client", 2000)
        segment = self._segment(flags, sequence, heard + near, size)
        outcome = self.bed.send(self.tier, self._answering(port, segment))
        carried = self.model.from_backend(port, segment)
        self._check(outcome, Reason.FORWARDED if carried else Reason.PASSED_TO_HOST)

    @rule(client=st.sampled_from(CLIENTS))
    def client_half_is_evicted(self, client: str) -> None:
        """The least recently used of `opening` go where it is full."""
        talk = self.model.clients.get(client)
        if talk and talk.state is not State.ESTABLISHED:
            assert self.bed.maps["opening"].delete(flow_key(self._asking(client)))
            del self.model.clients[client]

    @rule(port=st.sampled_from(PORTS))
    def backend_half_is_evicted(self, port: int) -> None:
        """Halves are entries by themselves."""
        talk = self.model.ports.get(port)
        if talk and talk.state is not State.ESTABLISHED:
            assert self.bed.maps["opening"].delete(flow_key(self._answering(port)))
            del self.model.ports[port]

    @invariant()
    def tables_are_the_model_s(self) -> None:
        """Which halves there are, in which table, in which state, with which counts."""
        halves = [(self._asking(talk.client), talk, "client") for talk in self.model.clients.values()]
        halves += [(self._answering(talk.port), talk, "backend") for talk in self.model.ports.values()]
        for arriving, talk, sender in halves:
            flow = self.bed.flow(arriving)
            assert flow is not None, f"{sender} of {talk} is not known"
            assert (flow.id, flow.packets) == (talk.id, talk.packets[sender]), f"{sender} of {talk}"
            if self.model.is_whole(talk):
                assert State(flow.state) is talk.state, f"{sender} of {talk}"
            established = talk.state is State.ESTABLISHED
            assert self.bed.is_established(arriving) is established, f"{sender} of {talk}"
        assert self.bed.count("flows") + self.bed.count("opening") == len(halves)

    @invariant()
    def active_ones_are_counted(self) -> None:
        """For the backend that least-connections compares."""
        states = Counter(talk.state for talk in self.model.clients.values())
        counts = [layouts.I64.unpack(raw)[0] for _, raw in self.bed.maps["active"].items()]
        assert counts == [states[State.ESTABLISHED]]

    @invariant()
    def what_happened_is_told_once(self) -> None:
        """Beginnings and ends, of which flow."""
        told = self.model.told()
        assert [(event.kind, event.id) for event in self.ear.heard()] == told
        if self.transport is Udp:
            self.begun |= {id for _, id in told}

    @invariant()
    def what_has_no_end_any_more_is_known(self) -> None:
        """Datagrams that began and whose client is known no more."""
        answered = Counter(talk.state for talk in self.model.clients.values() if talk.id in self.begun)
        self.beginnings.settle(self.beginnings.told, answered[State.ANSWERED])
        assert self.beginnings.unended == len(self.begun) - answered.total()

    def _segment(self, flags: str, sequence: int, acknowledgement: int, size: int) -> Segment:
        if self.transport is Udp:
            return Segment(size=size)
        return Segment(flags, sequence, acknowledgement % (1 << 32), size)

    def _asking(self, client: str, segment: Segment = Segment("S")) -> Packet:  # noqa: B008  (frozen)
        return from_client(self._built(40000, 80, segment), client)

    def _answering(self, port: int, segment: Segment = Segment("S")) -> Packet:  # noqa: B008  (frozen)
        built = self._built(BACKEND[1], port, segment)
        return packet(BACKEND[0], "10.2.0.1", built, link=FROM_SERVER)

    def _built(self, source: int, destination: int, segment: Segment) -> Tcp | Udp:
        data = bytes(segment.size)
        if self.transport is Udp:
            return Udp(source, destination, data)
        return Tcp(
            *(source, destination, segment.flags, segment.sequence, segment.acknowledgement), payload=data
        )

    def _check(self, outcome: Outcome, reason: Reason) -> None:
        assert outcome.reason is reason
        if reason is Reason.FORWARDED:
            assert outcome.action is Action.REDIRECT

    def _check_opened(self, client: str, outcome: Outcome) -> None:
        if outcome.reason is Reason.NO_NAT_PORT:
            self.model.refused(PORTS)
            return
        self._check(outcome, Reason.FORWARDED)
        sent, flow = read(outcome.frame).packet, self.bed.flow(self._asking(client))
        assert sent is not None
        assert flow is not None
        assert isinstance(sent.transport, Tcp | Udp)
        self.model.opened(client, sent.transport.source, flow.id, PORTS)


@pytest.mark.parametrize("transport", [Tcp, Udp])
def test_flows_are_those_of_the_model(bed: Bed, tier: Tier, transport: type[Tcp] | type[Udp]) -> None:
    made = plan(*POLICY)
    bed.apply(made)
    ActiveFlows(bed.maps).want(made)
    bed.settings.prepare(NatPorts(PORTS.start, len(PORTS)))
    bed.settings.change(wanted_events=WANTED, refusals_per_second=1 << 30)
    Conversations.bed, Conversations.tier, Conversations.ear = bed, tier, Ear(bed)
    tried = examples(EXAMPLES, stateful_step_count=STEPS)
    try:
        run_state_machine_as_test(partial(Conversations, transport), settings=tried)  # type: ignore[arg-type]
    finally:
        Conversations.ear.close()
