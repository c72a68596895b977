"""Any sequence of changes ends as if only the last one had been made, and no flow is refused that all allow.

While policy changes a thread of its own hands packets that must be carried to the programs.
`MARCHPROXY_EXAMPLES=50` tries fifty times as many sequences.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.dataplane.kernel.banks import Banks
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.dataplane.kernel.settings import Settings
from marchproxy.dataplane.kernel.sourceaddress import source_towards
from marchproxy.dataplane.kernel.tables import TableBuilder
from marchproxy.model.entities import Mapping as Rule
from marchproxy.model.protocol import Transport
from marchproxy.policy.compile import Compiled
from marchproxy.policy.evaluate import Query
from tests.bpf.bed import INSIDE, Action, Bed, Runner, Tier, inside
from tests.bpf.packets import Packet, Tcp, Udp
from tests.bpf.policies import OWN
from tests.bpf.talk import from_client
from tests.dataplane.kernel.fakes import FakeNames, fake_policy_maps
from tests.dataplane.kernel.interpreter import Outcome, interpret
from tests.examples import examples
from tests.policy.build import compiled, mapping, service

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")

EXAMPLES = 6
SERVICES = (
    service("alice", "10.1.0.2", "fd01::2"),
    service("bob", "10.1.0.3", collection="guests"),
    service("office", "10.1.0.0/24", "fd01::/64"),
    service("web", "10.2.0.2", "fd02::2", port=8080),
    service("spare", "10.2.0.3", "10.2.0.4", port=8080, collection="guests"),
    service("far", "10.2.0.8/29", "fd02::/64"),
)
ALWAYS = [
    (
        mapping("always", sources, web, "10.1.0.1:80", "tcp,udp", priority=1, balance=balance),
        mapping("through", sources, "far", ports="443", priority=1),
    )
    for sources, web, balance in (
        ("alice", "web", "maglev"),
        ("alice,bob", "web,spare", "round-robin"),
        ("office", "web", "least-connections"),
        ("all", "spare,web", "source"),
    )
]
"""What lets the probes through, one way or another."""
OTHERS = (
    mapping("deny", "alice", "web,spare", "10.1.0.1:80", "tcp,udp", action="deny", priority=50),
    mapping("deny-far", "all", "far", action="deny", priority=60),
    mapping("anywhere", "all", "spare", "*:80"),
    mapping("range", "office", "web", "*:7000-7040", "tcp,udp"),
    mapping("range-too", "bob", "spare", "10.1.0.1:7010-7020", priority=3),
    mapping("six", "office", "web", "[fd01::1]:80"),
    mapping("guests", "collection:guests", "far", ports="1-1024", priority=90),
    mapping("outside", "external", "web", "10.2.0.1:81", audit=True),
    mapping("no-guests", "collection:guests", "all", action="deny", priority=2),
    mapping("pings", "office", "far", protocols="icmp"),
    mapping("safe", "bob", "far", ports="443,8443", action="deny", priority=4),
)
PROBES: tuple[Callable[[int], Packet], ...] = (
    lambda port: from_client(Tcp(port, 80)),
    lambda port: from_client(Udp(port, 80, b"?")),
    lambda port: from_client(Tcp(port, 443), destination="10.2.0.9"),
)
QUERIES = [
    Query(source, destination, port, transport, OWN)
    for source in map(ip_address, ("10.1.0.2", "10.1.0.3", "10.1.0.9", "203.0.113.1", "fd01::2", "fd01::9"))
    for destination in map(ip_address, ("10.1.0.1", "10.2.0.1", "10.2.0.2", "10.2.0.9", "fd01::1", "fd02::9"))
    if source.version == destination.version
    for port in (80, 81, 443, 7000, 7015, 8443)
    for transport in (Transport.TCP, Transport.UDP)
]
"""What the policies answer differently."""
COUNTED = ("listeners", "address_classes", "class_pages", "source_bits", "transit_bits")
"""Maps in which nothing may be left behind."""


@dataclass(slots=True)
class Prober:
    """Hands the probes to a program until it is told to stop."""

    bed: Bed
    tier: Tier
    rounds: int = 0
    refused: list[str] = field(default_factory=list)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """In a thread of its own."""
        stop = threading.Event()
        thread = threading.Thread(target=self._probe, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def probe(self, runner: Runner) -> None:
        """All of them once, from a port of their own."""
        # What XDP carries on it leaves to TC, the first packet of a flow always.
        carried = Action.REDIRECT if self.tier == "tc" else Action.PASS
        for make in PROBES:
            packet = make(1024 + self.rounds % 60_000)
            action, _ = runner.run(packet.build(), self.bed.ifindex[INSIDE])
            if action is not carried:
                self.refused.append(f"round {self.rounds}: {action.name} for {packet}")
        self.rounds += 1

    def _probe(self, stop: threading.Event) -> None:
        runner = Runner(self.bed.programs[self.tier], self.tier)
        with inside(self.bed.host):
            while not stop.is_set():
                self.probe(runner)


def policies() -> st.SearchStrategy[tuple[Rule, ...]]:
    """What always holds, and some of the rest."""
    some = st.lists(st.sampled_from(OTHERS), max_size=6, unique_by=lambda each: each.name)
    return st.tuples(st.sampled_from(ALWAYS), some).map(lambda each: (*each[0], *each[1]))


def held(maps: Mapping[str, Map], names: dict[str, int]) -> tuple[list[Outcome], dict[str, int]]:
    """What the maps answer, and how much they hold in the bank that is read."""
    bank = Settings(maps["settings"]).bank
    counts = {name: sum(_bank_of(name, key) == bank for key, _ in maps[name].items()) for name in COUNTED}
    return [interpret(maps, names, query) for query in QUERIES], counts


def _bank_of(name: str, key: bytes) -> int:
    if name == "address_classes":
        return key[4]
    return key[3] >> 7 if name.endswith("bits") else key[-1]


def alone(made: Compiled) -> tuple[list[Outcome], dict[str, int]]:
    """The same of maps that have known no other plan."""
    maps, names = fake_policy_maps(), FakeNames()
    builder = TableBuilder(names.number, source_towards)
    Banks(maps, Settings(maps["settings"])).switch(builder.build(made.plan), 1)
    return held(maps, names)


def change(bed: Bed, tier: Tier, sequence: list[tuple[Rule, ...]]) -> None:
    """Make the changes one after the other, with probes all the time."""
    made: Compiled | None = None
    prober = Prober(bed, tier)
    made = compiled(*SERVICES, *sequence[0])
    bed.apply(made.plan)
    with prober.at_work():
        for rules in sequence[1:]:
            made = compiled(*SERVICES, *rules, previous=made)
            bed.apply(made.plan)
    prober.probe(Runner(bed.programs[tier], tier))
    assert not prober.refused, f"{len(prober.refused)} of {prober.rounds}, {prober.refused[0]}"
    assert held(bed.maps, bed.mappings) == alone(compiled(*SERVICES, *sequence[-1]))


def test_changes_end_as_the_last_one_and_never_refuse_what_all_allow(bed: Bed, tier: Tier) -> None:
    bed.settings.prepare(NatPorts())
    bed.settings.change(refusals_per_second=0)

    @examples(EXAMPLES)
    @given(st.lists(policies(), min_size=2, max_size=8))
    def try_sequence(sequence: list[tuple[Rule, ...]]) -> None:
        change(bed, tier, sequence)

    try_sequence()
