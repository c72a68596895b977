"""QUIC that passes through unread, in the programs: who comes from another address stays with its backend."""

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.dataplane.kernel.quichomes import QuicHomes
from marchproxy.model.address import IPAddress
from marchproxy.model.entities import Balance
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import Plan
from tests.bpf.bed import FROM_CLIENT, FROM_SERVER, INSIDE, OUTSIDE, Bed, Tier
from tests.bpf.packets import Packet, Udp
from tests.bpf.talk import Talk, from_client
from tests.policy.build import mapping, plan, service
from tests.quicheads import long_header, short_header

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")

MADE_UP, CLIENT_ID = b"made-up!", b"client"
VIPS = {4: "10.1.0.1", 6: "fd01::1"}
CLIENTS = {4: "10.1.0.%x", 6: "fd01::%x"}


@pytest.fixture(autouse=True)
def ports(bed: Bed) -> None:
    bed.settings.prepare(NatPorts(20000, 20000))


def served(*lasts: int, protocol: str = "quic", balance: Balance = Balance.ROUND_ROBIN) -> Plan:
    """Servers that clients get in turns."""
    servers = [service(f"s{last}", f"10.2.0.{last}", f"fd02::{last}") for last in lasts]
    names = ",".join(each.name for each in servers)
    return plan(*servers, mapping("web", "all", names, "*:443", protocols=protocol, balance=balance))


def datagram(data: bytes, *, port: int = 5000, client: int = 2, version: int = 4) -> Packet:
    return from_client(Udp(port, 443, data), CLIENTS[version] % client, VIPS[version])


def backend(bed: Bed, tier: Tier, packet: Packet) -> IPAddress:
    """Where a packet of a new tuple goes."""
    assert bed.send(tier, packet).reason is Reason.FORWARDED
    flow = bed.flow(packet)
    assert flow is not None
    return layouts.read_address(flow.destination)


def connect(
    bed: Bed, tier: Tier, chosen: bytes, *, port: int = 5000, version: int = 4, goes_on: bool = True
) -> IPAddress:
    """Begin a connection whose server chooses that ID, which its client names if it goes on. Returns the
    server.
    """
    hello = datagram(long_header(MADE_UP, CLIENT_ID), port=port, version=version)
    talk = Talk.open(bed, tier, hello)
    assert talk.answer(transport__payload=long_header(CLIENT_ID, chosen)).reason is Reason.FORWARDED
    if goes_on:
        more = datagram(long_header(chosen, CLIENT_ID), port=port, version=version)
        assert bed.send(tier, more).reason is Reason.FORWARDED
    return talk.answers.source


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("chosen", [b"8 bytes!", b"four", b"twenty bytes of an ID"[:20]], ids=len)
def test_a_client_that_comes_from_elsewhere_keeps_its_backend(
    bed: Bed, tier: Tier, chosen: bytes, version: int
) -> None:
    bed.apply(served(2, 3, 4))
    at = connect(bed, tier, chosen, version=version)
    for number in range(1, 5):
        packet = datagram(short_header(chosen), port=6000 + number, client=2 + number, version=version)
        assert backend(bed, tier, packet) == at
    # Before its handshake is over it still has long headers.
    late = datagram(long_header(chosen, CLIENT_ID), port=7000, version=version)
    assert backend(bed, tier, late) == at
    # Whom nobody knows the strategy chooses for.
    strangers = {
        backend(bed, tier, datagram(short_header(b"stranger"), port=8000 + number, version=version))
        for number in range(3)
    }
    assert len(strangers) == 3


def test_connections_do_not_take_each_other_s_ids(bed: Bed, tier: Tier) -> None:
    bed.apply(served(2, 3))
    one, two = connect(bed, tier, b"first ID"), connect(bed, tier, b"other ID", port=5001)
    assert one != two
    for number, (chosen, at) in enumerate([(b"first ID", one), (b"other ID", two)] * 3):
        assert backend(bed, tier, datagram(short_header(chosen), port=6000 + number)) == at


def test_only_backends_of_mappings_that_say_quic_are_heard(bed: Bed, tier: Tier) -> None:
    bed.apply(served(2, 3, protocol="udp"))
    connect(bed, tier, b"8 bytes!")
    assert known(bed) == (0, 0)
    bed.apply(served(2, 3))
    # What a client calls itself says nothing about backends.
    bed.send(tier, datagram(long_header(MADE_UP, b"mine own"), port=5005))
    assert known(bed) == (0, 0)


def known(bed: Bed) -> tuple[int, int]:
    """How many IDs clients have named, and how many not yet."""
    return bed.count("quic_homes"), bed.count("quic_offers")


