"""What there is to know about a certificate without its private key."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from marchproxy.model.names import qualify

AUTHORITY = "ca"
"""The name of a cluster's own CA among its certificates."""


class Origin(StrEnum):
    """Where a certificate comes from."""

    ADDED = "added"
    """An operator brought it, with its key."""
    GENERATED = "generated"
    """The cluster's own CA signed it."""
    AUTHORITY = "authority"
    """It is that CA itself, and no listener's."""


class Purpose(StrEnum):
    """Whose proof it may be, as its extended key usage says (RFC 5280 section 4.2.1.12)."""

    SERVERS = "servers"
    CLIENTS = "clients"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a chain says about itself."""

    hosts: tuple[str, ...]
    """Names and addresses that it is for, in the order of the certificate; empty: clients refuse it."""
    subject: str
    issuer: str
    kind: str
    """Of its key, such as `EC P-384` or `RSA 2048`."""
    fingerprint: str
    """SHA-256 of the leaf in hexadecimal."""
    begins: datetime
    expires: datetime
    """When the first certificate of the chain does."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate of the store."""

    cluster: str
    name: str
    origin: Origin
    facts: Facts
    created: datetime
    """When it was added, generated or last renewed."""
    chain: str
    """PEM, the leaf first."""
    fetched: bool = False
    """It has a source, from which the daemon fetches the next one in the last third of its life."""

    def warns(self, ahead: timedelta) -> datetime:
        """From when somebody is told that it ends, `ahead` of that; of what is fetched, when that should have
        been done for long: in the last sixth of its life.
        """
        facts = self.facts
        return facts.expires - (min(ahead, (facts.expires - facts.begins) / 6) if self.fetched else ahead)

    @property
    def qualified(self) -> str:
        """The name as others see it."""
        return qualify(self.cluster, self.name)
