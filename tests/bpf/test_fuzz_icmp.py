"""Random and mutated ICMP errors: every outcome is predicted, nothing touched out of bounds."""

import os
import random
from collections import Counter
from ipaddress import ip_address
from itertools import cycle, islice

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.model.reason import Reason
from tests.bpf import errors, reference
from tests.bpf.bed import CLIENT, INSIDE, OUTSIDE, SERVER, Action, Bed, Tier
from tests.bpf.mutations import mutate
from tests.bpf.packets import Icmp, Link, Packet, Tcp, Udp, packet
from tests.bpf.policies import OFFICE, OPEN, OWN
from tests.bpf.reading import describe
from tests.bpf.reference import Read, Unread
from tests.bpf.talk import Talk, from_client
from tests.bpf.test_edges import ASKS, answer_to, masquerade, opened
from tests.policy.build import mapping, plan

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")

FRAMES = 60_000
OUT = mapping("out", "office", "all", protocols="tcp,udp,icmp")
MTU = 1500
ROUTERS = {4: "192.0.2.77", 6: "2001:db8:77::1"}
_LOCAL = frozenset(map(layouts.pack_address, OWN))
_UNCLEAR = frozenset(
    layouts.pack_address(ip_address(text))
    for text in ("10.1.0.0", "10.1.0.255", "10.2.0.0", "10.2.0.255", "fd01::", "fd02::")
)
"""Neither addresses of this host nor ways through: broadcast and anycast."""


class Fuzz:
    """A bed with conversations at listeners and in transit, and errors about what was sent in them."""

    def __init__(self, bed: Bed, seed: int) -> None:
        self.bed = bed
        self.dice = random.Random(seed)
        bed.apply(plan(*OPEN, OFFICE, OUT))
        masquerade(bed, OUTSIDE)
        bed.settings.prepare(NatPorts())
        bed.settings.change(refusals_per_second=1 << 30)
        v6 = ("fd01::2", "fd01::1")
        firsts = [from_client(each, *ends) for each in (Tcp(40000, 80), Udp(40000, 80)) for ends in ((), v6)]
        self.corpus: list[bytes] = []
        for talk in [Talk.established(bed, "tc", first) for first in firsts]:
            self.corpus += self._errors_about(talk.asked(**_large(talk)), Link(OUTSIDE, SERVER))
            self.corpus += self._errors_about(talk.answered(**_large(talk)), Link(INSIDE, CLIENT))
        for asks in ASKS.values():
            sent = opened(bed, "tc", asks)
            self.corpus += self._errors_about(sent, Link(OUTSIDE, SERVER))
            self.corpus += self._errors_about(answer_to(sent), Link(INSIDE, CLIENT))
        self.flows = dict(bed.maps["flows"].items())
        self.met: Counter[tuple[Tier, Reason]] = Counter()

    def run(self) -> None:
        for original in islice(cycle(self.corpus), FRAMES):
            frame = self._mutate_quoted(original) if self.dice.random() < 0.5 else original
            frame = mutate(frame, self.corpus, self.dice) if self.dice.random() < 0.7 else frame
            parsed = reference.read(frame)
            if frame[:6] not in (INSIDE, OUTSIDE) or not isinstance(parsed, Read):
                continue
            if errors.is_error(frame, parsed) and parsed.destination not in _UNCLEAR:
                self._try(frame, parsed)
        kept = dict(self.bed.maps["flows"].items())
        assert {key: _lasting(value) for key, value in kept.items()} == {
            key: _lasting(value) for key, value in self.flows.items()
        }

    def _errors_about(self, sent: Packet, link: Link) -> list[bytes]:
        frames, raw = [], sent.build()[14:]
        for sender in (ROUTERS[sent.version], str(sent.destination)):
            for number in (3, 11, 12, 5) if sent.version == 4 else (1, 2, 3, 4, 127):
                for octets in (28, 48, 52, 68, 576, 1200):
                    message = Icmp(number, 4, 1280, raw[:octets])
                    frames.append(packet(sender, str(sent.source), message, link=link).build())
        return frames

    def _mutate_quoted(self, frame: bytes) -> bytes:
        """Where it hurts: the quoted headers, and where the quotation ends."""
        raw, start = bytearray(frame), 42 if frame[12:14] == b"\x08\x00" else 62
        for _ in range(self.dice.choice((1, 1, 2))):
            at = start + self.dice.randrange(64)
            if at < len(raw):
                raw[at] = self.dice.choice((self.dice.randrange(256), 0, 1, 6, 17, 44, 58, 0x45, 0x60))
        if self.dice.random() < 0.3:
            cut = self.dice.randrange(start - 8, len(raw) + 1)
            size = cut - 14 if start == 42 else cut - 54
            raw[16 if start == 42 else 18 : 18 if start == 42 else 20] = max(size, 0).to_bytes(2)
            if self.dice.random() < 0.5:
                del raw[cut:]
        return bytes(raw)

    def _try(self, frame: bytes, parsed: Read) -> None:
        for tier in ("xdp", "tc"):
            try:
                self._check(tier, frame, parsed)
            except AssertionError as error:
                error.add_note(f"{tier}:\n{describe(frame)}\n{parsed}\n{frame.hex()}")
                raise

    def _check(self, tier: Tier, frame: bytes, parsed: Read) -> None:
        what = errors.quoted(frame, parsed)
        flow = self._flow(what.key) if isinstance(what, errors.Quoted) else None
        if parsed.end - parsed.transport < 8:
            what = Reason.MALFORMED
        expected = self._expected(parsed, what, flow)
        ifindex = self.bed.ifindex[OUTSIDE if frame[:6] == OUTSIDE else INSIDE]
        action, out = self.bed.runners[tier].run(frame, ifindex)
        ((reason, _),) = self.bed.counters.difference().items()
        self.met[tier, reason] += 1
        if reason is Reason.HANDED_UP:
            assert tier == "xdp"
            assert expected in (Reason.FORWARDED, Reason.PASSED_TO_HOST, Reason.TOO_BIG)
            assert (action, out) == (Action.PASS, frame)
            return
        assert reason is expected
        if reason is Reason.FORWARDED:
            assert action is Action.REDIRECT
            assert isinstance(what, errors.Quoted)
            assert flow is not None
            assert out[12:] == errors.translated(frame, parsed, what, flow, out)[12:]
            assert errors.is_as_right(frame, out, parsed, what)
        elif reason is Reason.PASSED_TO_HOST:
            assert (action, out) == (Action.PASS, frame)
        else:
            assert action is Action.DROP, "an error is never answered"

    def _expected(
        self, parsed: Read, what: errors.Quoted | Reason | None, flow: layouts.FlowEntry | None
    ) -> Reason:
        if isinstance(what, Reason):
            return what
        if flow is None:
            return Reason.PASSED_TO_HOST if parsed.destination in _LOCAL else Reason.NO_FLOW
        if parsed.ttl <= 1:
            return Reason.TTL_EXPIRED
        if parsed.options:
            return Reason.UNSUPPORTED
        return Reason.TOO_BIG if parsed.end - 14 > MTU else Reason.FORWARDED

    def _flow(self, key: bytes) -> layouts.FlowEntry | None:
        raw = self.bed.maps["flows"].get(key) or self.bed.maps["opening"].get(key)
        return layouts.read_flow(raw) if raw else None


