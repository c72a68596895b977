"""Mutated packets through both programs, each outcome against what the reference says it must be.

A failure prints its seed and both frames; `MARCHPROXY_SEED=1234` starts from there.
"""

import os
import random
from collections import Counter
from ipaddress import ip_address
from itertools import cycle, islice
from typing import Any

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.model.reason import Reason
from tests.bpf import errors, reference
from tests.bpf.bed import INSIDE, OUTSIDE, SIZES, Action, Bed, Tier
from tests.bpf.mutations import mutate, originals
from tests.bpf.policies import OPEN, OWN
from tests.bpf.reading import describe
from tests.bpf.reference import Piece, Read, Unread
from tests.bpf.refusal import answer_to
from tests.bpf.talk import Talk
from tests.policy.build import plan

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")

FRAMES = 100_000
FRESH_EVERY = 200
"""Frames between two restorations of the flows that mutated packets may end."""
MTU = 1500
_LOCAL = frozenset(map(layouts.pack_address, OWN))
_UNCLEAR = frozenset(
    layouts.pack_address(ip_address(text))
    for text in ("10.1.0.0", "10.1.0.255", "10.2.0.0", "10.2.0.255", "fd01::", "fd02::")
)
"""Neither addresses of this host nor ways through: broadcast and anycast."""
_SYN, _RST, _ACK = 2, 4, 16


