"""Random policies and random new flows: the kernel's verdict, mapping and backend against the reference's.

A failure prints its seed; `MARCHPROXY_SEED=1234` runs that policy alone.
"""

import os
import random
from dataclasses import replace
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.model.entities import Mapping, Service
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason
from marchproxy.policy.evaluate import Answer, Evaluator, Query
from tests.bpf.bed import EVERY_DENIAL, FROM_CLIENT, Bed, Outcome, Tier
from tests.bpf.ear import Ear
from tests.bpf.packets import Packet, Tcp, Udp
from tests.bpf.policies import OWN
from tests.policy.build import mapping, plan, service

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs", "ringbuf")

POLICIES, PACKETS = 120, 200
_DENIED = 1 << layouts.EVENT_DENIED

# A world so small that everything overlaps: prefixes, services, listeners, priorities.
CLIENTS = [
    *(
        "10.1.0.2",
        "10.1.0.3",
        "10.1.0.130",
        "10.1.1.1",
        "10.9.8.7",
        "172.16.0.1",
        "203.0.113.7",
        "9.255.255.255",
    ),
    *(
        "fd01::2",
        "fd01::3",
        "fd01::8000:0",
        "fd01:1::1",
        "2001:db8::1",
        "2001:db8:1::1",
        "2001:db9::",
        "1::1",
    ),
]
PREFIXES = [
    *("10.1.0.2", "10.1.0.3", "10.1.0.0/25", "10.1.0.128/25", "10.1.0.0/24", "10.0.0.0/8", "8.0.0.0/6"),
    *("0.0.0.0/0", "0.0.0.0/1", "203.0.113.0/24", "172.16.0.0/12"),
    *(
        "fd01::2",
        "fd01::/64",
        "fd01::/16",
        "fd01::8000:0/97",
        "2001:db8::/32",
        "2001:db8::/47",
        "::/0",
        "2000::/3",
    ),
]
BACKENDS = [*(f"10.2.0.{last}" for last in range(2, 10)), *(f"fd02::{last}" for last in range(2, 10))]
LISTEN = [
    "*:80",
    "*:81",
    "0.0.0.0:80",
    "[::]:80",
    "10.1.0.1:80",
    "10.2.0.1:81",
    "[fd01::1]:80",
    "10.2.0.77:80",
]
DESTINATIONS = ["10.1.0.1", "10.2.0.1", "fd01::1", "fd02::1", "10.2.0.77", "10.2.0.2", "fd02::2"]
SOURCES = ["all", "external", "collection:red", "collection:blue", *(f"c{number}" for number in range(7))]
PROTOCOLS = ["tcp", "udp", "tcp,udp"]


def random_policy(dice: random.Random) -> list[Service | Mapping]:
    """Up to seven services of clients, up to three of backends, up to twelve mappings; sometimes hundreds."""
    clients = [
        service(
            f"c{number}",
            *dice.sample(PREFIXES, dice.randint(1, 4)),
            collection=dice.choice(["red", "blue", None]),
        )
        for number in range(7)
    ]
    backends = [
        service(
            f"b{number}",
            *dice.sample(BACKENDS, dice.randint(1, 3)),
            port=8080 + number,
            weight=dice.choice([1, 1, 5]),
            auth=dice.choice(["none"] * 9 + ["token"]),
        )
        for number in range(3)
    ]
    # Above 64 rules of a listener the search goes from word to word.
    mappings = [
        mapping(
            f"m{number}",
            ",".join(dice.sample(SOURCES, dice.randint(1, 2))),
            ",".join(dice.sample(["b0", "b1", "b2"], dice.randint(1, 2))),
            dice.choice(LISTEN),
            dice.choice(PROTOCOLS),
            priority=dice.randint(1, 5),
            action=dice.choice(["allow"] * 4 + ["deny"]),
        )
        for number in range(dice.choice([2, 8, 16, 16, 150]))
    ]
    return [*clients, *backends, *mappings]


def random_question(dice: random.Random, number: int) -> tuple[Query, Packet]:
    """A new flow, as the reference and as the kernel are asked; `number` makes its port its own."""
    source = ip_address(dice.choice(CLIENTS))
    same = [place for place in map(ip_address, DESTINATIONS) if place.version == source.version]
    destination, port = dice.choice(same), dice.choice([80, 80, 80, 80, 81, 81, 82])
    transport = dice.choice(list(Transport))
    kind = Tcp if transport is Transport.TCP else Udp
    asked = Packet(source, destination, kind(1024 + number, port), FROM_CLIENT)
    return Query(source, destination, port, transport, OWN), asked


class Comparison:
    """One policy in both places."""

    def __init__(self, bed: Bed, seed: int) -> None:
        self.bed = bed
        self.dice = random.Random(seed)
        bed.reset()
        bed.settings.prepare(NatPorts())
        bed.settings.change(refusals_per_second=0, wanted_events=_DENIED, **EVERY_DENIAL)
        self.tier: Tier = self.dice.choice(["tc", "xdp"])
        policy = plan(*random_policy(self.dice))
        # Listeners of admission are sockets of the host, and no tier knows them.
        self.reference = Evaluator(replace(policy, listeners=policy.carried))
        bed.apply(policy)
        self._ear = Ear(bed)

    def run(self) -> None:
        """Ask both and compare."""
        denials: list[tuple[Reason, int]] = []
        for number in range(PACKETS):
            query, asked = random_question(self.dice, number)
            answer = self.reference.evaluate(query)
            outcome = self.bed.send(self.tier, asked)
            assert outcome.reason is answer.reason, f"{query}: {outcome.reason!r}, reference {answer}"
            if outcome.reason is Reason.FORWARDED:
                self._check_flow(asked, answer, outcome)
            elif outcome.reason is not Reason.PASSED_TO_HOST:
                denials.append((outcome.reason, self._number(answer.mapping)))
        events = self._ear.heard()
        self._ear.close()
        assert [(event.reason, event.mapping) for event in events] == denials

    def _check_flow(self, asked: Packet, answer: Answer, outcome: Outcome) -> None:
        flow = self.bed.flow(asked)
        assert flow is not None
        assert answer.pool is not None
        assert flow.mapping == self._number(answer.mapping)
        place = (layouts.read_address(flow.destination), layouts.read_port(flow.destination_port))
        assert place in {(backend.address, backend.port) for backend in answer.pool.backends}

    def _number(self, name: str) -> int:
        return self.bed.mappings[name] if name else 0


def test_kernel_and_reference_agree(bed: Bed) -> None:
    chosen = os.environ.get("MARCHPROXY_SEED")
    start = random.SystemRandom().randrange(2**32)
    for seed in [int(chosen)] if chosen else range(start, start + POLICIES):
        try:
            Comparison(bed, seed).run()
        except AssertionError as error:
            error.add_note(f"seed {seed}: MARCHPROXY_SEED={seed} runs this policy alone")
            raise
