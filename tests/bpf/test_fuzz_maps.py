"""Mutated packets over maps of random contents: whatever is in them, each packet has one counted end.

Nothing of this can come from a sound daemon. A damaged pin or an older version's entry may be as bad, and
then no packet may be lost without a reason, and none leave with a header that is not whole.
"""

import os
import random
from itertools import cycle, islice

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.model.reason import Reason
from tests.bpf.bed import INSIDE, OUTSIDE, Action, Bed, Tier
from tests.bpf.mutations import mutate, originals
from tests.bpf.packets import Tcp
from tests.bpf.policies import OPEN
from tests.bpf.reading import describe
from tests.bpf.talk import Talk, from_client
from tests.examples import MORE
from tests.policy.build import plan

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")

FRAMES = 4_000 * MORE
SPOILT_EVERY = 200
"""Frames between two changes of the maps."""
ARRAYS = (
    "rules",
    "pools",
    "backends",
    "transit_rules",
    "transit_digests",
    "splices",
    "class_lines",
    "limits",
)
HASHES = ("flows", "opening", "listeners", "source_bits", "class_pages", "fragments", "active")
FIRST = 8
"""Entries of arrays that small policies use."""


def spoil(bed: Bed, dice: random.Random) -> None:
    """Some bytes of some entries become others."""
    for name in ARRAYS:
        target = bed.maps[name]
        for bank in (0, 1):
            number = bank * (target.max_entries // 2) + dice.randrange(FIRST)
            key = layouts.U32.pack(number)
            target.set(key, _damaged(target.get(key) or bytes(target.value_size), dice))
    for name in HASHES:
        target = bed.maps[name]
        for key, value in islice(target.items(), 16):
            if dice.random() < 0.5:
                target.set(key, _damaged(value, dice))


def _damaged(value: bytes, dice: random.Random) -> bytes:
    changed = bytearray(value)
    for _ in range(dice.randint(1, 4)):
        changed[dice.randrange(len(changed))] = dice.choice(
            (0, 1, 2, 4, 64, 127, 128, 255, dice.randrange(256))
        )
    return bytes(changed)


def test_every_packet_has_one_counted_end(bed: Bed, tier: Tier) -> None:
    seed = int(os.environ.get("MARCHPROXY_SEED", random.SystemRandom().randrange(2**32)))
    dice = random.Random(seed)
    bed.apply(plan(*OPEN))
    bed.settings.prepare(NatPorts())
    bed.settings.change(refusals_per_second=1 << 30)
    firsts, corpus = originals()
    talks = [Talk.established(bed, "tc", first) for first in firsts]
    corpus += [each.build() for talk in talks for each in (talk.asks, talk.answers)]
    met: set[Reason] = set()
    for number, original in enumerate(islice(cycle(corpus), FRAMES)):
        if number % SPOILT_EVERY == 0:
            spoil(bed, dice)
        frame = mutate(original, corpus, dice) if number % 3 else original
        if tier == "tc" and len(frame) < 14 + {b"\x08\x00": 20, b"\x86\xdd": 40}.get(frame[12:14], 1):
            continue
        ifindex = bed.ifindex[OUTSIDE if frame[:6] == OUTSIDE else INSIDE]
        action, out = bed.runners[tier].run(frame, ifindex)
        counted = bed.counters.difference()
        context = f"MARCHPROXY_SEED={seed}, frame {number}: {action.name}, {counted}\n{describe(frame)}"
        assert [packets for packets, _ in counted.values()] == [1], context
        met |= counted.keys()
        if action is Action.PASS and Reason.PASSED_TO_HOST in counted:
            assert out == frame, context
        if action is Action.REDIRECT:
            assert len(out) >= 14 + 20, context
    assert len(met) > 5, f"nothing much happened: {met}"


def test_reason_that_nobody_knows_is_counted_as_another(bed: Bed, tier: Tier) -> None:
    """A refusal by a damaged rule."""
    bed.apply(plan(*OPEN))
    rules, layout = bed.maps["rules"], layouts.RULE
    for bank in (0, 1):
        for number in range(FIRST):
            key = layouts.U32.pack(bank * (rules.max_entries // 2) + number)
            damaged = bytearray(rules.get(key) or bytes(layout.size))
            damaged[layout.offset("reason") : layout.offset("reason") + 2] = b"\xff\xff"
            rules.set(key, bytes(damaged))
    assert bed.send(tier, from_client(Tcp(40000, 80))).reason is Reason.NO_MAPPING
