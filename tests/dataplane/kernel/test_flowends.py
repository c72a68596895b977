"""flowends: ends add up to what their records say, each once."""

from ipaddress import ip_address

from marchproxy.dataplane.carried import Carried, Load, Side
from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.clock import KernelClock
from marchproxy.dataplane.kernel.flowends import FlowEnds
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.records import RecordReader
from marchproxy.dataplane.kernel.tunnels import HeldTunnel, Tunnel, TunnelTable
from marchproxy.dataplane.naming import ServiceNames
from marchproxy.dataplane.records import Flow
from tests.dataplane.kernel.conversations import Conversation
from tests.dataplane.kernel.fakes import FakeMap
from tests.dataplane.plans import backend, listener, plan, rule

SERVED = plan(
    listener(80, rule(backend(8080, "10.2.0.2"), sources=("clients",), mapping="shop/m1")),
    sources={"clients": "10.0.0.0/24"},
)


class Kernel:
    """What the kernel has told, and the sums of it."""

    def __init__(self) -> None:
        self.names = MappingNames(FakeMap("mapping_names", value_size=128))
        for number in (1, 2):
            self.names.number(f"shop/m{number}")
        self.tunnels = TunnelTable(FakeMap("tunnels"))
        self.ends = FlowEnds(self.names, self.tunnels)
        self.services = ServiceNames(SERVED)

    def begin(self) -> "Kernel":
        self.ends.begin(lambda: self.services)
        return self

    def flow(self, raw: bytes) -> Flow:
        """The record that is told of it."""
        event = RecordReader(self.names, self.tunnels).event(raw)
        assert event.flow
        return self.services.complete_flow(event.flow)


def ended(
    client: str = "10.0.0.1", *, mapping: int = 1, id: int = 7, spliced: bool = False, age: int = 0
) -> bytes:
    """As it stands in the ring; `age` in nanoseconds."""
    now = KernelClock().monotonic
    key = layouts.FLOW_KEY.struct.pack(
        *(layouts.pack_address(ip_address(client)), layouts.pack_address(ip_address("192.0.2.1"))),
        *(layouts.pack_port(40000), layouts.pack_port(80), layouts.TCP),
    )
    return layouts.EVENT.struct.pack(
        *(now, id, now - age, layouts.U64_PAIR.pack(3, 2), layouts.U64_PAIR.pack(300, 200), key),
        *(layouts.pack_address(ip_address("10.2.0.2")), layouts.pack_port(8080), layouts.EVENT_END),
        *(3, mapping, 5, 1, 0, 1, spliced),
    )


def expected(*flows: Flow) -> Carried:
    made = Carried()
    for flow in flows:
        decision = flow.decision
        load = Load(1, flow.sent.packets, flow.sent.bytes, flow.received.packets, flow.received.bytes)
        made.take(decision.mapping, decision.source_service, decision.destination_service, load)
    return made


def test_sums_are_those_of_the_records_that_are_told() -> None:
    kernel = Kernel().begin()
    kernel.tunnels.put(HeldTunnel(9, bytes(40), Tunnel("shop/laptops", "1", "www.example.com")))
    raws = [ended(), ended(), ended("198.51.100.7", mapping=2), ended(id=9, spliced=True)]
    kernel.ends.take(raws)
    found = kernel.ends.so_far()
    assert found == expected(*map(kernel.flow, raws))
    assert found.mappings == {"shop/m1": Load(3, 9, 900, 6, 600), "shop/m2": Load(1, 3, 300, 2, 200)}
    assert found.services == {
        ("clients", Side.SOURCE): Load(2, 6, 600, 4, 400),
        ("shop/laptops", Side.SOURCE): Load(1, 3, 300, 2, 200),
        ("web", Side.DESTINATION): Load(4, 12, 1200, 8, 800),
    }


def test_what_user_space_ends_is_added_as_what_the_programs_tell() -> None:
    kernel = Kernel().begin()
    raw = ended()
    told = RecordReader(kernel.names, kernel.tunnels).event(raw).flow
    assert told
    kernel.ends.note(told)
    assert kernel.ends.so_far() == expected(kernel.flow(raw))


def test_what_ended_before_is_not_counted() -> None:
    kernel = Kernel()
    before = ended()
    assert [kernel.ends.counting, kernel.begin().ends.counting] == [False, True]
    kernel = Kernel()
    kernel.ends.note(kernel.flow(before))
    kernel.ends.take([before])
    kernel.begin()
    kernel.ends.take([before])
    assert kernel.ends.so_far() == Carried()
    kernel.ends.take([ended()])
    assert kernel.ends.so_far().mappings == {"shop/m1": Load(1, 3, 300, 2, 200)}


def test_flows_that_were_there_before_count_once_it_is_known_what_they_had_carried() -> None:
    kernel, hour = Kernel().begin(), 3600 * 10**9
    old = ended(age=hour)
    kernel.ends.take([old])
    kernel.ends.note(kernel.flow(old))
    assert kernel.ends.so_far() == Carried()
    begun = KernelClock().monotonic
    assert kernel.ends.settle() < begun
    assert kernel.ends.settled
    kernel.ends.take([old])
    assert kernel.ends.so_far() == Carried(), "it ended before"
    kernel.ends.leave_out(expected(kernel.flow(old)))
    assert kernel.ends.so_far().mappings == {"shop/m1": Load(-1, -3, -300, -2, -200)}
    kernel.ends.take([ended(age=hour)])
    kernel.ends.note(kernel.flow(ended(age=hour)))
    assert kernel.ends.so_far().mappings == {"shop/m1": Load(1, 3, 300, 2, 200)}


def test_services_are_those_of_the_plan_in_force() -> None:
    kernel = Kernel().begin()
    kernel.ends.take([ended()])
    kernel.services = ServiceNames(plan(sources={"others": "10.0.0.0/24"}))
    kernel.ends.take([ended()])
    one = Load(1, 3, 300, 2, 200)
    assert kernel.ends.so_far().services == {
        ("clients", Side.SOURCE): one,
        ("web", Side.DESTINATION): one,
        ("others", Side.SOURCE): one,
    }


def test_what_sockets_have_carried_of_a_tunnel_is_left_out_unless_it_is_theirs_again() -> None:
    kernel = Kernel().begin()
    taken = Conversation(sent=2, received=1, splice=4)
    entry = taken.key, taken.entry, taken.reply, Tunnel("shop/laptops")
    kernel.ends.enter(*entry)()
    assert kernel.ends.so_far().mappings == {"shop/m1": Load()}
    kernel.ends.enter(*entry)
    left = kernel.ends.so_far()
    assert left.mappings == {"shop/m1": Load(-1, -2, -200, -1, -100)}
    assert left.services[("shop/laptops", Side.SOURCE)].flows == -1
    kernel.tunnels.put(HeldTunnel(taken.id, taken.key, Tunnel("shop/laptops")))
    kernel.ends.take([ended(spliced=True)])
    found = kernel.ends.so_far()
    assert found.mappings == {"shop/m1": Load(0, 1, 100, 1, 100)}
    assert found.services == {
        ("shop/laptops", Side.SOURCE): Load(0, 1, 100, 1, 100),
        ("web", Side.DESTINATION): Load(0, 1, 100, 1, 100),
    }


def test_nobody_counts_tunnels_where_nobody_counts() -> None:
    kernel, taken = Kernel(), Conversation(splice=4)
    kernel.ends.enter(taken.key, taken.entry, taken.reply, Tunnel())()
    assert kernel.ends.so_far() == Carried()
