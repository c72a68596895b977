"""joining: which connections can be one, and by which numbers."""

from dataclasses import replace
from typing import Any

import pytest

from marchproxy.dataplane.kernel import joining, layouts
from marchproxy.dataplane.kernel.joining import HandoffRefusal
from marchproxy.dataplane.kernel.tcpsocket import Blocker, Option, TcpSocket, TcpState

WORD = 1 << 32
BOTH = Option.TIMESTAMPS | Option.SACK
CLIENT = TcpSocket(
    state=TcpState.ESTABLISHED,
    written=1000,
    acknowledged=1000,
    received=5000,
    read=5000,
    window=65535,
    own_window=60000,
    segment=1460,
    advertised=1460,
    peer_timestamp=70_000,
    clock=800_000,
    quiet=0,
    round_trip=0,
    options=BOTH,
    own_shift=7,
    peer_shift=8,
    ifindex=2,
    blockers=Blocker(0),
    segments_in=10,
    bytes_in=4000,
)
UPSTREAM = replace(
    CLIENT,
    written=90_000,
    acknowledged=90_000,
    received=30_000,
    read=30_000,
    peer_timestamp=10,
    clock=500_000,
    own_shift=9,
    peer_shift=10,
    ifindex=3,
)
CLOSED_BY_CLIENT: dict[str, Any] = {"state": TcpState.CLOSE_WAIT, "received": 5001, "read": 5001}
"""Its FIN is read."""


def refusal(client: dict[str, Any], upstream: dict[str, Any] | None = None) -> HandoffRefusal | None:
    """With these facts changed, where interfaces 2 and 3 are attached."""
    changed = replace(CLIENT, **client), replace(UPSTREAM, **(upstream or {}))
    attached = {2, 3}
    there = joining.refusal(changed[0], changed[1], attached.__contains__)
    swapped = joining.refusal(changed[1], changed[0], attached.__contains__)
    assert there is swapped, "neither side is special"
    return there


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        ({}, None),
        ({"state": 7}, HandoffRefusal.CLOSED),
        ({"state": TcpState.LAST_ACK}, HandoffRefusal.CLOSED),
        (CLOSED_BY_CLIENT, None),
        ({"ifindex": 0}, HandoffRefusal.NOT_ATTACHED),
        ({"ifindex": 1}, HandoffRefusal.NOT_ATTACHED),
        ({"options": Option.SACK}, HandoffRefusal.TIMESTAMPS),
        ({"options": Option.TIMESTAMPS}, HandoffRefusal.SACK),
        ({"options": BOTH | Option.ECN}, HandoffRefusal.ECN),
        ({"options": BOTH | Option.USEC_TIMESTAMPS}, None),
        ({"segment": 1360}, HandoffRefusal.SEGMENT_SIZE),
        ({"blockers": Blocker.URGENT}, HandoffRefusal.URGENT),
        ({"blockers": Blocker.SIGNED}, HandoffRefusal.SIGNED),
        ({"blockers": Blocker.LAYERED}, HandoffRefusal.LAYERED),
        ({"blockers": Blocker.REORDERED}, HandoffRefusal.REORDERED),
        ({"blockers": Blocker.REORDERED | Blocker.URGENT}, HandoffRefusal.URGENT),
        ({"received": 5000 + 65535}, None),
        ({"received": 5000 + 65536}, HandoffRefusal.BACKLOG),
        ({"written": 1000 + 65536}, HandoffRefusal.BACKLOG),
        ({"window": 0}, None),
        ({"window": 0, "written": 1001}, HandoffRefusal.BACKLOG),
    ],
)
def test_refusals(client: dict[str, Any], reason: HandoffRefusal | None) -> None:
    assert refusal(client) is reason


def test_options_that_both_lack_are_no_difference() -> None:
    assert refusal({"options": Option(0)}, {"options": Option(0)}) is None


def test_a_side_on_a_narrow_link_sends_no_more_than_it_takes() -> None:
    """The upstream socket announced the client's size to its peer, and so all fit."""
    assert refusal({"segment": 1360}, {"advertised": 1360}) is None


def test_what_passes_is_worth_another_try() -> None:
    assert {reason for reason in HandoffRefusal if reason.passes} == {
        HandoffRefusal.REORDERED,
        HandoffRefusal.BACKLOG,
        HandoffRefusal.TABLE_FULL,
        HandoffRefusal.UNNUMBERED,
    }


def test_sequence_numbers_go_on_behind_what_user_space_wrote() -> None:
    splice = joining.splice(7, CLIENT, UPSTREAM)
    assert (splice.id, splice.draining) == (7, True)
    assert splice.client.sequence == 90_000 - 5000
    assert splice.backend.sequence == (1000 - 30_000) % WORD


