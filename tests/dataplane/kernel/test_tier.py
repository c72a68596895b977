"""tier: the kernel as a tier, over real links: what it carries, what survives it, and what goes wrong."""

import asyncio
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from marchproxy import bpf
from marchproxy.dataplane.carried import Load
from marchproxy.dataplane.kernel import banks, interfaces, layouts, location, tier
from marchproxy.dataplane.kernel.attach import detach_all
from marchproxy.dataplane.kernel.banks import Banks
from marchproxy.dataplane.kernel.errors import KernelError
from marchproxy.dataplane.kernel.loading import BpfNotPermitted
from marchproxy.dataplane.kernel.natports import RESERVED
from marchproxy.dataplane.kernel.runs import PlanTooLarge
from marchproxy.dataplane.kernel.sysctls import Sysctls
from marchproxy.dataplane.kernel.tier import KernelTier
from marchproxy.dataplane.naming import ServiceNames
from marchproxy.dataplane.records import Event, EventKind, FlowState
from marchproxy.model.appliance import DEFAULT_SETTINGS
from marchproxy.model.entities import Interface, Mapping, Mode, Role, Service
from marchproxy.model.errors import NotPermitted
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import Plan
from rig import Rig
from rig.servers import start_echo
from rig.traffic import ask_tcp, ask_udp
from tests.dataplane.loops import PATIENCE
from tests.policy import build
from tests.policy.build import mapping, service

pytestmark = pytest.mark.requires("root", "bpf", "bpffs", "ringbuf", "netns", "veth", "tcx", "ipv6")

LISTEN, LISTEN6 = "10.1.0.1", "fd01::1"
CLIENT = service("client", "10.1.0.2", "fd01::2")
OTHER = service("other", "10.1.0.66")
ECHO = service("echo", "10.2.0.2", "fd02::2", port=7)
SERVICES = (CLIENT, OTHER, ECHO)
BOTH = mapping("both", "client,other", "echo", "*:7000", "tcp,udp")
ONLY_CLIENT = mapping("both", "client", "echo", "*:7000", "tcp,udp")
WIDE = {"net.ipv4.ip_local_port_range": "1024 65000"}
INTERFACES = (Interface("inside0", Role.INSIDE), Interface("outside0", Role.OUTSIDE))

type Scenario[T] = Callable[[KernelTier], Awaitable[T]]


def plan(*entities: Service | Mapping) -> Plan:
    return replace(build.plan(*entities), interfaces=INTERFACES)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as made:
        made.client.add_address("eth0", "10.1.0.66/24")
        start_echo(made.server)
        yield made


class Bench:
    """Kernel tiers in the middle host, one after the other over the same pins."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.events: list[Event] = []

    def run[T](self, scenario: Scenario[T]) -> T:
        """A daemon's life: create, start, play, close."""

        async def play() -> T:
            made = KernelTier.create()
            try:
                await made.start(self.events.append)
                return await scenario(made)
            finally:
                await made.close()

        return self.rig.middle.call(lambda: asyncio.run(play()))

    def ask(
        self, question: bytes = b"hello", *, port: int = 7000, address: str = LISTEN, source: str = ""
    ) -> bytes:
        return self.rig.client.call(ask_tcp, address, port, question, source=source)

    def ask_udp(self, question: bytes = b"hello", *, address: str = LISTEN) -> bytes:
        return self.rig.client.call(ask_udp, address, 7000, question)

    def connect(self, source: str = "") -> "Talk":
        return Talk(self.rig, source)

    def ended(self) -> list[tuple[str, Reason]]:
        """Clients of flows that ended, and why."""
        return [
            (str(event.decision.source), event.decision.reason)
            for event in self.events
            if event.kind is EventKind.FLOW_END
        ]


