"""quichomes: backends by the connection IDs that they have chosen, as in tests/bpf/test_quic.py."""

import pytest

from marchproxy.dataplane.proxy.quichomes import QuicHomes, is_long
from tests.dataplane.plans import backend
from tests.quicheads import long_header, short_header

ONE, TWO = backend(443, "10.2.0.2"), backend(443, "10.2.0.3")
CLIENT_ID = b"client"


def learnt(homes: QuicHomes, chosen: bytes, home: object = ONE, mapping: str = "m") -> QuicHomes:
    homes.learn(mapping, home, memoryview(long_header(CLIENT_ID, chosen)))  # type: ignore[arg-type]
    return homes


@pytest.mark.parametrize("chosen", [b"four", b"seven b", b"8 bytes!", b"twenty bytes of an ID"[:20]], ids=len)
def test_an_id_leads_to_who_has_chosen_it(chosen: bytes) -> None:
    homes = learnt(QuicHomes(), chosen)
    for data in (short_header(chosen), long_header(chosen, CLIENT_ID)):
        assert homes.find("m", memoryview(data)) is ONE
        assert homes.find("other", memoryview(data)) is None
    assert homes.find("m", memoryview(short_header(b"stranger"))) is None
    assert learnt(homes, chosen, TWO).find("m", memoryview(short_header(chosen))) is TWO
    assert len(homes) == 1


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
        long_header(CLIENT_ID, b"8 bytes!")[:12],
        b"\xc0\x00\x00\x00\x01\xff",
    ],
)
def test_what_is_no_head_with_an_id_teaches_nothing(said: bytes) -> None:
    homes = QuicHomes()
    homes.learn("m", ONE, memoryview(said))
    assert len(homes) == 0
    assert learnt(homes, b"8 bytes!").find("m", memoryview(said[:7])) is None


def test_what_nobody_asked_for_longest_is_forgotten_first() -> None:
    homes = QuicHomes(most=2)
    for chosen in (b"first ID", b"other ID"):
        learnt(homes, chosen)
    assert homes.find("m", memoryview(short_header(b"first ID"))) is ONE
    assert homes.find("m", memoryview(short_header(b"other ID"))) is ONE
    assert homes.find("m", memoryview(short_header(b"first ID"))) is ONE
    learnt(homes, b"third ID")
    assert homes.find("m", memoryview(short_header(b"third ID"))) is ONE
    assert len(homes) == 2
    assert homes.find("m", memoryview(short_header(b"other ID"))) is None
    assert homes.find("m", memoryview(short_header(b"first ID"))) is ONE


def test_a_flood_of_answers_to_nobody_forgets_no_id_that_a_client_has_named() -> None:
    homes = QuicHomes(most=2)
    learnt(homes, b"first ID")
    assert homes.find("m", memoryview(long_header(b"first ID", CLIENT_ID))) is ONE
    for number in range(10):
        learnt(homes, b"spoof %2d" % number, TWO)
    assert homes.find("m", memoryview(short_header(b"first ID"))) is ONE
    assert homes.find("m", memoryview(short_header(b"spoof  0"))) is None
    assert homes.find("m", memoryview(short_header(b"spoof  9"))) is TWO
    assert len(homes) == 3


def test_a_long_header_is_told_by_its_first_byte() -> None:
    assert is_long(memoryview(long_header(CLIENT_ID, b"8 bytes!")))
    assert not is_long(memoryview(short_header(b"8 bytes!")))
    assert not is_long(memoryview(b""))
