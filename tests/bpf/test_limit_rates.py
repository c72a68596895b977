"""Rate limits to the packet: against a reference that knows when each arrived, and from two CPUs at once."""

import random
import threading
import time
from dataclasses import dataclass, field

import pytest

from marchproxy.dataplane.kernel import testrun
from marchproxy.dataplane.kernel.limits import pace
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.dataplane.records import LimitState
from marchproxy.model.appliance import Limit
from marchproxy.model.reason import Reason
from marchproxy.policy.limits import allowances
from marchproxy.policy.plan import RateLimit
from tests.bpf.bed import INSIDE, Bed, Tier
from tests.bpf.packets import Udp
from tests.bpf.talk import from_client
from tests.limits import limited, packets, rate

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")

STRAY = from_client(Udp(40000, 81), destination="10.2.0.2")
"""No mapping allows it. Refused without an answer it comes out as it went in, and can be run once more."""
ALLOWED = 0.05
"""By which a rate may differ."""


@dataclass
class Reference:
    """GCRA by whole numbers. A packet's time is known to lie between two; where both verdicts are possible,
    the kernel's is taken."""

    limit: Limit
    earliest: int = 0
    latest: int = 0
    decided: int = 0

    def check(self, before: int, after: int, size: int, passed: bool) -> None:
        """A packet of `size` IP bytes that arrived between two instants, in ns."""
        costs, lateness = [], []
        for allowed, units in zip(allowances(self.limit), (1, size, 0), strict=True):
            step, tolerance = pace(allowed) if allowed else (0, 0)
            costs.append(units * step >> 14)
            lateness.append(tolerance)
        (cost,), (tolerance,) = ([each for each in some if each] for some in (costs, lateness))
        if self.latest <= before + tolerance:
            assert passed
            self.decided += 1
        if self.earliest > after + tolerance:
            assert not passed
            self.decided += 1
        if passed:
            self.earliest = max(self.earliest, before) + cost
            self.latest = max(self.latest, after) + cost


@pytest.mark.parametrize(
    "limit",
    [
        packets("source", 300, 10),
        packets("total", 500, 50),
        rate("octets", "source", bytes_per_second=300_000, burst=20_000),
        rate("octets", "service", {"client": "10.1.0.2"}, bytes_per_second=200_000, burst=3_000),
    ],
    ids=lambda limit: f"{limit.limit.per}-{limit.limit.name}",
)
def test_every_verdict_is_the_reference_s(bed: Bed, tier: Tier, limit: RateLimit) -> None:
    bed.apply(limited(limit))
    bed.settings.prepare(NatPorts())
    bed.settings.change(refusals_per_second=0)
    reference, chance = Reference(limit.limit), random.Random(7)
    verdicts = set()
    sent = 0
    # On a machine that does other things, more of them fall between two readings of the clock.
    while sent < 1500 or (reference.decided <= 1000 and sent < 15_000):
        sent += 1
        frame = STRAY.but(transport__payload=bytes(chance.randrange(1400))).build()
        until = time.monotonic_ns() + (chance.randrange(4_000_000) if chance.random() < 0.1 else 0)
        while time.monotonic_ns() < until:
            pass
        before = time.monotonic_ns()
        outcome = bed.send(tier, frame)
        reference.check(before, time.monotonic_ns(), len(frame) - 14, outcome.reason is Reason.NO_MAPPING)
        verdicts.add(outcome.reason)
    assert verdicts == {Reason.NO_MAPPING, Reason.RATE_LIMITED}
    assert reference.decided > 1000, "most verdicts are beyond doubt"


@dataclass
class Flood:
    """Packets from as many threads at once as there are frames, for a while."""

    bed: Bed
    tier: Tier
    frames: tuple[bytes, ...]
    repeat: int = 5000
    _ended: list[float] = field(default_factory=list)

    def run(self, seconds: float) -> tuple[float, float, dict[str, LimitState]]:
        """Seconds in which the limit surely was asked, seconds at most, and what each limit made of it.

        They differ by what the threads took to start and to end, where a busy machine may let none of them
        run: nobody took what accrued meanwhile. The burst is spent before: as long as it is not, what
        accrues in a pause is lost.
        """
        start = time.monotonic()
        for frame in self.frames:
            self._spend(frame)
        asked = time.monotonic()
        threads = [
            threading.Thread(target=self._send, args=(frame, asked + seconds)) for frame in self.frames
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        most = time.monotonic() - start
        return max(self._ended) - asked, most, {state.name: state for state in self.bed.limits.states()}

    def _spend(self, frame: bytes) -> None:
        def dropped() -> int:
            return sum(state.dropped.packets for state in self.bed.limits.states())

        before, repeat = dropped(), self.repeat
        while dropped() == before:
            self._run(frame, repeat)
            # To ask takes time, in which a bucket fills.
            repeat *= 2

    def _send(self, frame: bytes, until: float) -> None:
        while time.monotonic() < until:
            self._run(frame, self.repeat)
        self._ended.append(time.monotonic())
        # Takes what accrued while this thread did not run just before.
        self._run(frame, 10 * self.repeat)

    def _run(self, frame: bytes, repeat: int) -> None:
        testrun.run(self.bed.programs[self.tier], frame, ifindex=self.bed.ifindex[INSIDE], repeat=repeat)


def expect_rate(state: LimitState, per_second: int, least: float, most: float, burst: int) -> None:
    """Within 5 % behind the burst. On a machine that cannot send so many, at least not more.

    A burst that is spent makes up for as long in which neither thread ran.
    """
    offered = state.passed.packets + state.dropped.packets
    assert state.passed.packets < per_second * most * (1 + ALLOWED) + burst + 1
    if offered > 1.3 * per_second * most + burst:
        assert state.passed.packets > per_second * least * (1 - ALLOWED) + burst


@pytest.mark.parametrize("per_second", [100, 300_000])
@pytest.mark.parametrize("per", ["source", "total"])
def test_two_cpus_at_once_get_the_rate_together(bed: Bed, tier: Tier, per: str, per_second: int) -> None:
    bed.apply(limited(packets(per, per_second, per_second)))
    bed.settings.change(refusals_per_second=0)
    frame = STRAY.build()
    least, most, states = Flood(bed, tier, (frame, frame)).run(1.0)
    expect_rate(states[f"{per}-packets"], per_second, least, most, per_second)


def test_two_sources_get_a_rate_each_and_one_total(bed: Bed, tier: Tier) -> None:
    bed.apply(limited(packets("source", 40_000, 20_000), packets("total", 60_000, 30_000)))
    bed.settings.change(refusals_per_second=0)
    other = from_client(Udp(40000, 81), "10.1.0.3", "10.2.0.2")
    least, most, states = Flood(bed, tier, (STRAY.build(), other.build())).run(1.0)
    expect_rate(states["total-packets"], 60_000, least, most, 30_000)
    assert states["source-packets"].passed == states["total-packets"].passed
