"""What accounts sign, by the key of RFC 7515, appendix A.3."""

import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from marchproxy.client.acmekeys import AccountKey
from marchproxy.model.publickey import decode, encode

D = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"
X, Y = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


KEY = ec.derive_private_key(int.from_bytes(decode(D)), ec.SECP256R1())


def test_its_public_part_and_thumbprint() -> None:
    key = AccountKey(pem(KEY))
    assert key.public == {"crv": "P-256", "kty": "EC", "x": X, "y": Y}
    digest = hashlib.sha256(f'{{"crv":"P-256","kty":"EC","x":"{X}","y":"{Y}"}}'.encode()).digest()
    assert key.authorization("token") == f"token.{encode(digest)}"


@pytest.mark.parametrize("payload", [None, {}, {"a": "ü"}])
def test_what_it_signs_is_verified_by_its_public_part(payload: Any) -> None:
    made = json.loads(AccountKey(pem(KEY)).sign({"nonce": "n", "url": "u"}, payload))
    assert json.loads(decode(made["protected"])) == {"alg": "ES256", "nonce": "n", "url": "u"}
    assert (json.loads(decode(made["payload"])) if made["payload"] else None) == payload
    mark = decode(made["signature"])
    KEY.public_key().verify(
        encode_dss_signature(int.from_bytes(mark[:32]), int.from_bytes(mark[32:])),
        f"{made['protected']}.{made['payload']}".encode(),
        ec.ECDSA(SHA256()),
    )


def test_it_is_bound_to_an_account_elsewhere() -> None:
    made = AccountKey(pem(KEY)).bound("kid-1", encode(b"secret of the CA") + "=", "https://ca.example/new")
    expected = {"alg": "HS256", "kid": "kid-1", "url": "https://ca.example/new"}
    assert json.loads(decode(made["protected"])) == expected
    assert json.loads(decode(made["payload"]))["x"] == X
    signed = f"{made['protected']}.{made['payload']}".encode()
    assert decode(made["signature"]) == hmac.digest(b"secret of the CA", signed, "sha256")


def test_another_kind_of_key_is_none() -> None:
    with pytest.raises(TypeError):
        AccountKey(pem(ec.generate_private_key(ec.SECP384R1())))