def test_an_id_is_an_offer_until_a_client_names_it(bed: Bed, tier: Tier) -> None:
    bed.apply(served(2, 3, 4))
    connect(bed, tier, b"8 bytes!", goes_on=False)
    assert known(bed) == (0, 1)
    # What a client that heard nothing says again is for an ID that it made up itself.
    assert bed.send(tier, datagram(long_header(MADE_UP, CLIENT_ID))).reason is Reason.FORWARDED
    assert bed.send(tier, datagram(short_header(b"8 bytes!"))).reason is Reason.FORWARDED
    assert known(bed) == (0, 1)
    assert bed.send(tier, datagram(long_header(b"8 bytes!", CLIENT_ID))).reason is Reason.FORWARDED
    assert known(bed) == (1, 0)


def test_first_packets_of_others_push_no_id_out_that_a_client_has_named(bed: Bed, tier: Tier) -> None:
    bed.apply(served(2, 3, 4))
    at = connect(bed, tier, b"8 bytes!")
    value = bed.maps["quic_homes"].get(next(iter(bed.maps["quic_homes"].keys())))
    assert value is not None
    most = bed.maps["quic_offers"].max_entries
    keys = (layouts.QUIC_KEY.struct.pack(1, 8, number.to_bytes(8)) for number in range(2 * most))
    bed.maps["quic_offers"].update_many([(key, value) for key in keys])
    connect(bed, tier, b"spoofed!", port=5001, goes_on=False)
    assert known(bed)[0] == 1
    for number in range(4):
        assert backend(bed, tier, datagram(short_header(b"8 bytes!"), port=6000 + number)) == at


def test_who_comes_from_elsewhere_before_it_has_gone_on_names_its_id_there(bed: Bed, tier: Tier) -> None:
    bed.apply(served(2, 3, 4))
    at = connect(bed, tier, b"8 bytes!", goes_on=False)
    for number in range(4):
        assert backend(bed, tier, datagram(long_header(b"8 bytes!", CLIENT_ID), port=6000 + number)) == at
    assert known(bed) == (1, 0)
    # A backend that says the same again is asked as before.
    connect(bed, tier, b"8 bytes!", port=5002, goes_on=False)
    assert known(bed) == (1, 1)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\xc0\x00\x00\x00\x01",
        short_header(b"8 bytes!"),
        long_header(CLIENT_ID, b"8 bytes!", version=0),
        long_header(CLIENT_ID, b""),
        long_header(CLIENT_ID, b"abc"),
        long_header(CLIENT_ID * 4, b"8 bytes!"),
        long_header(CLIENT_ID, b"8 bytes!")[:15],
        b"\xc0\x00\x00\x00\x01\xff",
    ],
    ids=["empty", "cut", "short", "versions", "no-id", "tiny", "long-id", "cut-id", "lies"],
)
def test_what_is_no_head_with_an_id_teaches_nothing_and_passes(bed: Bed, tier: Tier, said: bytes) -> None:
    bed.apply(served(2, 3))
    talk = Talk.open(bed, tier, datagram(long_header(MADE_UP, CLIENT_ID)))
    assert talk.answer(transport__payload=said).reason is Reason.FORWARDED
    assert known(bed) == (0, 0)
    assert bed.send(tier, datagram(said, port=5001)).reason is Reason.FORWARDED


def test_who_only_says_to_be_the_backend_teaches_nothing(bed: Bed, tier: Tier) -> None:
    bed.know_interface(INSIDE, native=True, role=layouts.ROLE_INSIDE)
    bed.know_interface(OUTSIDE, native=True, role=layouts.ROLE_OUTSIDE)
    bed.apply(served(2, 3))
    talk = Talk.open(bed, tier, datagram(long_header(MADE_UP, CLIENT_ID)))
    for link, learnt in ((FROM_CLIENT, 0), (FROM_SERVER, 1)):
        talk.answer(link=link, transport__payload=long_header(CLIENT_ID, b"8 bytes!"))
        assert known(bed) == (0, learnt)


def test_what_policy_no_longer_has_is_forgotten(bed: Bed, tier: Tier) -> None:
    homes = QuicHomes(bed.maps, bed._number_of, lambda _: None)
    both = served(2, 3)
    bed.apply(both)
    homes.follow(both)
    gone, stays = connect(bed, tier, b"first ID"), connect(bed, tier, b"other ID", port=5001)
    homes.follow(served(2, 3, 4))
    assert bed.count("quic_homes") == 2
    fewer = served(int(str(stays).rpartition(".")[2]), 4)
    bed.apply(fewer)
    homes.follow(fewer)
    assert bed.count("quic_homes") == 1
    assert backend(bed, tier, datagram(short_header(b"other ID"), port=6000)) == stays
    for number in range(4):
        assert backend(bed, tier, datagram(short_header(b"first ID"), port=6001 + number)) != gone
    homes.follow(Plan())
    assert bed.count("quic_homes") == 0
    # Whatever an earlier daemon has left is looked through by the next.
    bed.apply(both)
    connect(bed, tier, b"third ID", port=5002)
    QuicHomes(bed.maps, bed._number_of, lambda _: None).follow(Plan())
    assert bed.count("quic_homes") == 0
