"""Keeps the book up to date, and writes down which tokens are used."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from secrets import token_bytes

from marchproxy.dataplane.credentials.book import CredentialBook
from marchproxy.dataplane.credentials.jwks import fetch
from marchproxy.dataplane.credentials.keysets import Fetch, KeySets, Pace
from marchproxy.dataplane.credentials.parts import BookParts, JwtPart
from marchproxy.dataplane.intent import Intent
from marchproxy.dataplane.status import Problem
from marchproxy.dataplane.tasks import Tasks
from marchproxy.model.entities import Auth, Service
from marchproxy.model.errors import MarchproxyError
from marchproxy.model.names import qualify
from marchproxy.model.publickey import PublicKey
from marchproxy.model.snapshot import Snapshot
from marchproxy.store.credentials import Secrets
from marchproxy.store.store import Store
from marchproxy.store.tokens import Token

LOOK = 1.0
"""Seconds between two looks at which issuers may have a new key."""
FLUSH = 10.0
"""Seconds between two writings of what was used: once for many connections, and never for each."""
PATIENCE = 1.0
"""Seconds to wait for another writer: the store's worker has more to do, and uses can wait."""
KEYS_WAIT = 1.0
"""Seconds that a reload waits for key sets that it brings."""


class CredentialKeeper:
    """`book` is what holds now. A change of services, tokens, secrets or key sets replaces it."""

    def __init__(
        self, intent: Intent, state_dir: Path | None, *, get: Fetch = fetch, pace: Pace | None = None
    ) -> None:
        """`get` fetches the key sets of issuers, as often as `pace` says."""
        self.parts = BookParts()
        """What `book` was made of: another object whenever that changes."""
        self.book = CredentialBook()
        self._intent = intent
        self._state_dir = state_dir
        self._sets = KeySets(self.rebuild, get=get, pace=pace)
        self._snapshot = Snapshot()
        self._tokens: list[Token] = []
        self._secrets = Secrets({}, ())
        self._cookie_key = token_bytes(32)
        """Until there is one that survives a restart."""
        self._uses: dict[int, datetime] = {}
        self._failure = ""
        self._unwritten = ""
        self._tasks = Tasks()

    def start(self) -> None:
        """Look after issuers and uses in the background."""
        self._tasks.start(self._tend(), name="credentials")

    def problems(self) -> Sequence[Problem]:
        """Whose credentials cannot be judged, and why."""
        said = (self._failure, *self._secrets.failures, *self._sets.problems(), self._unwritten)
        return [Problem("credentials", text) for text in said if text]

    async def reload(self) -> None:
        """Read tokens and secrets again, for the services that are carried out now.

        Raises `MarchproxyError`, and leaves the book that there is.
        """
        try:
            tokens, secrets, key = await self._intent.read(_read)
        except MarchproxyError as error:
            self._failure = f"tokens cannot be read: {error.message}"
            raise
        self._failure = ""
        self._cookie_key = key or self._cookie_key
        self._snapshot, self._tokens, self._secrets = self._intent.snapshot, tokens, secrets
        urls = {service.jwks_url for _, service in _services(self._snapshot) if service.jwks_url}
        self.rebuild()
        await self._sets.watch(urls, wait=KEYS_WAIT)

    def rebuild(self) -> None:
        """Make the book anew of what was read last."""
        services = list(_services(self._snapshot))
        jwt = (self._part(name, service) for name, service in services if service.auth is Auth.JWT)
        self.parts = BookParts(
            tuple(self._tokens),
            frozenset(name for name, service in services if service.auth is Auth.TOKEN),
            tuple(part for part in jwt if part is not None),
            self._cookie_key,
        )
        self.book = self.parts.book()

    def note_use(self, token: str, now: datetime) -> None:
        """Remember that a token was used, by the name that `Verified` gives it."""
        if token.isdecimal():
            self._uses[int(token)] = now

    async def flush(self) -> None:
        """Write down what was used since the last time."""
        uses, self._uses = self._uses, {}
        if not uses:
            return
        try:
            await self._intent.in_worker(lambda: _note(self._state_dir, uses))
        except MarchproxyError as error:
            self._uses = uses | self._uses
            self._unwritten = f"uses of tokens cannot be written: {error.message}"
        else:
            self._unwritten = ""

    async def close(self) -> None:
        """Write down what was used, and end what runs in the background."""
        await self._tasks.stop()
        await self._sets.close()
        await self.flush()

    def _part(self, name: str, service: Service) -> JwtPart | None:
        """None: the service's secret is not known."""
        keys: tuple[PublicKey, ...] | bytes | None
        if service.jwt_algorithm.key_type is None:
            keys = self._secrets.opened.get(name)
        else:
            keys = tuple(service.jwt_keys if service.jwks_url is None else self._sets.keys(service.jwks_url))
        if keys is None:
            return None
        return JwtPart(name, service.jwt_algorithm, keys, service.jwt_audience, service.jwt_issuer)

    async def _tend(self) -> None:
        flushed = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(LOOK)
            self._ask_issuers()
            now = asyncio.get_running_loop().time()
            if now - flushed >= FLUSH:
                flushed = now
                await self.flush()

    def _ask_issuers(self) -> None:
        missing, self.book.unknown_keys = self.book.unknown_keys, set()
        for name, service in _services(self._snapshot):
            if name in missing and service.jwks_url is not None:
                self._sets.want(service.jwks_url)


def _services(snapshot: Snapshot) -> list[tuple[str, Service]]:
    return [
        (qualify(cluster.name, service.name), service)
        for cluster in snapshot.clusters
        for service in cluster.services
    ]


def _read(store: Store) -> tuple[list[Token], Secrets, bytes | None]:
    return store.credentials.tokens(), store.credentials.secrets(), store.credentials.derived_key("cookies")


def _note(state_dir: Path | None, uses: dict[int, datetime]) -> None:
    """The daemon's own store is open for reading only."""
    with Store.open(state_dir, timeout=PATIENCE) as store:
        store.credentials.note_uses(uses)
