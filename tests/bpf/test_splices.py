"""Two joined connections: each packet comes out as the other connection would have sent it, to the byte."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from struct import pack
from typing import Any

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.splices import Side, Splice
from marchproxy.model.reason import Reason
from tests.bpf.bed import FROM_CLIENT, FROM_SERVER, TO_CLIENT, TO_SERVER, Action, Bed, Outcome, Tier, flow_key
from tests.bpf.packets import Icmp, Packet, Tcp, packet
from tests.bpf.talk import check_frame, joined_entry
from tests.limits import limited, packets

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")

WORD = 1 << 32
PLACE, ID = 5, 77
CLIENT = Side(
    sequence=0x9000_0000, timestamp=123_456, announced=7, expected=9, least=3_000_000, most=3_100_000
)
BACKEND = Side(sequence=0x1234, timestamp=WORD - 99, announced=9, expected=7, least=4_000_000, most=4_100_000)
ADDRESSES = {
    4: ("10.1.0.2", "10.1.0.1", "10.2.0.1", "10.2.0.2"),
    6: ("fd01::2", "fd01::1", "fd02::1", "fd02::2"),
}
VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["v4", "v6"])
WAYS = pytest.mark.parametrize("way", ["up", "down"])


@dataclass(frozen=True, slots=True)
class Joined:
    """A handed-off tunnel: packets of the client go up, those of the backend down."""

    bed: Bed
    tier: Tier
    up: Packet
    down: Packet
    splice: Splice

    def send(self, way: str, **changes: Any) -> Outcome:
        """A packet as it arrives."""
        return self.bed.send(self.tier, self.arriving(way).but(**changes))

    def arriving(self, way: str) -> Packet:
        return self.up if way == "up" else self.down

    def sides(self, way: str) -> tuple[Side, Side]:
        """Who sends, and who hears it."""
        client, backend = self.splice.client, self.splice.backend
        return (client, backend) if way == "up" else (backend, client)

    def leaving(self, way: str, **changes: Any) -> Packet:
        """The same packet but for what a splice does to its TCP header."""
        came = self.arriving(way).but(**changes)
        other = self.down if way == "up" else self.up
        assert isinstance(other.transport, Tcp)
        assert isinstance(came.transport, Tcp)
        sender, hearer = self.sides(way)
        return came.but(
            link=TO_SERVER if way == "up" else TO_CLIENT,
            source=other.destination,
            destination=other.source,
            ttl=came.ttl - 1,
            transport__source=other.transport.destination,
            transport__destination=other.transport.source,
            transport__sequence=(came.transport.sequence + sender.sequence) % WORD,
            transport__acknowledgement=(came.transport.acknowledgement - hearer.sequence) % WORD,
            transport__window=_window(came.transport.window, sender),
        )

    def check(self, way: str, outcome: Outcome, wanted: Packet) -> None:
        assert (outcome.reason, outcome.action) == (Reason.HANDED_OFF, Action.REDIRECT)
        check_frame(outcome.frame, wanted)


type Join = Callable[..., Joined]


@pytest.fixture
def join(bed: Bed, tier: Tier) -> Join:
    """Enters a tunnel whose ways out are known, so that XDP may finish its packets."""

    def make(
        version: int = 4, *, client: Side = CLIENT, backend: Side = BACKEND, draining: bool = False
    ) -> Joined:
        asker, listener, own, server = ADDRESSES[version]
        ack: dict[str, Any] = {"flags": "A", "sequence": 1_000_000, "acknowledgement": 2_000_000}
        up = packet(asker, listener, Tcp(40000, 443, **ack, window=500), link=FROM_CLIENT)
        down = packet(server, own, Tcp(8443, 5000, **ack, window=500), link=FROM_SERVER)
        splice = Splice(ID, client, backend, draining)
        bed.maps["splices"].set(layouts.U32.pack(PLACE), splice.pack())
        for mine, other, flags in ((up, down, 0), (down, up, layouts.FLAG_REPLY)):
            bed.maps["flows"].set(
                flow_key(mine), joined_entry(other, flags | layouts.FLAG_SPLICED, ID, PLACE)
            )
        joined = Joined(bed, tier, up, down, splice)
        for way in ("up", "down"):
            # The first packet goes by the neighbour table.
            bed.send("tc", joined.arriving(way))
        bed.maps["splices"].set(layouts.U32.pack(PLACE), splice.pack())
        return joined

    return make


def _window(field: int, sender: Side, more: int = 0, promised: int = 0) -> int:
    octets = max(0, promised, (field << sender.announced) + more)
    return min(65535, octets >> sender.expected or min(octets, 1))


@VERSIONS
@WAYS
@pytest.mark.parametrize(
    "changes",
    [
        {"transport__payload": b"", "transport__sequence": 5},
        {"transport__payload": b"odd"},
        {"transport__payload": bytes(range(256)) * 5, "transport__flags": "PA"},
        {"transport__sequence": WORD - 1, "transport__acknowledgement": 3},
        {"transport__sequence": 0, "transport__acknowledgement": 0},
        {"transport__flags": "FA", "transport__payload": b"last"},
    ],
    ids=["empty", "odd", "large", "wraps", "zero", "fin"],
)
def test_numbers_are_those_of_the_other_connection(
    join: Join, version: int, way: str, changes: dict[str, Any]
) -> None:
    joined = join(version)
    outcome = joined.send(way, **changes)
    joined.check(way, outcome, joined.leaving(way, **changes))
    assert outcome.handed_up is False


@WAYS
@pytest.mark.parametrize("field", [0, 1, 3, 4, 255, 16384, 65535])
@pytest.mark.parametrize("shifts", [(0, 0), (7, 9), (9, 7), (14, 0), (0, 14), (14, 14)])
def test_windows_keep_their_bytes_and_never_close_by_rounding(
    join: Join, way: str, field: int, shifts: tuple[int, int]
) -> None:
    announced, expected = shifts
    changed = {"announced": announced, "expected": expected}
    joined = join(client=replace(CLIENT, **changed), backend=replace(BACKEND, **changed))
    outcome = joined.send(way, transport__window=field)
    joined.check(way, outcome, joined.leaving(way, transport__window=field))


def _timestamps(value: int, echo: int) -> bytes:
    return pack("!BBII", 8, 10, value % WORD, echo % WORD)


def _sack(*edges: int) -> bytes:
    return bytes((5, 2 + 4 * len(edges))) + b"".join(pack("!I", edge % WORD) for edge in edges)


NOP, MSS = b"\1", bytes.fromhex("020405b4")
EDGES = (2_000_100, 2_001_548, 2_010_000, 2_020_000, WORD - 5, 10, 0, 1)


@dataclass(frozen=True)
class Options:
    """TCP options around timestamps and SACK blocks; lengths that are no multiple of four are filled up."""

    sentence: str
    before: bytes = b""
    timestamps: tuple[int, int] | None = None
    between: bytes = b""
    edges: tuple[int, ...] = ()
    after: bytes = b""

    def build(self, value: int = 0, echo: int = 0, distance: int = 0) -> bytes:
        """With these distances added."""
        made = self.before
        if self.timestamps:
            made += _timestamps(self.timestamps[0] + value, self.timestamps[1] + echo)
        made += self.between
        if self.edges:
            made += _sack(*(edge + distance for edge in self.edges))
        made += self.after
        return made + bytes(-len(made) % 4)


OPTIONS = (
    Options("timestamps as everybody has them", NOP * 2, (7_000_000, 8_000_000)),
    Options("timestamps and then something", NOP * 2, (7_000_000, 8_000_000), after=NOP * 4),
    Options("timestamps at an odd offset", NOP, (7_000_000, 8_000_000)),
    Options("timestamps first of all", b"", (7_000_000, 8_000_000)),
    Options("timestamps behind three fillers", NOP * 3, (WORD - 1, 0)),
    Options("timestamps behind another option", MSS, (1, WORD - 1)),
    Options("one block", NOP * 2, edges=EDGES[:2]),
    Options("four blocks", NOP * 2, edges=EDGES),
    Options("four blocks at an odd offset", NOP, edges=EDGES),
    Options("three blocks beside timestamps", NOP * 2, (5, 6), NOP * 2, EDGES[2:8]),
    Options("both at odd offsets", NOP, (5, 6), b"", EDGES[:4]),
    Options("a block of what was acknowledged already", NOP * 2, edges=(100, 200, *EDGES[:2])),
    Options("unknown options around", bytes.fromhex("fd04abcd"), (5, 6), bytes.fromhex("fd03ff"), EDGES[:2]),
    Options("nothing behind the end", NOP * 2, after=b"\0" + _timestamps(1, 2)),
    Options("an option that ends behind the header", NOP * 2, after=bytes.fromhex("0522000000010000")),
    Options("an option without length", after=bytes.fromhex("08000000")),
    Options("timestamps of another length", after=bytes.fromhex("0806000000010000")),
)


@VERSIONS
@WAYS
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: options.sentence.replace(" ", "-"))
def test_options_are_translated_wherever_they_stand(
    join: Join, version: int, way: str, options: Options
) -> None:
    joined = join(version)
    sender, hearer = joined.sides(way)
    came: dict[str, Any] = {"transport__options": options.build(), "transport__payload": b"data"}
    left = options.build(sender.timestamp, -hearer.timestamp, -hearer.sequence)
    if options.sentence.startswith("an option that ends behind"):
        # Two edges are within the header, and are translated.
        left = bytes.fromhex("01010522") + pack("!II", *((edge - hearer.sequence) % WORD for edge in (1, 0)))
    outcome = joined.send(way, **came)
    joined.check(way, outcome, joined.leaving(way, **came).but(transport__options=left))


@WAYS
def test_a_buffer_of_many_segments_is_translated_once(bed: Bed, join: Join, tier: Tier, way: str) -> None:
    if tier == "xdp":
        return
    joined = join()
    changes = {"transport__payload": bytes(3000), "transport__options": NOP * 2 + _timestamps(1, 2)}
    sender, hearer = joined.sides(way)
    outcome = bed.send("tc", joined.arriving(way).but(**changes), segments=(3, 1000))
    options = NOP * 2 + _timestamps(1 + sender.timestamp, 2 - hearer.timestamp)
    check_frame(outcome.frame, joined.leaving(way, **changes).but(transport__options=options).build())


@WAYS
@pytest.mark.parametrize(
    ("acknowledgement", "told"),
    [
        (-500_000, 0),
        (-1, 0),
        (0, 0),
        (50_000, 50_000),
        (100_000, 100_000),
        (100_001, 100_000),
        (300_000, 100_000),
    ],
)
def test_while_draining_acknowledgements_stay_within_bounds_and_no_window_is_taken_back(
    join: Join, way: str, acknowledgement: int, told: int
) -> None:
    joined = join(draining=True)
    sender, hearer = joined.sides(way)
    heard = hearer.least + acknowledgement
    came = {"transport__acknowledgement": (heard + hearer.sequence) % WORD, "transport__window": 3000}
    outcome = joined.send(way, **came)
    wanted = joined.leaving(way, **came).but(
        transport__acknowledgement=hearer.least + told,
        transport__window=_window(3000, sender, acknowledgement - told, 200_000 - told),
    )
    joined.check(way, outcome, wanted)
    assert outcome.handed_up is (joined.tier == "xdp")
    raw = joined.bed.maps["splices"].get(layouts.U32.pack(PLACE)) or b""
    (flags,) = layouts.SPLICE.pick("flags").unpack(raw)
    assert bool(flags & layouts.SPLICE_HELD) is (acknowledgement > 100_000)


def test_the_end_is_when_both_fins_are_acknowledged_each_in_its_own_numbers(join: Join, bed: Bed) -> None:
    joined = join()
    joined.send("up", transport__flags="FA", transport__sequence=1000, transport__payload=b"bye")
    fin_of_client = (1004 + CLIENT.sequence) % WORD
    joined.send("down", transport__acknowledgement=(fin_of_client - 1) % WORD)
    joined.send(
        "down", transport__flags="FA", transport__sequence=9000, transport__acknowledgement=fin_of_client
    )
    assert bed.is_established(joined.up)
    joined.send("up", transport__acknowledgement=(9000 + BACKEND.sequence) % WORD)
    assert bed.is_established(joined.up)
    joined.send("up", transport__acknowledgement=(9001 + BACKEND.sequence) % WORD)
    assert not bed.is_established(joined.up)
    assert not bed.is_established(joined.down)


@WAYS
def test_stragglers_of_an_ended_tunnel_are_translated(join: Join, bed: Bed, way: str) -> None:
    joined = join()
    joined.send("down", transport__flags="RA")
    assert not bed.is_established(joined.up)
    joined.check(way, joined.send(way), joined.leaving(way))


@WAYS
def test_a_place_that_another_flow_has_taken_carries_nothing(join: Join, bed: Bed, way: str) -> None:
    joined = join()
    bed.maps["splices"].set(layouts.U32.pack(PLACE), replace(joined.splice, id=ID + 1).pack())
    outcome = joined.send(way)
    assert outcome.reason is Reason.NO_FLOW
    assert outcome.action is not Action.PASS


@VERSIONS
def test_an_icmp_error_quotes_the_sequence_number_that_its_receiver_sent(join: Join, version: int) -> None:
    joined = join(version)
    sent = joined.arriving("up").but(transport__payload=b"too large")
    quoted = joined.leaving("up", transport__payload=b"too large").build()[14:]
    kind, code, _ = (3, 4, 0) if version == 4 else (2, 0, 0)
    server = ADDRESSES[version][3]
    error = packet(server, ADDRESSES[version][2], Icmp(kind, code, 1400, quoted), link=FROM_SERVER)
    outcome = joined.bed.send(joined.tier, error)
    assert outcome.reason is Reason.HANDED_OFF
    restored = outcome.frame[14 + (20 if version == 4 else 40) + 8 :]
    header = 20 if version == 4 else 40
    before = sent.build()[14:]
    assert restored[header : header + 8] == before[header : header + 8]


@WAYS
def test_the_limits_of_its_client_hold_for_both_directions(join: Join, bed: Bed, way: str) -> None:
    joined = join()
    bed.apply(limited(packets("source", 1, 5)))
    outcomes = [joined.send(each) for each in ("up", "down", "up", "down", "up", way)]
    assert [outcome.reason for outcome in outcomes] == [Reason.HANDED_OFF] * 5 + [Reason.RATE_LIMITED]
    assert outcomes[-1].action is Action.DROP
    bed.apply(limited())
    assert joined.send(way).reason is Reason.HANDED_OFF


def test_it_counts_packets_in_both_directions(join: Join, bed: Bed) -> None:
    joined = join()
    for _ in range(3):
        joined.send("up", transport__payload=b"12345")
    joined.send("down")
    up, down = bed.flow(joined.up), bed.flow(joined.down)
    assert up is not None
    assert down is not None
    # One each made the way out known.
    assert (up.packets, up.octets) == (4, 3 * 45 + 40)
    assert (down.packets, down.octets) == (2, 80)


@WAYS
@pytest.mark.parametrize(
    ("start", "carried", "action"),
    [
        (-1000, {"transport__payload": bytes(1000)}, Action.DROP),
        (-1, {"transport__flags": "FA"}, Action.DROP),
        (-1000, {"transport__payload": bytes(1001)}, Action.REDIRECT),
        (0, {"transport__payload": b"new"}, Action.REDIRECT),
        (-1000, {}, Action.REDIRECT),
    ],
    ids=["old", "old fin", "half of it new", "new", "nothing"],
)
def test_while_draining_what_the_local_socket_has_already_does_not_go_on(
    join: Join, way: str, start: int, carried: dict[str, Any], action: Action
) -> None:
    for draining in (False, True):
        joined = join(draining=draining)
        sender, _ = joined.sides(way)
        outcome = joined.send(way, transport__sequence=sender.least + start, **carried)
        assert outcome.reason is Reason.HANDED_OFF
        assert outcome.action is (action if draining else Action.REDIRECT)


@WAYS
def test_while_draining_a_reset_about_no_connection_of_ours_ends_nothing(
    join: Join, way: str, bed: Bed
) -> None:
    """Nobody here has a socket; what a peer of one says is in tests/dataplane/kernel/test_handoff.py."""
    joined = join(draining=True)
    outcome = joined.send(way, transport__flags="R")
    assert (outcome.reason, outcome.action) == (Reason.HANDED_OFF, Action.DROP)
    assert bed.is_established(joined.arriving(way))
    joined = join()
    assert joined.send(way, transport__flags="R").action is Action.REDIRECT
    assert not bed.is_established(joined.arriving(way))


@WAYS
def test_while_draining_blocks_begin_behind_what_the_local_socket_has(join: Join, way: str) -> None:
    joined = join(draining=True)
    sender, hearer = joined.sides(way)
    edges = (hearer.least - 500, hearer.least + 3000, hearer.least + 4000, hearer.least + 5000)
    came: dict[str, Any] = {
        "transport__options": NOP * 2 + _sack(*(edge + hearer.sequence for edge in edges)),
        "transport__acknowledgement": (hearer.least + hearer.sequence) % WORD,
    }
    left = NOP * 2 + _sack(hearer.least + 1, *edges[1:])
    window = _window(500, sender, 0, 200_000)
    wanted = joined.leaving(way, **came).but(transport__options=left, transport__window=window)
    joined.check(way, joined.send(way, **came), wanted)