def test_bytes_in_the_queues_have_their_place_already() -> None:
    busy = replace(CLIENT, received=7000), replace(UPSTREAM, acknowledged=80_000)
    assert joining.splice(7, *busy).client.sequence == 90_000 - 5000


@pytest.mark.parametrize(
    ("client", "upstream"),
    [
        # Not read: the byte before it is still there.
        ({"state": TcpState.CLOSE_WAIT, "received": 5002, "read": 5000}, {}),
        # Read with the last byte, not passed on.
        (CLOSED_BY_CLIENT, {}),
        (CLOSED_BY_CLIENT, {"state": TcpState.FIN_WAIT1, "written": 90_001}),
        (CLOSED_BY_CLIENT, {"state": TcpState.FIN_WAIT2, "written": 90_001, "acknowledged": 90_001}),
    ],
)
def test_a_fin_takes_the_same_place_on_both_sides(client: dict[str, Any], upstream: dict[str, Any]) -> None:
    changed = replace(CLIENT, **client), replace(UPSTREAM, **upstream)
    assert joining.splice(7, *changed).client.sequence == 90_000 - 5000


def test_windows_and_their_shifts_are_those_of_each_side() -> None:
    splice = joining.splice(7, CLIENT, UPSTREAM)
    assert (splice.client.announced, splice.client.expected) == (8, 9)
    assert (splice.backend.announced, splice.backend.expected) == (10, 7)


def test_acknowledgements_are_bound_by_what_the_socket_has_and_half_its_window() -> None:
    splice = joining.splice(7, replace(CLIENT, received=5100), UPSTREAM)
    assert (splice.client.least, splice.client.most) == (5100, 35_100)


class TestTimestamps:
    """A peer's clock is moved to where ours towards the other side is, and a margin ahead."""

    def test_the_newest_one_of_the_peer_becomes_ours_of_now(self) -> None:
        splice = joining.splice(7, CLIENT, UPSTREAM)
        assert (splice.client.timestamp + CLIENT.peer_timestamp) % WORD == 500_000 + joining.MARGIN
        assert (splice.backend.timestamp + UPSTREAM.peer_timestamp) % WORD == 800_000 + joining.MARGIN

    def test_a_longer_way_may_vary_more(self) -> None:
        far = replace(CLIENT, round_trip=50_000)
        moved = joining.splice(7, far, UPSTREAM).client.timestamp + far.peer_timestamp
        assert moved == 500_000 + joining.MARGIN + 100

    @pytest.mark.parametrize(("quiet", "margin"), [(30, 70), (100, 0), (3_600_000, 0)])
    def test_what_its_clock_has_gained_since_counts(self, quiet: int, margin: int) -> None:
        silent = replace(CLIENT, quiet=quiet)
        assert joining.splice(7, silent, UPSTREAM).client.timestamp == 500_000 + margin - 70_000

    def test_a_clock_of_microseconds_has_a_margin_in_them(self) -> None:
        fine = replace(UPSTREAM, options=BOTH | Option.USEC_TIMESTAMPS)
        assert joining.splice(7, CLIENT, fine).client.timestamp == 500_000 + 100_000 - 70_000

    def test_without_them_there_is_nothing_to_move(self) -> None:
        bare = replace(CLIENT, options=Option.SACK), replace(UPSTREAM, options=Option.SACK)
        splice = joining.splice(7, *bare)
        assert (splice.client.timestamp, splice.backend.timestamp) == (0, 0)


def test_flags_of_open_connections() -> None:
    assert joining.flags(CLIENT, UPSTREAM) == (layouts.FLAG_SPLICED, 0)


def test_flags_of_a_client_that_has_closed() -> None:
    client = replace(CLIENT, **CLOSED_BY_CLIENT)
    waiting = replace(UPSTREAM, state=TcpState.FIN_WAIT1, written=90_001)
    heard = replace(waiting, state=TcpState.FIN_WAIT2, acknowledged=90_001)
    spliced = layouts.FLAG_SPLICED
    assert joining.flags(client, UPSTREAM) == (spliced, 0), "user space has not passed it on"
    assert joining.flags(client, waiting) == (spliced | layouts.FLAG_FIN, 0)
    assert joining.flags(waiting, client) == (spliced | layouts.FLAG_PEER_FIN, 90_001)
    acknowledged = layouts.FLAG_PEER_FIN | layouts.FLAG_FIN_ACKED
    assert joining.flags(heard, client) == (spliced | acknowledged, 90_001)
