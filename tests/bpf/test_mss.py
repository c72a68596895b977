"""What the two ends of a connection announce as their segment size, lowered to what fits both ways."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.model.reason import Reason
from tests.bpf.bed import Bed, Tier
from tests.bpf.packets import Packet, Tcp
from tests.bpf.policies import OPEN
from tests.bpf.reading import read
from tests.bpf.talk import Talk, check_frame, from_client
from tests.policy.build import plan

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")

FAMILIES = pytest.mark.parametrize(
    "ends", [("10.1.0.2", "10.1.0.1"), ("fd01::2", "fd01::1")], ids=["v4", "v6"]
)
NOP, SACK, TIMES = b"\1", b"\4\2", b"\x08\x0a" + bytes(8)


@pytest.fixture(autouse=True)
def policy(bed: Bed) -> None:
    bed.apply(plan(*OPEN))
    bed.settings.prepare(NatPorts())


def mss(size: int) -> bytes:
    return b"\2\4" + size.to_bytes(2)


def syn(ends: tuple[str, str], options: bytes) -> Packet:
    return from_client(Tcp(40000, 80, options=options.ljust((len(options) + 3) & ~3, b"\0")), *ends)


def fits(ends: tuple[str, str], mtu: int) -> int:
    return mtu - (60 if ":" in ends[0] else 40)


@contextmanager
def mtus(bed: Bed, inside: int, outside: int) -> Iterator[None]:
    """Of the appliance's own ends of its two links."""
    bed.host.ip(f"link set inside0 mtu {inside}", f"link set outside0 mtu {outside}")
    try:
        yield
    finally:
        bed.host.ip("link set inside0 mtu 1500", "link set outside0 mtu 1500")


def options_after(bed: Bed, tier: Tier, packet: Packet) -> bytes:
    """The TCP options that it goes on with; everything else is as it must be."""
    outcome = bed.send(tier, packet)
    assert outcome.reason is Reason.FORWARDED
    sent = read(outcome.frame)
    assert sent.problems == []
    assert sent.packet is not None
    assert isinstance(sent.packet.transport, Tcp)
    return sent.packet.transport.options


@FAMILIES
@pytest.mark.parametrize(("inside", "outside"), [(9000, 1400), (1400, 9000), (1500, 1400), (1400, 1500)])
def test_both_ends_are_told_the_smaller_mtu(
    bed: Bed, tier: Tier, ends: tuple[str, str], inside: int, outside: int
) -> None:
    with mtus(bed, inside, outside):
        talk = Talk.open(bed, tier, syn(ends, mss(8960)))
        again = options_after(bed, tier, talk.asks)
        answer = talk.answers.but(transport__flags="SA", transport__options=mss(8960))
        back = options_after(bed, tier, answer)
        # Seen again, with the way out known: by XDP too.
        assert options_after(bed, tier, answer) == back
    assert (again, back) == (mss(fits(ends, 1400)), mss(fits(ends, 1400)))


@FAMILIES
def test_it_is_never_raised_and_nothing_else_changes(bed: Bed, tier: Tier, ends: tuple[str, str]) -> None:
    with mtus(bed, 9000, 1400):
        for size in (0, 1, 536, fits(ends, 1400) - 1, fits(ends, 1400)):
            options = mss(size) + SACK + TIMES
            assert options_after(bed, tier, syn(ends, options))[: len(options)] == options


@FAMILIES
def test_equal_mtus_change_nothing(bed: Bed, tier: Tier, ends: tuple[str, str]) -> None:
    options = mss(fits(ends, 1500)) + NOP + b"\3\3\7" + SACK + TIMES
    talk = Talk.open(bed, tier, syn(ends, options))
    check_frame(talk.ask().frame, talk.asked())


@FAMILIES
@pytest.mark.parametrize(
    "before",
    [
        b"",
        NOP,
        NOP * 2,
        NOP * 3,
        SACK,
        SACK + NOP,
        TIMES,
        TIMES * 3,
        NOP * 36,
        b"\xfe\x06abcd",
        b"\xfd\x24" + bytes(34),
    ],
    ids=lambda before: before.hex(),
)
def test_option_may_stand_anywhere(bed: Bed, tier: Tier, ends: tuple[str, str], before: bytes) -> None:
    """At an odd offset its bytes belong to two words of the checksum."""
    with mtus(bed, 9000, 1400):
        found = options_after(bed, tier, syn(ends, before + mss(0xBEEF)))
    assert found[: len(before) + 4] == before + mss(fits(ends, 1400))


@FAMILIES
@pytest.mark.parametrize(
    "options",
    [
        b"",
        SACK + TIMES,
        b"\0" + mss(9000),
        b"\2\3\xff\xff" + mss(9000)[:0],
        b"\5\0" + mss(9000),
        b"\5\1" + mss(9000),
        b"\5\x28" + mss(9000),
        b"\5\xff" + mss(9000),
        NOP * 39 + b"\2",
        NOP * 37 + b"\2\4\xff",
    ],
    ids=lambda options: options.hex(),
)
def test_broken_or_missing_options_stay_as_they_are(
    bed: Bed, tier: Tier, ends: tuple[str, str], options: bytes
) -> None:
    with mtus(bed, 9000, 1400):
        assert options_after(bed, tier, syn(ends, options))[: len(options)] == options


@FAMILIES
def test_only_what_opens_a_connection_announces(bed: Bed, tier: Tier, ends: tuple[str, str]) -> None:
    talk = Talk.established(bed, tier, syn(ends, mss(1000)))
    with mtus(bed, 9000, 1400):
        bed.settings.routes_changed()
        later = talk.asks.but(transport__flags="A", transport__options=mss(9000))
        assert options_after(bed, tier, later) == mss(9000)


@FAMILIES
def test_route_s_mtu_counts_as_much_as_a_link_s(bed: Bed, tier: Tier, ends: tuple[str, str]) -> None:
    """Locked, as the kernel wants it for what it forwards."""
    client = ends[0]
    gateway = "10.1.0.3" if ":" not in client else "fd01::3"
    bed.host.ip(f"route add {client} via {gateway} mtu lock 1300")
    try:
        assert options_after(bed, tier, syn(ends, mss(1460)))[:4] == mss(fits(ends, 1300))
    finally:
        bed.host.ip(f"route delete {client} via {gateway}")
