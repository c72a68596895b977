"""Keys of ACME accounts, and what they sign (RFC 8555, section 6.2; JWS as flattened JSON, RFC 7515)."""

import hashlib
import hmac
import json
from functools import cached_property

from marchproxy.client.asking import Document
from marchproxy.model.publickey import decode, encode


class AccountKey:
    """ECDSA on P-256, which every CA has to take."""

    def __init__(self, pem: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        key = load_pem_private_key(pem, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.key_size != 256:
            raise TypeError("our accounts sign with ES256")
        self._key = key

    @cached_property
    def public(self) -> dict[str, str]:
        """The JWK, with what its thumbprint is made of and nothing else, in that order (RFC 7638)."""
        numbers = self._key.public_key().public_numbers()
        x, y = (encode(number.to_bytes(32)) for number in (numbers.x, numbers.y))
        return {"crv": "P-256", "kty": "EC", "x": x, "y": y}

    def authorization(self, token: str) -> str:
        """What a challenge's token is answered with (RFC 8555, section 8.1)."""
        return f"{token}.{encode(hashlib.sha256(_json(self.public)).digest())}"

    def sign(self, protected: Document, payload: Document | None) -> bytes:
        """A request; payload None: one that only reads (section 6.3)."""
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
        from cryptography.hazmat.primitives.hashes import SHA256

        head = encode(_json({"alg": "ES256", **protected}))
        body = "" if payload is None else encode(_json(payload))
        r, s = decode_dss_signature(self._key.sign(f"{head}.{body}".encode(), ec.ECDSA(SHA256())))
        return _json(_flattened(head, body, r.to_bytes(32) + s.to_bytes(32)))

    def bound(self, key_id: str, secret: str, url: str) -> Document:
        """What binds it to an account that the CA's own customers have (section 7.3.4).

        `secret`: base64url, as the CA gives it.
        """
        head = encode(_json({"alg": "HS256", "kid": key_id, "url": url}))
        body = encode(_json(self.public))
        mac = hmac.digest(decode(secret.rstrip("=")), f"{head}.{body}".encode(), "sha256")
        return _flattened(head, body, mac)


def _flattened(head: str, body: str, signature: bytes) -> Document:
    return {"protected": head, "payload": body, "signature": encode(signature)}


def _json(document: Document | dict[str, str]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
