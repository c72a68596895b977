"""Certificates and keys as objects."""

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from marchproxy.dataplane.credentials.contexts import Contexts
from marchproxy.dataplane.credentials.keypairs import KeyPairs
from marchproxy.store.certificates import Identity
from tests.certificates import identity

ONE, TWO = identity("one", "one.example", "*.wild.example"), identity("two", "two.example")


def pairs(*identities: Identity) -> tuple[KeyPairs, Contexts]:
    contexts = Contexts()
    contexts.learn(identities)
    return KeyPairs(contexts), contexts


def test_a_name_chooses_and_the_first_is_for_all_others() -> None:
    made, _ = pairs(ONE, TWO)
    choose = made.chooser(["one", "two", "none"])
    assert choose is not None
    first, second = choose("one.example"), choose("two.example")
    assert first is not second
    assert choose("X.wild.example.") is first
    assert choose("TWO.example") is second
    assert choose("") is choose("other.example") is first
    assert len(first.chain) >= 1


def test_what_is_not_there_or_not_right_is_left_out() -> None:
    made, _ = pairs(ONE, Identity("broken", "no certificate", b"no key"))
    assert made.chooser(["none"]) is None
    assert made.chooser(["broken"]) is None
    assert made.chooser(["broken", "one"]) is not None


def test_a_key_that_cannot_sign_here_is_left_out() -> None:
    key = ec.generate_private_key(ec.SECP521R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    made, _ = pairs(Identity("wide", ONE.chain, pem))
    assert made.chooser(["wide"]) is None


def test_a_renewed_certificate_takes_the_place_of_the_one_before() -> None:
    made, contexts = pairs(ONE)
    before = made.chooser(["one"])
    contexts.learn([identity("one", "one.example")])
    after = made.chooser(["one"])
    assert before is not None
    assert after is not None
    assert before("one.example") is not after("one.example")
    same = made.chooser(["one"])
    assert same is not None
    assert same("one.example") is after("one.example")
