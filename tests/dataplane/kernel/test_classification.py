"""A million random questions about transit: the kernel's classification against the reference's.

The programs' own `transit.h` answers, thousands of questions in one run. A failure prints its seed;
`MARCHPROXY_SEED=1234` asks about that policy alone.
"""

import os
import random
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address
from pathlib import Path

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.banks import Banks
from marchproxy.dataplane.kernel.objects import BpfObject
from marchproxy.dataplane.kernel.settings import Settings
from marchproxy.dataplane.kernel.tables import TableBuilder
from marchproxy.dataplane.kernel.testrun import run
from marchproxy.model.address import IPAddress
from marchproxy.model.entities import Mapping, Service
from marchproxy.model.reason import Reason
from marchproxy.policy.evaluate import Evaluator
from marchproxy.policy.plan import Plan, TransitRule
from tests.dataplane.kernel.support import FRAME, Compile
from tests.policy.build import mapping, plan, service

pytestmark = pytest.mark.requires("root", "bpf", commands=["clang"])

PROGRAM = Path(__file__).parent / "programs" / "classify.bpf.c"
QUESTIONS = 16384
"""In one run, as in the program."""
POLICIES = 64

# A world so small that prefixes, services, ports and priorities overlap.
ADDRESSES = [
    *(
        "10.1.0.2",
        "10.1.0.130",
        "10.1.1.1",
        "10.9.8.7",
        "172.16.0.1",
        "203.0.113.7",
        "203.0.113.200",
        "9.255.255.255",
    ),
    *("fd01::2", "fd01::8000:0", "fd01:1::1", "2001:db8::1", "2001:db8:1::1", "2001:db9::", "1::1"),
]
PREFIXES = [
    *(
        "10.1.0.2",
        "10.1.0.0/25",
        "10.1.0.128/25",
        "10.1.0.0/24",
        "10.0.0.0/8",
        "8.0.0.0/6",
        "0.0.0.0/0",
        "0.0.0.0/1",
    ),
    *(
        "203.0.113.0/24",
        "203.0.113.7",
        "172.16.0.0/12",
        "fd01::2",
        "fd01::/64",
        "fd01::/16",
        "fd01::8000:0/97",
    ),
    *("2001:db8::/32", "2001:db8::/47", "::/0", "2000::/3"),
]
SERVICES = [f"s{number}" for number in range(9)]
ENDS = ["all", "external", "collection:red", "collection:blue", *SERVICES]
PORTS = ["", "", "80", "443", "80,443", "1-1024", "8000-8100", "53,8080-8090", "65535", "1"]
ASKED = [0, 1, 52, 53, 79, 80, 81, 443, 1024, 1025, 7999, 8000, 8085, 8090, 8091, 8100, 8101, 65535]


def random_policy(dice: random.Random) -> Iterator[Service | Mapping]:
    for name in SERVICES:
        prefixes = dice.sample(PREFIXES, dice.randint(1, 4))
        port = dice.choice([None, None, 80, 443])
        yield service(name, *prefixes, port=port, collection=dice.choice(["red", "blue", None]))
    # Above 64 rules of a shape there are several words; the largest take several groups of words.
    for number in range(dice.choice([1, 4, 16, 60, 150, 600])):
        protocols = dice.choice(["tcp", "udp", "tcp,udp", "icmp", "tcp,icmp"])
        yield mapping(
            f"m{number}",
            ",".join(dice.sample(ENDS, dice.randint(1, 2))),
            ",".join(dice.sample(ENDS, dice.randint(1, 2))),
            None,
            protocols,
            ports="" if protocols == "icmp" else dice.choice(PORTS),
            priority=dice.randint(1, 9),
            action=dice.choice(["allow"] * 3 + ["deny"]),
            audit=dice.random() < 0.1,
        )


class Comparison:
    """Policies in both places, one after the other, as a daemon has them."""

    def __init__(self, loaded: BpfObject) -> None:
        self._maps = loaded.maps
        self._program = loaded.programs["classify"]
        self._names: dict[str, int] = {}
        settings = Settings(loaded.maps["settings"])
        self._banks = Banks(loaded.maps, settings)
        self._builder = TableBuilder(self._number, lambda _: None, lambda _: {})

    def ask(self, policy: Plan, dice: random.Random) -> None:
        """Ask both and compare."""
        self._banks.switch(self._builder.build(policy), 1)
        evaluator = Evaluator(policy)
        services = cache(evaluator.sources.services)
        asked = [_question(dice) for _ in range(QUESTIONS)]
        for (source, destination, protocol, port), found in zip(asked, self._answers(asked), strict=True):
            number = 1 if protocol == 58 else protocol
            wanted = evaluator.transit.find(services(source), services(destination), number, port)
            assert found == self._entry(wanted), f"{source} to {destination}, {protocol}/{port}: {wanted}"

    def _answers(
        self, asked: list[tuple[IPAddress, IPAddress, int, int]]
    ) -> Iterator[tuple[int, int, int] | None]:
        packed = [
            layouts.FLOW_KEY.struct.pack(
                layouts.pack_address(source),
                layouts.pack_address(destination),
                bytes(2),
                layouts.pack_port(port),
                number,
            )
            for source, destination, number, port in asked
        ]
        self._maps["questions"].update_run(0, b"".join(packed))
        run(self._program, FRAME)
        rules = dict(self._maps["transit_rules"].items())
        for _, index in self._maps["answers"].items():
            raw = rules.get(index)
            mapping, _, reason, flags = layouts.TRANSIT_RULE.struct.unpack(raw) if raw else (0, 0, 0, 0)
            yield (mapping, reason, flags) if raw else None

    def _entry(self, rule: TransitRule | None) -> tuple[int, int, int] | None:
        if rule is None:
            return None
        number = self._names[rule.mapping] if rule.mapping else 0
        return number, int(rule.reason), layouts.RULE_AUDIT if rule.audit else 0

    def _number(self, name: str) -> int:
        return self._names.setdefault(name, len(self._names) + 1)


def _question(dice: random.Random) -> tuple[IPAddress, IPAddress, int, int]:
    source = ip_address(dice.choice(ADDRESSES))
    destination = ip_address(dice.choice(ADDRESSES))
    while destination.version != source.version:
        destination = ip_address(dice.choice(ADDRESSES))
    protocol = dice.choice([6, 6, 17, 1 if source.version == 4 else 58])
    return source, destination, protocol, dice.choice(ASKED) if protocol in (6, 17) else 0


def test_kernel_and_reference_agree_on_a_million_questions(compile_bpf: Compile) -> None:
    chosen = os.environ.get("MARCHPROXY_SEED")
    start = random.SystemRandom().randrange(2**32)
    met: set[Reason | None] = set()
    with BpfObject.load(compile_bpf(PROGRAM)) as loaded:
        comparison = Comparison(loaded)
        for seed in [int(chosen)] if chosen else range(start, start + POLICIES):
            dice = random.Random(seed)
            policy = plan(*random_policy(dice))
            met.update(rule.reason for rule in policy.transit)
            try:
                comparison.ask(policy, dice)
            except AssertionError as error:
                error.add_note(f"seed {seed}: MARCHPROXY_SEED={seed} asks about this policy alone")
                raise
    assert met >= {Reason.FORWARDED, Reason.DENY_MAPPING}