class Talk:
    """A TCP connection through the appliance that stays open."""

    def __init__(self, rig: Rig, source: str) -> None:
        self.socket = rig.client.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect((LISTEN, 7000))
        assert self.works()

    def works(self) -> bool:
        """Whether a word comes back."""
        self.socket.sendall(b"word")
        return self.socket.recv(4, socket.MSG_WAITALL) == b"word"

    def stalls(self) -> bool:
        """Whether what is sent is answered by a reset, or not at all."""
        self.socket.settimeout(0.3)
        try:
            return not self.works()
        except (TimeoutError, ConnectionError):
            return True

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def bench(rig: Rig, bpffs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("MARCHPROXY_BPFFS", str(bpffs / "mp"))
    monkeypatch.setenv("MARCHPROXY_RUNTIME_DIR", str(tmp_path))
    made = Bench(rig)
    yield made
    rig.middle.call(detach_all)


async def ask(call: Callable[[], bytes]) -> bytes:
    """Ask from beside the loop."""
    return await asyncio.to_thread(call)


def test_it_carries_and_tells(bench: Bench) -> None:
    async def scenario(kernel: KernelTier) -> None:
        await kernel.apply(plan(*SERVICES, BOTH), 3)
        assert kernel.problems() == []
        assert {(state.name, state.attached) for state in kernel.interfaces()} == {
            ("inside0", "tc"),
            ("outside0", "tc"),
        }
        assert await ask(bench.ask) == b"hello"
        assert await ask(lambda: bench.ask(address=LISTEN6)) == b"hello"
        assert await ask(bench.ask_udp) == b"hello"
        await kernel.poll()
        counters = kernel.counters()
        assert counters[Reason.FORWARDED].packets >= 18
        assert counters[Reason.FORWARDED].bytes > 500
        assert kernel.fill()[0].name == "flows"
        assert kernel.lost_events() == 0

    bench.run(scenario)
    ends = [event for event in bench.events if event.kind is EventKind.FLOW_END]
    assert [(event.decision.mapping, event.decision.revision) for event in ends] == [("both", 3)] * 2
    assert {event.decision.reason for event in ends} == {Reason.CLOSED}
    assert {event.decision.interface for event in ends} == {"inside0"}
    assert sum(event.kind is EventKind.FLOW_START for event in bench.events) == 3


def test_flows_are_listed_up_to_a_limit(bench: Bench) -> None:
    async def scenario(kernel: KernelTier) -> None:
        await kernel.apply(plan(*SERVICES, BOTH), 1)
        talks = [await asyncio.to_thread(bench.connect) for _ in range(3)]
        flows = await kernel.flows(100)
        assert [flow.state for flow in flows] == [FlowState.ESTABLISHED] * 3
        assert len(await kernel.flows(2)) == 2
        for talk in talks:
            talk.close()

    bench.run(scenario)


def test_denied_is_refused_counted_and_told(bench: Bench) -> None:
    async def scenario(kernel: KernelTier) -> None:
        await kernel.apply(plan(*SERVICES, ONLY_CLIENT), 1)
        with pytest.raises(ConnectionRefusedError):
            await ask(lambda: bench.ask(source="10.1.0.66"))
        await kernel.poll()
        assert kernel.counters()[Reason.NO_MAPPING].packets == 1

    bench.run(scenario)
    (denied,) = [event for event in bench.events if event.kind is EventKind.DENIED]
    assert (str(denied.decision.source), denied.decision.reason) == ("10.1.0.66", Reason.NO_MAPPING)


def test_what_nobody_wants_is_not_told(bench: Bench) -> None:
    async def scenario(kernel: KernelTier) -> None:
        await kernel.apply(plan(*SERVICES, BOTH), 1)
        await kernel.want(frozenset({EventKind.FLOW_START}))
        await ask(bench.ask)
        await kernel.poll()

    bench.run(scenario)
    assert [event.kind for event in bench.events] == [EventKind.FLOW_START]


type Counts = tuple[int, int, int]
"""Flows, and bytes of both directions."""


WANTED = plan(*SERVICES, BOTH)
NAMES = ServiceNames(WANTED)


async def counted(kernel: KernelTier) -> Counts:
    """What is counted under the mapping by now."""
    await kernel.poll()
    found = (await kernel.carried(NAMES)).mappings.get("both", Load())
    return found.flows, found.sent_bytes, found.received_bytes


async def ended(bench: Bench, kernel: KernelTier) -> Counts:
    """What the records say of all flows that have ended, once there is one."""
    while not bench.ended():
        await asyncio.sleep(0.01)
        await kernel.poll()
    flows = [event.flow for event in bench.events if event.kind is EventKind.FLOW_END and event.flow]
    return len(flows), sum(each.sent.bytes for each in flows), sum(each.received.bytes for each in flows)


async def live(kernel: KernelTier) -> tuple[Counts, Counts]:
    """What the record of the only flow says, and what is counted with nothing carried meanwhile."""
    while True:
        (before,) = await kernel.flows(10)
        sums = await counted(kernel)
        (flow,) = await kernel.flows(10)
        if (flow.sent, flow.received) == (before.sent, before.received):
            return (1, flow.sent.bytes, flow.received.bytes), sums
        await asyncio.sleep(0.01)


def test_what_is_carried_is_counted_once_and_from_the_beginning_of_each_daemon(bench: Bench) -> None:
    talks: list[Talk] = []

    async def first(kernel: KernelTier) -> None:
        await kernel.apply(WANTED, 3)
        await ask(bench.ask)
        await ended(bench, kernel)
        bench.events.clear()
        await kernel.count(lambda: NAMES)
        assert await counted(kernel) == (0, 0, 0), "what was before is none of ours"
        await ask(bench.ask)
        before = await ended(bench, kernel)
        assert await counted(kernel) == before
        assert before[1] > 0
        # Nobody is told of what follows.
        await kernel.want(frozenset())
        talk = await asyncio.to_thread(bench.connect)
        one, sums = await live(kernel)
        assert sums == tuple(map(sum, zip(before, one, strict=True)))
        (flow,) = await kernel.flows(10)
        assert await kernel.cut(frozenset({flow.decision.id})) == {flow.decision.id}
        assert await counted(kernel) == sums, "it has ended, and counts no more for that"
        talk.close()
        talks.append(await asyncio.to_thread(bench.connect))

    async def second(kernel: KernelTier) -> None:
        await kernel.apply(WANTED, 3)
        await kernel.count(lambda: NAMES)
        before, sums = await live(kernel)
        assert sums == (0, 0, 0), "nor what another daemon has counted"
        assert await asyncio.to_thread(talks[0].works)
        after, sums = await live(kernel)
        assert sums == tuple(now - was for now, was in zip(after, before, strict=True))
        assert min(sums[1:]) > 0
        talks[0].close()

    bench.run(first)
    bench.run(second)


def test_a_restart_disturbs_nothing(bench: Bench) -> None:
    async def before(kernel: KernelTier) -> Talk:
        await kernel.apply(plan(*SERVICES, BOTH), 1)
        return await asyncio.to_thread(bench.connect)

    talk = bench.run(before)
    assert talk.works(), "nobody is there, and the kernel carries"

    async def after(kernel: KernelTier) -> None:
        assert await asyncio.to_thread(talk.works)
        await kernel.apply(plan(*SERVICES, BOTH), 2)
        assert await asyncio.to_thread(talk.works)
        (flow,) = await kernel.flows(10)
        assert (flow.decision.mapping, flow.decision.revision) == ("both", 1)
        await kernel.poll()

    bench.run(after)
    talk.close()
    assert bench.ended() == []


@pytest.mark.requires("xdp", "xdp-native")
def test_what_another_version_left_gives_way(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its programs would go on deciding by its policy, in front of ours."""
    fast = tuple(replace(each, mode=Mode.XDP) for each in INTERFACES)
    wanted = replace(plan(*SERVICES, BOTH), interfaces=fast)

    async def scenario(kernel: KernelTier) -> None:
        await kernel.apply(wanted, 1)
        assert kernel.problems() == []
        assert {state.attached for state in kernel.interfaces()} == {"xdp"}
        assert await ask(bench.ask) == b"hello"

    with monkeypatch.context() as other:
        other.setattr(bpf, "ABI", 999)
        bench.run(scenario)
    left = location.pin_root() / "v999"
    assert left.exists()
    assert caplog.messages == []
    bench.run(scenario)
    assert not left.exists()
    [told] = [line for line in caplog.messages if "another version" in line]
    assert "xdp program on inside0" in told
    assert "maps (v999), with their flows" in told


def test_a_restart_with_another_policy_ends_what_it_refuses(bench: Bench) -> None:
    async def before(kernel: KernelTier) -> tuple[Talk, Talk]:
        await kernel.apply(plan(*SERVICES, BOTH), 1)
        return await asyncio.to_thread(bench.connect), await asyncio.to_thread(bench.connect, "10.1.0.66")

    allowed, refused = bench.run(before)

    async def after(kernel: KernelTier) -> None:
        await kernel.apply(plan(*SERVICES, ONLY_CLIENT), 2)
        assert await asyncio.to_thread(allowed.works)
        assert await asyncio.to_thread(refused.stalls)

    bench.run(after)
    assert bench.ended() == [("10.1.0.66", Reason.POLICY_CHANGED)]
    allowed.close()
    refused.close()


def test_a_changed_policy_ends_what_it_refuses(bench: Bench) -> None:
    async def scenario(kernel: KernelTier) -> None:
        await kernel.apply(plan(*SERVICES, BOTH), 1)
        talk = await asyncio.to_thread(bench.connect)
        await kernel.apply(plan(*SERVICES, BOTH, mapping("more", "other", "echo", "*:7001")), 2)
        assert await asyncio.to_thread(talk.works)
        await kernel.apply(plan(*SERVICES, mapping("more", "other", "echo", "*:7001")), 3)
        assert await asyncio.to_thread(talk.stalls)
        talk.close()

    bench.run(scenario)
    assert bench.ended() == [("10.1.0.2", Reason.POLICY_CHANGED)]


async def stir(bench: Bench, kernel: KernelTier) -> None:
    """Change a route, and an own address with it, so that backends are written anew."""
    bench.rig.middle.ip(
        "address add 10.2.0.77/24 dev outside0", "route replace 10.2.0.2/32 dev outside0 src 10.2.0.77"
    )
    await kernel.poll()
    bench.rig.middle.ip("route delete 10.2.0.2/32 dev outside0", "address delete 10.2.0.77/24 dev outside0")
    await kernel.poll()


@pytest.mark.parametrize("failure", ["too large", "refused by the kernel"])
def test_a_plan_that_cannot_be_carried_out_leaves_the_old_one(
    bench: Bench, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so does what comes after it: the next change of a route must not publish half of a plan."""

    def refuse(*_: object) -> None:
        raise KernelError("cannot write to map 'rules'")

    monkeypatch.setattr(layouts, "RULES", 2)
    larger = plan(*SERVICES, BOTH, mapping("x", "client", "echo", "*:7001"))
    other = plan(*SERVICES, mapping("x", "client", "echo", "*:7001"))

    async def scenario(kernel: KernelTier) -> None:
        await kernel.apply(plan(*SERVICES, BOTH), 1)
        if failure == "too large":
            with pytest.raises(PlanTooLarge, match="too many rules of listeners"):
                await kernel.apply(larger, 2)
        else:
            with monkeypatch.context() as patch:
                patch.setattr(Banks, "switch", refuse)
                with pytest.raises(KernelError, match="cannot write to map"):
                    await kernel.apply(other, 2)
        assert await ask(bench.ask) == b"hello"
        await stir(bench, kernel)
        assert await ask(bench.ask) == b"hello"
        with pytest.raises(ConnectionRefusedError):
            await ask(lambda: bench.ask(port=7001))
        await kernel.apply(other, 3)
        assert await ask(lambda: bench.ask(port=7001)) == b"hello"

    bench.run(scenario)


def test_a_scattered_table_is_packed_anew(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rules at one listener need numbers that follow one another."""
    monkeypatch.setattr(layouts, "RULES", 4)
    one, two, three, four = (
        mapping(f"m{port}", "client", "echo", f"10.1.0.1:{port}") for port in (7000, 7001, 7002, 7003)
    )
    again = mapping("again", "other", "echo", "10.1.0.1:7000")

    async def scenario(kernel: KernelTier) -> None:
        await kernel.apply(plan(*SERVICES, one, two, three, four), 1)
        await kernel.apply(plan(*SERVICES, one, three), 2)
        await kernel.apply(plan(*SERVICES, one, three, again), 3)
        assert await ask(bench.ask) == b"hello"
        assert await ask(lambda: bench.ask(source="10.1.0.66")) == b"hello"
        assert await ask(lambda: bench.ask(port=7002)) == b"hello"

    bench.run(scenario)


def test_a_backend_without_a_route_is_a_problem_until_there_is_one(bench: Bench) -> None:
    far = service("far", "198.51.100.7", port=7)
    bench.rig.server.ip("address replace 198.51.100.7/32 dev lo")
    start_echo(bench.rig.server, 7, "198.51.100.7")

    async def scenario(kernel: KernelTier) -> None:
        await kernel.apply(plan(CLIENT, far, mapping("far", "client", "far", "10.1.0.1:7000")), 1)
        assert kernel.problems() == ["no route to backend 198.51.100.7"]
        bench.rig.middle.ip("route add 198.51.100.0/24 via 10.2.0.2")
        await kernel.poll()
        assert kernel.problems() == []
        assert await ask(bench.ask) == b"hello"

    try:
        bench.run(scenario)
    finally:
        bench.rig.middle.ip("route delete 198.51.100.0/24 via 10.2.0.2")


def test_an_interface_that_is_missing_is_a_problem(bench: Bench) -> None:
    async def scenario(kernel: KernelTier) -> None:
        missing = Interface("nowhere0", Role.OUTSIDE, Mode.TC)
        await kernel.apply(replace(plan(*SERVICES, BOTH), interfaces=(*INTERFACES, missing)), 1)
        assert kernel.problems() == ["nowhere0: no such interface"]
        assert await ask(bench.ask) == b"hello"

    bench.run(scenario)


def test_what_the_kernel_tells_of_interfaces_is_seen_to_by_the_next_poll(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without waiting until it is time to look: that time never comes here."""
    monkeypatch.setattr(interfaces, "AGAIN", 3600.0)
    middle = bench.rig.middle
    setting = Path("/proc/sys/net/ipv4/conf/inside0/forwarding")

    async def scenario(kernel: KernelTier) -> None:
        missing = Interface("late0", Role.OUTSIDE, Mode.TC)
        await kernel.apply(replace(plan(*SERVICES, BOTH), interfaces=(*INTERFACES, missing)), 1)
        await kernel.poll()
        assert kernel.problems() == ["late0: no such interface"]
        middle.call(setting.write_text, "0")
        middle.ip("link add late0 type veth peer name late1")
        try:
            await kernel.poll()
            assert middle.call(setting.read_text) == "1\n"
            assert kernel.problems() == []
        finally:
            middle.ip("link delete late0")
        await kernel.poll()
        assert kernel.problems() == ["late0: no such interface"]

    bench.run(scenario)


def test_facts_can_be_asked_for_while_it_works(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's thread asks, the tier's thread works."""
    monkeypatch.setattr(banks, "GRACE", 0.0)
    done, errors = threading.Event(), []

    def ask_for_everything(kernel: KernelTier) -> None:
        while not done.is_set():
            try:
                kernel.counters(), kernel.interfaces(), kernel.problems(), kernel.fill(), kernel.lost_events()
            except Exception as error:
                errors.append(error)
                return

    async def scenario(kernel: KernelTier) -> None:
        asking = threading.Thread(target=ask_for_everything, args=(kernel,))
        asking.start()
        try:
            for revision in range(20):
                wanted = INTERFACES if revision % 2 else INTERFACES[:1]
                await kernel.apply(replace(plan(*SERVICES, BOTH), interfaces=wanted), revision)
                await kernel.poll()
        finally:
            done.set()
            asking.join()

    bench.run(scenario)
    assert not errors


def test_it_lets_go_of_everything(bench: Bench) -> None:
    async def scenario(kernel: KernelTier) -> None:
        await kernel.apply(plan(*SERVICES, BOTH), 1)

    bench.run(scenario)
    before = set(os.listdir("/proc/self/fd"))
    bench.run(scenario)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_tier_that_cannot_be_made_keeps_nothing_open(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise KernelError("no")

    bench.run(lambda kernel: kernel.poll())
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(tier, "RouteWatch", refuse)
    with pytest.raises(KernelError, match="no"):
        KernelTier.create()
    assert len(os.listdir("/proc/self/fd")) == before


def test_ports_of_flows_are_reserved(bench: Bench) -> None:
    """Of those that the kernel would give to local sockets."""
    bench.rig.middle.sysctl(WIDE)

    async def scenario(kernel: KernelTier) -> None:
        assert kernel.problems() == []
        reserved = bench.rig.middle.call(lambda: Path("/proc/sys", RESERVED).read_text())
        assert reserved == "4096-32767\n"

    bench.run(scenario)


def test_ports_that_cannot_be_reserved_are_a_problem(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise NotPermitted("cannot write it")

    monkeypatch.setattr(Sysctls, "set", refuse)
    bench.rig.middle.sysctl(WIDE)

    async def scenario(kernel: KernelTier) -> None:
        (problem,) = kernel.problems()
        assert problem == "local sockets may get ports 4096-32767, which flows use: cannot write it"

    bench.run(scenario)


def test_settings_hold_at_once_but_for_the_size_of_a_table_that_is_there(bench: Bench) -> None:
    async def scenario(kernel: KernelTier) -> None:
        settings = replace(DEFAULT_SETTINGS, flow_table=4096, timeout_udp=1)
        await kernel.apply(replace(plan(*SERVICES, BOTH), settings=settings), 1)
        (problem,) = [each for each in kernel.problems() if "flow table" in each]
        assert problem.startswith(
            "the flow table holds 1048576 entries, the settings say 4096: marchproxy detach"
        )
        await kernel.apply(plan(*SERVICES, BOTH), 2)
        assert not [each for each in kernel.problems() if "flow table" in each]

    bench.run(scenario)


def test_masquerade_follows_the_interface_s_addresses(bench: Bench) -> None:
    masked = (INTERFACES[0], replace(INTERFACES[1], masquerade=True))

    async def scenario(kernel: KernelTier) -> None:
        await kernel.apply(replace(plan(*SERVICES, BOTH), interfaces=masked), 1)
        assert [each for each in kernel.problems() if "masquerade" in each] == []
        bench.rig.middle.ip("address flush dev outside0 scope global")
        try:
            await kernel.poll()
            assert [
                each for each in kernel.problems() if each.startswith("outside0: it masquerades, and has")
            ]
        finally:
            bench.rig.middle.ip(
                "address add 10.2.0.1/24 dev outside0", "address add fd02::1/64 dev outside0 nodad"
            )
        await kernel.poll()
        assert [each for each in kernel.problems() if "masquerade" in each] == []

    bench.run(scenario)


def test_management_ports_reach_the_host(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARCHPROXY_MANAGEMENT_PORTS", "22, 7000")
    with bench.rig.middle.socket(socket.AF_INET, socket.SOCK_STREAM) as host:
        host.bind((LISTEN, 7000))
        host.listen()
        host.settimeout(PATIENCE)

        async def scenario(kernel: KernelTier) -> None:
            await kernel.apply(plan(*SERVICES, BOTH), 1)
            with bench.rig.client.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
                client.settimeout(PATIENCE)
                client.connect((LISTEN, 7000))
                accepted, _ = host.accept()
                accepted.close()

        bench.run(scenario)


def test_the_error_that_lets_sockets_do_the_work_is_a_permission() -> None:
    assert issubclass(BpfNotPermitted, NotPermitted)
    assert tier.BpfNotPermitted is BpfNotPermitted
