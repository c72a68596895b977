"""Certificates for tests: a CA of their own, and what it signs."""

import ssl
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import cast

from marchproxy.dataplane.credentials.certificates import CertificateKeeper
from marchproxy.dataplane.credentials.contexts import Contexts
from marchproxy.model.certificate import Purpose
from marchproxy.store.authority import make_authority, sign
from marchproxy.store.certificates import Identity
from marchproxy.store.x509 import Material

HOSTS = ("localhost", "proxy.example", "127.0.0.1", "10.1.0.1")


def authority(owner: str = "default") -> Material:
    """A CA, always the same of one name."""
    return _authority(owner)


@cache
def _authority(owner: str) -> Material:
    return make_authority(owner, datetime.now(UTC).replace(microsecond=0))


def signed(
    *hosts: str,
    days: int = 90,
    now: datetime | None = None,
    owner: str = "default",
    purpose: Purpose = Purpose.SERVERS,
) -> Material:
    """A certificate that the CA signed."""
    made = authority(owner)
    began = now or datetime.now(UTC).replace(microsecond=0)
    return sign(made.chain, made.key, hosts or HOSTS, timedelta(days=days), began, purpose=purpose)


def identity(name: str = "proxy", *hosts: str) -> Identity:
    """The same, as the daemon has it."""
    made = signed(*hosts)
    return Identity(name, made.chain, made.key)


def trusting(owner: str = "default") -> ssl.SSLContext:
    """A client that trusts the CA alone."""
    return ssl.create_default_context(cadata=authority(owner).chain)


class Keeper:
    """Stands in for a `CertificateKeeper`."""

    def __init__(self, *identities: Identity) -> None:
        self.identities = identities
        self.contexts = Contexts()
        self.contexts.learn(identities)


def keeper(*identities: Identity) -> CertificateKeeper:
    """One that has these."""
    return cast(CertificateKeeper, Keeper(*identities))
