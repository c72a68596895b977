"""Signatures of JWTs: what checks them, made from a service's algorithm and keys before any JWT is seen.

HS* takes bytes and RS256, ES256 and EdDSA take `PublicKey`, so that neither can serve as the other.
"""

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from marchproxy.model.entities import JwtAlgorithm
from marchproxy.model.publickey import PublicKey

type Check = Callable[[bytes, bytes], bool]
"""Whether a signature is that of a text."""

HASHES = {JwtAlgorithm.HS256: "sha256", JwtAlgorithm.HS384: "sha384", JwtAlgorithm.HS512: "sha512"}
"""By their names in `hashlib`."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """What checks the signatures of one service. Its keys never appear in a `repr`."""

    algorithm: JwtAlgorithm
    checks: tuple[tuple[str | None, Check], ...] = field(repr=False)
    """Each with the `kid` of its key."""

    @property
    def names(self) -> frozenset[str]:
        """The names of its keys, as far as they have any."""
        return frozenset(kid for kid, _ in self.checks if kid is not None)

    def candidates(self, kid: str | None) -> Sequence[Check]:
        """The checks that a JWT with this `kid` may pass: those of its key, and of keys without a name."""
        return [check for own, check in self.checks if kid is None or own in (None, kid)]


def verifier(algorithm: JwtAlgorithm, keys: Sequence[PublicKey] | bytes) -> Verifier:
    """What checks signatures of this algorithm: by a secret with HS*, by public keys with the others.

    Keys of another kind are left out: an issuer's set may hold keys for other purposes. Raises `TypeError`
    where a secret meets an algorithm with public keys, or the other way round.
    """
    if isinstance(keys, bytes):
        return Verifier(algorithm, ((None, _keyed(HASHES.get(algorithm), keys)),))
    if algorithm.key_type is None:
        raise TypeError(f"{algorithm} has a secret")
    # Its library is six megabytes and 40 ms of every process, and most have no public keys.
    from marchproxy.dataplane.credentials.asymmetric import check_by

    usable = [key for key in keys if key.kty == algorithm.key_type]
    return Verifier(algorithm, tuple((key.kid, check_by(key)) for key in usable))


def sign(algorithm: JwtAlgorithm, secret: bytes, text: bytes) -> bytes:
    """The signature of a text, with HS256, HS384 or HS512."""
    return hmac.digest(secret, text, HASHES[algorithm])


def _keyed(name: str | None, secret: bytes) -> Check:
    if name is None:
        raise TypeError("a secret checks HS256, HS384 and HS512 only")
    return lambda text, signature: hmac.compare_digest(hmac.digest(secret, text, name), signature)
