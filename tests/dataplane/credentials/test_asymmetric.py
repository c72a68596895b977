"""asymmetric: signatures by public keys, and a library that is loaded for them alone."""

import subprocess
import sys
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from marchproxy.dataplane.credentials.asymmetric import check_by
from marchproxy.model.publickey import PublicKey, encode

TEXT = b"what was signed"


def number(value: int, size: int = 0) -> str:
    return encode(value.to_bytes(size or (value.bit_length() + 7) // 8))


def by_rsa() -> tuple[PublicKey, bytes]:
    private = rsa.generate_private_key(65537, 2048)
    numbers = private.public_key().public_numbers()
    return (
        PublicKey("RSA", n=number(numbers.n), e=number(numbers.e)),
        private.sign(TEXT, padding.PKCS1v15(), SHA256()),
    )


def by_ec() -> tuple[PublicKey, bytes]:
    private = ec.generate_private_key(ec.SECP256R1())
    numbers = private.public_key().public_numbers()
    halves = utils.decode_dss_signature(private.sign(TEXT, ec.ECDSA(SHA256())))
    key = PublicKey("EC", x=number(numbers.x, 32), y=number(numbers.y, 32))
    return key, b"".join(half.to_bytes(32) for half in halves)


def by_ed25519() -> tuple[PublicKey, bytes]:
    private = ed25519.Ed25519PrivateKey.generate()
    raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return PublicKey("OKP", x=encode(raw)), private.sign(TEXT)


@pytest.mark.parametrize("make", [by_rsa, by_ec, by_ed25519])
def test_only_the_right_signature_passes(make: Callable[[], tuple[PublicKey, bytes]]) -> None:
    key, signature = make()
    check = check_by(key)
    assert check(TEXT, signature)
    for wrong in (b"", signature[:-1], signature[:-1] + bytes([signature[-1] ^ 1]), signature + b"\0"):
        assert not check(TEXT, wrong)
    assert not check(TEXT + b".", signature)


def test_a_daemon_without_public_keys_does_not_load_the_library() -> None:
    code = "import sys, marchproxy.dataplane.supervisor, marchproxy.dataplane.workers.worker as w\n"
    code += "sys.exit('cryptography' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