def _large(talk: Talk) -> dict[str, object]:
    flags = {"transport__flags": "PA"} if isinstance(talk.asks.transport, Tcp) else {}
    return {"transport__payload": bytes(range(250)) * 5, **flags}


def _lasting(raw: bytes) -> tuple[object, ...]:
    flow = layouts.read_flow(raw)
    return (flow.id, flow.packets, flow.octets, flow.last_seen, flow.state, flow.flags & ~16)


def test_every_outcome_is_predicted(bed: Bed) -> None:
    seed = int(os.environ.get("MARCHPROXY_SEED", random.SystemRandom().randrange(2**32)))
    fuzz = Fuzz(bed, seed)
    try:
        fuzz.run()
    except AssertionError as error:
        error.add_note(f"MARCHPROXY_SEED={seed}")
        raise
    finally:
        bed.maps["nat_pools"].delete_many(list(bed.maps["nat_pools"].keys()))
    for reason in (Reason.FORWARDED, Reason.MALFORMED, Reason.UNSUPPORTED, Reason.NO_FLOW):
        for tier in ("tc", "xdp"):
            assert fuzz.met[tier, reason] > 100, f"mutations too weak: {fuzz.met}"


def test_what_is_no_error_is_none() -> None:
    """The reference itself: an echo quotes nothing."""
    echo = reference.read(from_client(Icmp(8, payload=bytes(56))).build())
    assert not isinstance(echo, Unread)
    assert not errors.is_error(from_client(Icmp(8, payload=bytes(56))).build(), echo)
