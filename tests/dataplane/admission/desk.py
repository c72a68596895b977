"""Admission at work on loopback: a plan, names that resolve, credentials, and what it reported."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from types import MappingProxyType

from marchproxy.dataplane.admission.limits import AdmissionLimits
from marchproxy.dataplane.admission.listeningsockets import ListeningSockets
from marchproxy.dataplane.admission.service import Admission
from marchproxy.dataplane.admission.sharing import Sharing
from marchproxy.dataplane.credentials.book import CredentialBook
from marchproxy.dataplane.credentials.contexts import Contexts
from marchproxy.dataplane.fdstore import DescriptorStore
from marchproxy.dataplane.names.found import Failure, Found, LookupFailed
from marchproxy.dataplane.records import Event
from marchproxy.model.appliance import DEFAULT_SETTINGS, Block, Settings
from marchproxy.model.endpoint import Endpoint
from marchproxy.model.entities import Mapping as MappingEntity
from marchproxy.model.entities import Service
from marchproxy.policy.compile import compile_plan
from marchproxy.policy.plan import Plan
from marchproxy.store.tokens import Token, digest
from tests.dataplane.proxy.peers import free_port
from tests.policy import build

TOKEN = "t0ken-of-the-vault"
OLD = "t0ken-that-has-expired"
LIMITS = AdmissionLimits(connections=64, per_source=64, each=20.0, opening=30.0, stagger=0.05)


class Keys:
    """The vault's tokens, and which were used."""

    def __init__(self, *, ends: datetime | None = None) -> None:
        self._ends = ends
        self.book = self._made(revoked=None)
        self.used: list[str] = []

    def revoke(self) -> None:
        """Take TOKEN back."""
        self.book = self._made(revoked=datetime.now(UTC))

    def _made(self, revoked: datetime | None) -> CredentialBook:
        made = datetime(2026, 1, 1, tzinfo=UTC)
        return CredentialBook(
            [
                Token(1, "vault", digest(TOKEN), None, made, self._ends, None, revoked, None),
                Token(2, "vault", digest(OLD), None, made, made + timedelta(seconds=1), None, None, None),
            ],
            token_services={"vault"},
        )

    def note_use(self, token: str, now: datetime) -> None:
        self.used.append(token)


class Desk:
    """What a test asks about."""

    def __init__(self, admission: Admission, port: int, keys: Keys) -> None:
        self.admission = admission
        self.port = port
        """Of the explicit proxy on 127.0.0.1."""
        self.keys = keys
        self.events: list[Event] = []
        self.asked: list[str] = []
        """Names that were looked up."""

    def reasons(self) -> list[tuple[str, str]]:
        """Kind and reason of every event so far."""
        return [(event.kind.value, event.decision.reason.name) for event in self.events]

    def apply(self, plan: Plan, revision: int = 2) -> None:
        """Carry out another plan."""
        self.admission.prepare(plan).commit(revision)


def explicit(
    port: int,
    *entities: Service | MappingEntity,
    settings: Settings = DEFAULT_SETTINGS,
    address: str = "127.0.0.1",
) -> Plan:
    """A plan with an explicit proxy at that port."""
    made = build.plan(*entities)
    return replace(made, explicit=(Endpoint(ip_address(address), port),), settings=settings)


def blocking(made: Plan, *entries: str) -> Plan:
    """The same with addresses or names that are blocked."""
    snapshot = replace(build.snapshot(), blocks=tuple(map(Block, entries)))
    return replace(made, blocks=compile_plan(snapshot, now=build.NOW).plan.blocks)


@asynccontextmanager
async def desk(
    *entities: Service | MappingEntity,
    names: Mapping[str, Sequence[str]] = MappingProxyType({}),
    settings: Settings = DEFAULT_SETTINGS,
    limits: AdmissionLimits = LIMITS,
    keys: Keys | None = None,
    sharing: Sharing | None = None,
    store: DescriptorStore | None = None,
    contexts: Contexts | None = None,
) -> AsyncGenerator[Desk]:
    """A running admission with an explicit proxy."""
    port = free_port()

    async def find(name: str) -> Found:
        running.asked.append(name)
        if name not in names:
            raise LookupFailed(Failure.NXDOMAIN)
        return Found(tuple(map(ip_address, names[name])), 60.0)

    keys = keys or Keys()
    admission = Admission(
        find, keys, limits=limits, sockets=ListeningSockets(sharing, store), contexts=contexts
    )
    running = Desk(admission, port, keys)
    admission.start(running.events.append)
    try:
        running.apply(explicit(port, *entities, settings=settings), 1)
        yield running
    finally:
        await admission.close()
