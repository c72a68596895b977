"""Certificates and keys as objects, for TLS that is not OpenSSL's: QUIC's."""

from collections.abc import Iterable
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates

from marchproxy.dataplane.credentials.contexts import Contexts
from marchproxy.dataplane.quic.engine import Choose, KeyPair
from marchproxy.dataplane.quic.sessions import Sessions
from marchproxy.store.certificates import Identity
from marchproxy.store.x509 import hosts_of

type _Loaded = tuple[KeyPair, tuple[str, ...]]
"""And the hosts that it is for."""
_CURVES = (ec.SECP256R1, ec.SECP384R1)


class KeyPairs:
    """Those of the certificates that `contexts` has, read when they are first wanted, when they were renewed,
    and when there is another secret for sessions.
    """

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts
        self._loaded: dict[str, tuple[tuple[Identity, bytes], _Loaded | None]] = {}

    def chooser(self, names: Iterable[str]) -> Choose | None:
        """What chooses among these certificates by the client's TLS name, as `Contexts.choosing` does.

        None: none of them is there, or of a kind that QUIC's TLS signs with.
        """
        usable = [found for name in names if (found := self._load(name)) is not None]
        if not usable:
            return None
        first = usable[0][0]
        by_host = {host: pair for pair, hosts in reversed(usable) for host in hosts}

        def choose(name: str) -> KeyPair:
            host = name.lower().rstrip(".")
            return by_host.get(host) or by_host.get(f"*.{host.partition('.')[2]}") or first

        return choose

    def _load(self, name: str) -> _Loaded | None:
        identity = self._contexts.identity(name)
        if identity is None:
            self._loaded.pop(name, None)
            return None
        known, made_of = self._loaded.get(name), (identity, self._contexts.secret)
        if known is None or known[0] != made_of:
            known = self._loaded[name] = (made_of, _read(*made_of))
        return known[1]


def _read(identity: Identity, secret: bytes) -> _Loaded | None:
    try:
        key = load_pem_private_key(identity.key, None)
        chain = load_pem_x509_certificates(identity.chain.encode())
    except ValueError:
        return None
    if not _signs(key):
        return None
    return KeyPair(tuple(chain), key, Sessions(secret, identity.name)), hosts_of(identity.chain)


def _signs(key: Any) -> bool:
    """Whether aioquic signs with it."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return isinstance(key.curve, _CURVES)
    return isinstance(key, rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
