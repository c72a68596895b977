"""A connection's life: who can promote it to the flow table proper, and what ends it."""

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.model.reason import Reason
from tests.bpf.bed import Bed, Tier
from tests.bpf.packets import Packet, Tcp, Udp
from tests.bpf.policies import OPEN
from tests.bpf.talk import Talk, check_frame, from_client
from tests.policy.build import plan

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")

SYN4, SYN6 = from_client(Tcp(40000, 80)), from_client(Tcp(40000, 80), "fd01::2", "fd01::1")
EACH = pytest.mark.parametrize("first", [SYN4, SYN6], ids=["v4", "v6"])
PROOF_WINDOW = 1 << 20


@pytest.fixture(autouse=True)
def policy(bed: Bed) -> None:
    bed.apply(plan(*OPEN))


def states(talk: Talk) -> tuple[int, int]:
    """Of both directions."""
    flows = [talk.bed.flow(packet) for packet in (talk.asks, talk.answers)]
    assert flows[0] is not None
    assert flows[1] is not None
    return flows[0].state, flows[1].state


def has_ended(talk: Talk) -> bool:
    """Out of the flow table proper, and kept for stragglers."""
    gone = not talk.bed.is_established(talk.asks) and not talk.bed.is_established(talk.answers)
    return gone and states(talk) == (layouts.STATE_CLOSED, layouts.STATE_CLOSED)


@EACH
def test_handshake_goes_through_its_states(bed: Bed, tier: Tier, first: Packet) -> None:
    talk = Talk.open(bed, tier, first)
    assert states(talk) == (layouts.STATE_OPENING, layouts.STATE_OPENING)
    answer = {
        "transport__flags": "SA",
        "transport__sequence": 5000,
        "transport__options": bytes.fromhex("020405a0"),
    }
    talk.answer(**answer)
    assert states(talk) == (layouts.STATE_ANSWERED, layouts.STATE_ANSWERED)
    check_frame(talk.answer(**answer).frame, talk.answered(**answer))
    assert not bed.is_established(first)
    talk.ask(transport__flags="A", transport__acknowledgement=5001)
    assert states(talk) == (layouts.STATE_ESTABLISHED, layouts.STATE_ESTABLISHED)
    assert (bed.count("flows"), bed.count("opening")) == (2, 0)


@pytest.mark.parametrize(
    ("acknowledged", "proves"),
    [
        (5000, False),
        (5001, True),
        (5001 + PROOF_WINDOW - 1, True),
        (5001 + PROOF_WINDOW, False),
        (0, False),
        (5001 + 2**31, False),
    ],
)
def test_only_an_acknowledgement_of_the_backends_syn_proves_that_the_client_is_there(
    bed: Bed, tier: Tier, acknowledged: int, proves: bool
) -> None:
    talk = Talk.open(bed, tier, SYN4)
    talk.answer(transport__flags="SA", transport__sequence=5000)
    talk.ask(transport__flags="A", transport__acknowledgement=acknowledged)
    assert bed.is_established(SYN4) is proves


def test_proof_is_counted_past_the_end_of_sequence_space(bed: Bed, tier: Tier) -> None:
    talk = Talk.open(bed, tier, SYN4)
    talk.answer(transport__flags="SA", transport__sequence=2**32 - 1)
    talk.ask(transport__flags="A", transport__acknowledgement=2**32 - 1)
    assert not bed.is_established(SYN4)
    talk.ask(transport__flags="PA", transport__acknowledgement=0, transport__payload=b"GET /")
    assert bed.is_established(SYN4)


@pytest.mark.parametrize("flags", ["S", "SA", "RA", "F"])
def test_other_segments_prove_nothing(bed: Bed, tier: Tier, flags: str) -> None:
    talk = Talk.open(bed, tier, SYN4)
    talk.answer(transport__flags="SA", transport__sequence=5000)
    talk.ask(transport__flags=flags, transport__acknowledgement=5001)
    assert not bed.is_established(SYN4)


@pytest.mark.parametrize("flags", ["A", "R", "S", "FA"])
def test_only_syn_and_acknowledgement_are_an_answer(bed: Bed, tier: Tier, flags: str) -> None:
    talk = Talk.open(bed, tier, SYN4)
    talk.answer(transport__flags=flags, transport__sequence=5000)
    assert states(talk) == (layouts.STATE_OPENING, layouts.STATE_OPENING)
    talk.ask(transport__flags="A", transport__acknowledgement=5001)
    assert not bed.is_established(SYN4)


def test_repeated_syn_keeps_its_flow(bed: Bed, tier: Tier) -> None:
    talk = Talk.open(bed, tier, SYN4)
    before = bed.flow(SYN4)
    check_frame(talk.ask().frame, talk.asked())
    after = bed.flow(SYN4)
    assert before is not None
    assert after is not None
    assert before.id == after.id
    assert bed.count("opening") == 2


