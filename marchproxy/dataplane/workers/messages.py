"""What the daemon and its workers say to each other."""

import copyreg
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from marchproxy.dataplane.admission.ripe import Ripe
from marchproxy.dataplane.credentials.parts import BookParts
from marchproxy.dataplane.logring import Said
from marchproxy.dataplane.records import Denials, EventKind, LimitState, Outlier, TableFill, Traffic
from marchproxy.dataplane.workers.eventwire import Packed
from marchproxy.model.address import IPAddress
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import ListenerKey, Plan
from marchproxy.store.certificates import Identity


def _proxy(mapping: dict[object, object]) -> MappingProxyType[object, object]:
    return MappingProxyType(mapping)


# Plans have them, and pickle does not know what they are.
copyreg.pickle(MappingProxyType, lambda proxy: (_proxy, (dict(proxy),)))


# ---- from the daemon


@dataclass(frozen=True, slots=True)
class Serve:
    """Decide by this plan. The descriptors are listening sockets for the keys in `opened`, in their order."""

    plan: Plan
    revision: int
    edition: int
    """Counts plans: names, health and blocks make new ones of the same revision."""
    wanted: frozenset[ListenerKey]
    opened: tuple[ListenerKey, ...]


@dataclass(frozen=True, slots=True)
class Know:
    """These are all credentials."""

    parts: BookParts = field(repr=False)


@dataclass(frozen=True, slots=True)
class Prove:
    """Speak TLS with these certificates; there are no others."""

    identities: tuple[Identity, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Resume:
    """Resume sessions of TLS that any worker has begun, by keys made of this secret."""

    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Steer:
    """Of the connection IDs of QUIC, give out those of process `index` of `count`."""

    secret: bytes = field(repr=False)
    """Of all workers, and of those that take their places."""
    index: int
    count: int


@dataclass(frozen=True, slots=True)
class Want:
    """Report events of these kinds."""

    kinds: frozenset[EventKind]


@dataclass(frozen=True, slots=True)
class ListFlows:
    """Answer with live flows, at most `limit`."""

    limit: int


@dataclass(frozen=True, slots=True)
class FindUsed:
    """Answer with those of the addresses that are on either side of a flow."""

    addresses: frozenset[IPAddress]


@dataclass(frozen=True, slots=True)
class Cut:
    """End conversations; answer with the ids of those that there were.

    From a worker: end those that the kernel has taken, without an answer, for they have ended in the worker.
    """

    ids: frozenset[int]


@dataclass(frozen=True, slots=True)
class Revoke:
    """End what a credential opened; answer with their number."""

    token: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Accept nothing more, wait for what is open at most so many seconds, and end."""

    seconds: float


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Answer when all that came before holds, and what has happened was told."""


@dataclass(frozen=True, slots=True)
class AddUp:
    """Answer with what was carried since the worker began."""


type Question = ListFlows | FindUsed | Cut | Revoke | CatchUp | AddUp


@dataclass(frozen=True, slots=True)
class Ask:
    """A question, to be answered under its number."""

    number: int
    question: Question


# ---- from a worker


@dataclass(frozen=True, slots=True)
class Find:
    """Look a name up, and answer under this number: `Found` or `LookupFailed`."""

    number: int
    name: str


@dataclass(frozen=True, slots=True)
class Told:
    """Events in the order in which they came about."""

    events: tuple[Packed, ...]


@dataclass(frozen=True, slots=True)
class Logged:
    """What a worker has said about itself, in that order, and how many more records it had no room for."""

    said: tuple[Said, ...]
    lost: int


@dataclass(frozen=True, slots=True)
class Offered:
    """A tunnel for the kernel; the descriptors are its client's socket and its upstream one. Nothing is read
    and not yet written. The answer: None, it was taken; else whether trying again may help.
    """

    number: int
    """Of the question."""
    ripe: Ripe
    edition: int
    """Of the plan that the worker decides by."""


@dataclass(frozen=True, slots=True)
class Facts:
    """How a worker is doing, four times a second."""

    counters: Mapping[Reason, Traffic] = field(default_factory=dict)
    denials: tuple[Denials, ...] = ()
    limits: tuple[LimitState, ...] = ()
    fill: tuple[TableFill, ...] = ()
    problems: tuple[str, ...] = ()
    uses: tuple[tuple[str, datetime], ...] = ()
    """Tokens that were used since the last time."""
    unknown_keys: frozenset[str] = frozenset()
    """See `CredentialBook.unknown_keys`."""
    outliers: tuple[Outlier, ...] = ()
    requests: Mapping[str, int] = field(default_factory=dict)
    """See `Care.counts`."""


# ---- both ways


@dataclass(frozen=True, slots=True)
class Answer:
    """To `Ask`, `Find` or `Offered`."""

    number: int
    value: object