class Fuzz:
    """A bed with four established conversations, and its maps as they must remain."""

    def __init__(self, bed: Bed, seed: int) -> None:
        self.bed = bed
        self.dice = random.Random(seed)
        bed.apply(plan(*OPEN))
        bed.settings.prepare(NatPorts())
        bed.settings.change(refusals_per_second=1 << 30)
        firsts, self.corpus = originals()
        talks = [Talk.established(bed, "tc", first) for first in firsts]
        for talk in talks:
            self.corpus += [talk.asks.but(**change).build() for change in _later(talk)]
            self.corpus += [talk.answers.but(**change).build() for change in _later(talk)]
            self.corpus += talk.answers.but(transport__payload=bytes(2000)).fragments(1000)
        self.established = dict(bed.maps["flows"].items())
        self.met: Counter[tuple[Tier, Reason]] = Counter()

    def run(self) -> None:
        """All frames, in rounds that each begin with the flows as established."""
        frames = cycle(self.corpus)
        for _ in range(FRAMES // FRESH_EVERY):
            for original in islice(frames, FRESH_EVERY):
                self._try(mutate(original, self.corpus, self.dice))
            self._restore()

    def _try(self, frame: bytes) -> None:
        packet = reference.read(frame) if _is_for_us(frame) else Unread.HOSTS
        if not isinstance(packet, Unread) and errors.is_error(frame, packet):
            return  # test_fuzz_icmp.py has these
        for tier in ("xdp", "tc"):
            if tier == "tc" and not _is_runnable(frame):
                continue
            expected, outcome = self._expected(packet), None
            try:
                outcome = self._send(tier, frame)
                self._check(tier, frame, packet, expected, outcome)
            except AssertionError as error:
                error.add_note(f"{tier}, expected {expected}, reference {packet}, in:\n{describe(frame)}")
                if outcome:
                    error.add_note(f"{outcome[:2]} out:\n{describe(outcome[2])}\n{frame.hex()}")
                raise

    def _send(self, tier: Tier, frame: bytes) -> tuple[Reason, Action, bytes]:
        ifindex = self.bed.ifindex[OUTSIDE if frame[:6] == OUTSIDE else INSIDE]
        action, out = self.bed.runners[tier].run(frame, ifindex)
        ((reason, _),) = self.bed.counters.difference().items()
        self.met[tier, reason] += 1
        return reason, action, out

    def _expected(self, packet: Read | Unread) -> set[Reason]:
        """By the state that the maps are in before the packet."""
        if isinstance(packet, Unread):
            return {Reason.PASSED_TO_HOST if packet is Unread.HOSTS else Reason.MALFORMED}
        if packet.piece is Piece.LATER:
            remembered = self.bed.maps["fragments"].get(packet.fragment_key)
            if remembered is None:
                return self._without_flow(packet)
            packet.ports = remembered
        flow = self._flow(packet)
        opens = packet.protocol == reference.TCP and packet.flags & (_SYN | _ACK) == _SYN
        if flow is None or (opens and flow.state == layouts.STATE_CLOSED and not flow.flags & 1):
            return self._without_flow(packet)
        return {_fate(packet) or Reason.FORWARDED}

    def _without_flow(self, packet: Read) -> set[Reason]:
        if packet.destination in _UNCLEAR:
            return set(Reason)
        local = packet.destination in _LOCAL
        if packet.piece is Piece.LATER:
            return {Reason.PASSED_TO_HOST if local else Reason.FRAGMENT}
        port = int.from_bytes(packet.ports[2:])
        if not local:
            opens = packet.protocol != reference.TCP or packet.flags & (_SYN | _RST | _ACK) == _SYN
            return {Reason.NO_MAPPING if opens else Reason.NO_FLOW}
        if port != 80 or packet.protocol not in (reference.TCP, reference.UDP):
            return {Reason.PASSED_TO_HOST}
        if packet.protocol == reference.TCP and packet.flags & (_SYN | _RST | _ACK) != _SYN:
            return {Reason.NO_FLOW}
        return {_fate(packet) or Reason.FORWARDED}

    def _check(
        self,
        tier: Tier,
        frame: bytes,
        packet: Read | Unread,
        expected: set[Reason],
        outcome: tuple[Reason, Action, bytes],
    ) -> None:
        reason, action, out = outcome
        if reason is Reason.HANDED_UP:
            assert tier == "xdp"
            # The way out has to be looked up, which is TC's; or it is the host's, which TC will say.
            assert expected & {Reason.FORWARDED, Reason.PASSED_TO_HOST, Reason.TOO_BIG}
            assert (action, out) == (Action.PASS, frame)
            return
        assert reason in expected
        if reason is Reason.PASSED_TO_HOST:
            assert (action, out) == (Action.PASS, frame)
            return
        if isinstance(packet, Unread):
            assert action is Action.DROP
        elif reason is Reason.FORWARDED:
            assert action is Action.REDIRECT
            self._check_rewritten(tier, frame, packet, out)
        elif (answer := answer_to(frame, packet, reason, MTU)) is None:
            assert action is Action.DROP
        else:
            assert (action, out) == (Action.REDIRECT, answer)

    def _check_rewritten(self, tier: Tier, frame: bytes, packet: Read, out: bytes) -> None:
        flow = self._flow(packet)
        assert flow is not None
        link = flow.next_hop + flow.own_mac
        assert out[:12] in ([link] if tier == "xdp" else [link, frame[:12]])
        assert out[12:] == reference.rewritten(frame, packet, flow, out)[12:]
        assert reference.is_as_right(frame, out, packet)

    def _flow(self, packet: Read) -> layouts.FlowEntry | None:
        raw = self.bed.maps["flows"].get(packet.key) or self.bed.maps["opening"].get(packet.key)
        return layouts.read_flow(raw) if raw else None

    def _restore(self) -> None:
        maps = self.bed.maps
        assert len(dict(maps["flows"].items())) <= len(self.established) + 2 * FRESH_EVERY
        for name, limit in (("opening", SIZES["opening"]), ("fragments", maps["fragments"].max_entries)):
            keys = list(maps[name].keys())
            assert len(keys) <= limit
            maps[name].delete_many(keys)
        maps["flows"].delete_many(list(maps["flows"].keys()))
        maps["flows"].update_many(list(self.established.items()))


def _later(talk: Talk) -> list[dict[str, Any]]:
    """Packets of an established conversation."""
    if talk.asks.protocol == reference.UDP:
        return [{"transport__payload": bytes(size)} for size in (0, 5, 1400, 1480)]
    flags = ("A", "PA", "A", "FA", "S", "R")
    small = [{"transport__flags": flag, "transport__payload": bytes(range(40))} for flag in flags]
    return [*small, {"transport__flags": "A", "transport__payload": bytes(1500)}]


def _fate(packet: Read) -> Reason | None:
    """What keeps a packet from being carried although its flow would be."""
    if packet.ttl <= 1:
        return Reason.TTL_EXPIRED
    if packet.options:
        return Reason.UNSUPPORTED
    return Reason.TOO_BIG if packet.end - 14 > MTU else None


def _is_for_us(frame: bytes) -> bool:
    return frame[:6] in (INSIDE, OUTSIDE)


def _is_runnable(frame: bytes) -> bool:
    """The kernel runs no TC program on a buffer that ends before the IP header does."""
    return len(frame) >= 14 + {b"\x08\x00": 20, b"\x86\xdd": 40}.get(frame[12:14], 1)


def test_every_outcome_is_the_reference_s(bed: Bed) -> None:
    seed = int(os.environ.get("MARCHPROXY_SEED", random.SystemRandom().randrange(2**32)))
    fuzz = Fuzz(bed, seed)
    try:
        fuzz.run()
    except AssertionError as error:
        error.add_note(f"MARCHPROXY_SEED={seed}")
        raise
    assert sum(fuzz.met[key] for key in fuzz.met if key[0] == "xdp") >= 0.99 * FRAMES
    for reason in (Reason.FORWARDED, Reason.MALFORMED, Reason.NO_MAPPING, Reason.NO_FLOW, Reason.UNSUPPORTED):
        for tier in ("tc", "xdp"):
            assert fuzz.met[tier, reason] > 500, f"mutations too weak: {fuzz.met}"