CLIENT_CLOSES = (("ask", "FA", 2000, 6000), ("answer", "A", 6000, 2001), ("answer", "FA", 6000, 2001))
SERVER_CLOSES = (("answer", "FA", 6000, 2000), ("ask", "A", 2000, 6001), ("ask", "FA", 2000, 6001))
LAST = {"ask": ("answer", "A", 6001, 2001), "answer": ("ask", "A", 2001, 6001)}


def play(talk: Talk, who: str, flags: str, sequence: int, acknowledgement: int) -> None:
    changes = {
        "transport__flags": flags,
        "transport__sequence": sequence,
        "transport__acknowledgement": acknowledgement,
    }
    outcome = getattr(talk, who)(**changes)
    assert outcome.reason is Reason.FORWARDED
    wanted = talk.asked(**changes) if who == "ask" else talk.answered(**changes)
    check_frame(outcome.frame, wanted)


@EACH
@pytest.mark.parametrize("closing", [CLIENT_CLOSES, SERVER_CLOSES], ids=["client", "server"])
def test_close_by_both_sides_ends_the_flow_with_the_last_acknowledgement(
    bed: Bed, tier: Tier, first: Packet, closing: tuple[tuple[str, str, int, int], ...]
) -> None:
    talk = Talk.established(bed, tier, first)
    for step in closing:
        play(talk, *step)
        assert not has_ended(talk)
    play(talk, *LAST[closing[-1][0]])
    assert has_ended(talk)


def test_half_close_keeps_the_flow_for_as_long_as_the_other_side_speaks(bed: Bed, tier: Tier) -> None:
    talk = Talk.established(bed, tier, SYN4)
    play(talk, "ask", "FA", 2000, 6000)
    for sequence in range(6000, 6100, 10):
        play(talk, "answer", "PA", sequence, 2001)
        play(talk, "ask", "A", 2001, sequence + 10)
        assert bed.is_established(SYN4)
    play(talk, "answer", "FA", 6100, 2001)
    assert bed.is_established(SYN4)
    play(talk, "ask", "A", 2001, 6100)
    assert bed.is_established(SYN4), "an acknowledgement of the data is none of the FIN"
    play(talk, "ask", "A", 2001, 6101)
    assert has_ended(talk)


def test_simultaneous_close(bed: Bed, tier: Tier) -> None:
    talk = Talk.established(bed, tier, SYN4)
    play(talk, "ask", "FA", 2000, 6000)
    play(talk, "answer", "FA", 6000, 2000)
    play(talk, "ask", "A", 2001, 6001)
    assert bed.is_established(SYN4)
    play(talk, "answer", "A", 6001, 2001)
    assert has_ended(talk)


def test_close_across_the_end_of_sequence_space(bed: Bed, tier: Tier) -> None:
    talk = Talk.established(bed, tier, SYN4)
    play(talk, "ask", "FA", 2**32 - 1, 2**32 - 1)
    play(talk, "answer", "FA", 2**32 - 1, 0)
    assert bed.is_established(SYN4)
    play(talk, "ask", "A", 0, 2**32 - 1)
    assert bed.is_established(SYN4)
    play(talk, "ask", "A", 0, 0)
    assert has_ended(talk)


def test_fin_with_data_is_acknowledged_behind_the_data(bed: Bed, tier: Tier) -> None:
    talk = Talk.established(bed, tier, SYN4)
    talk.ask(transport__flags="FPA", transport__sequence=2000, transport__payload=bytes(100))
    play(talk, "answer", "FA", 6000, 2100)
    play(talk, "ask", "A", 2101, 6001)
    assert bed.is_established(SYN4)
    play(talk, "answer", "A", 6001, 2101)
    assert has_ended(talk)


@EACH
@pytest.mark.parametrize("who", ["ask", "answer"])
def test_reset_ends_the_flow_at_once(bed: Bed, tier: Tier, first: Packet, who: str) -> None:
    talk = Talk.established(bed, tier, first)
    play(talk, who, "R", 2000, 0)
    assert has_ended(talk)
    # What was still under way gets through.
    play(talk, "ask", "A", 2000, 6000)
    play(talk, "answer", "PA", 6000, 2000)
    assert has_ended(talk)


@EACH
def test_new_connection_may_reuse_the_ports_of_an_ended_one(bed: Bed, tier: Tier, first: Packet) -> None:
    talk = Talk.established(bed, tier, first)
    old = bed.flow(first)
    play(talk, "ask", "R", 2000, 0)
    again = Talk.established(bed, tier, first.but(transport__sequence=1000))
    new = bed.flow(first)
    assert old is not None
    assert new is not None
    assert new.id != old.id
    assert new.packets == 2
    assert states(again) == (layouts.STATE_ESTABLISHED, layouts.STATE_ESTABLISHED)


def test_datagrams_are_established_by_the_second_question(bed: Bed, tier: Tier) -> None:
    question = from_client(Udp(40000, 80, b"?"))
    talk = Talk.open(bed, tier, question)
    talk.ask()
    assert not bed.is_established(question), "without an answer nobody has proved anything"
    talk.answer()
    talk.answer()
    assert not bed.is_established(question)
    talk.ask()
    assert bed.is_established(question)
