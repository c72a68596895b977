"""The keeper's book follows the store, and the store hears what was used."""

import sqlite3
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from marchproxy.dataplane.credentials import keeper as keepers
from marchproxy.dataplane.credentials.book import Verified
from marchproxy.dataplane.credentials.issuing import write_jwt
from marchproxy.dataplane.credentials.jwks import JwksFailed
from marchproxy.dataplane.credentials.keeper import CredentialKeeper
from marchproxy.dataplane.credentials.keysets import Pace
from marchproxy.dataplane.health.checks import HealthChecks
from marchproxy.dataplane.intent import Intent
from marchproxy.dataplane.names.resolver import Resolver
from marchproxy.model.errors import MarchproxyError
from marchproxy.model.presented import Presented
from marchproxy.model.publickey import PublicKey
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import Plan
from marchproxy.store.store import Store
from tests.dataplane.credentials.jwts import NOW, claims, ed_key, jwt, public
from tests.dataplane.loops import looped, until
from tests.store.build import holding, service

TIME = datetime.fromtimestamp(NOW, UTC)
URL = "https://issuer.example/keys"
SERVICES = [
    service("web", auth="token"),
    service("api", auth="jwt"),
    service("foreign", auth="jwt", jwt_algorithm="EdDSA", jwks_url=URL),
    service("fixed", auth="jwt", jwt_algorithm="EdDSA", jwt_keys=[public(ed_key(3)).document()]),
]


class Issuer:
    """Whoever signs for the service `foreign`."""

    def __init__(self) -> None:
        self.keys = (public(ed_key(1), "one"),)
        self.away = False

    async def get(self, url: str) -> tuple[PublicKey, ...]:
        assert url == URL
        if self.away:
            raise JwksFailed(f"{url}: away")
        return self.keys


class House:
    """An operator's store, the daemon's view of it, and a client who presents something."""

    def __init__(self, store: Store, intent: Intent, keeper: CredentialKeeper, issuer: Issuer) -> None:
        self.store = store
        self.intent = intent
        self.keeper = keeper
        self.issuer = issuer

    async def reload(self) -> None:
        await self.intent.reload()
        await self.keeper.reload()

    def verify(self, secret: str, service: str, now: datetime | None = None) -> Verified | Reason:
        return self.keeper.book.verify(Presented(secret), [service], now or datetime.now(UTC))

    def issue(self, name: str) -> str:
        made = self.store.credentials.issue("default", name)
        found = next(item for item in self.store.snapshot().clusters[0].services if item.name == name)
        return made.secret or write_jwt(found, made.token, made.key or b"")


async def carried_out(plan: Plan, revision: int) -> None:
    """A tier that takes everything."""


@asynccontextmanager
async def house(folder: Path) -> AsyncGenerator[House]:
    with ThreadPoolExecutor(1) as worker, Store.open(folder, create=True, timeout=0.05) as store:
        store.replace(holding(SERVICES), message="site")
        resolver, issuer = Resolver(), Issuer()
        intent = Intent(folder, worker, resolver, HealthChecks(lambda _: None), carried_out)
        await intent.open()
        pace = Pace(refresh=3600, retry=0.01, least=0)
        keeper = CredentialKeeper(intent, folder, get=issuer.get, pace=pace)
        try:
            yield House(store, intent, keeper, issuer)
        finally:
            await keeper.close()
            await intent.close()
            await resolver.close()


@looped
async def test_before_anything_is_read_nothing_opens(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        token = here.issue("web")
        await here.keeper.reload()
        assert here.verify(token, "web") is Reason.AUTH_INVALID, "no service is carried out yet"
        await here.reload()
        assert isinstance(here.verify(token, "web"), Verified)


@looped
async def test_tokens_change_without_a_revision(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        first = here.issue("web")
        await here.reload()
        second = here.store.credentials.rotate("default", "web", overlap=timedelta(0)).secret or ""
        assert here.verify(second, "web") is Reason.AUTH_INVALID
        await here.reload()
        assert here.verify(first, "web") is Reason.AUTH_EXPIRED
        found = here.verify(second, "web")
        assert found == Verified("web", "2", None)
        here.store.credentials.revoke("default", "web")
        await here.reload()
        assert here.verify(second, "web") is Reason.AUTH_REVOKED


@looped
async def test_jwts_of_ours_and_of_others(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        own = here.issue("api")
        await here.reload()
        found = here.verify(own, "api")
        assert isinstance(found, Verified)
        assert found.token == "1"
        assert isinstance(
            here.verify(jwt(ed_key(1), "EdDSA", claims(), kid="one"), "foreign", TIME), Verified
        )
        assert isinstance(here.verify(jwt(ed_key(3), "EdDSA", claims()), "fixed", TIME), Verified)
        assert here.verify(jwt(ed_key(3), "EdDSA", claims()), "foreign", TIME) is Reason.AUTH_INVALID
        here.store.credentials.keep_secret("default", "api", bytes(range(32)))
        await here.reload()
        assert here.verify(own, "api") is Reason.AUTH_INVALID


@looped
async def test_a_new_key_of_an_issuer_is_fetched_when_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keepers, "LOOK", 0.01)
    async with house(tmp_path) as here:
        await here.reload()
        here.keeper.start()
        here.issuer.keys = (public(ed_key(2), "two"),)
        text = jwt(ed_key(2), "EdDSA", claims(), kid="two")
        assert here.verify(text, "foreign", TIME) is Reason.AUTH_INVALID
        await until(lambda: isinstance(here.verify(text, "foreign", TIME), Verified))


@looped
async def test_an_issuer_that_is_away_is_a_problem(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        here.issuer.away = True
        await here.reload()
        assert [str(item) for item in here.keeper.problems()] == [f"credentials: {URL}: away"]
        here.issuer.away = False
        await until(lambda: not here.keeper.problems())
        assert isinstance(here.verify(jwt(ed_key(1), "EdDSA", claims()), "foreign", TIME), Verified)


@looped
async def test_a_secret_that_does_not_open_is_a_problem(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        own, token = here.issue("api"), here.issue("web")
        (tmp_path / "secret.key").unlink()
        await here.reload()
        [problem] = here.keeper.problems()
        assert "is gone" in problem.message
        assert here.verify(own, "api") is Reason.AUTH_INVALID
        assert isinstance(here.verify(token, "web"), Verified)


@looped
async def test_a_store_that_cannot_be_read_leaves_the_book(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        token = here.issue("web")
        await here.reload()
        await here.intent.close()
        with pytest.raises(MarchproxyError):
            await here.keeper.reload()
        assert "cannot be read" in here.keeper.problems()[0].message
        assert isinstance(here.verify(token, "web"), Verified)
        await here.intent.open()
        await here.keeper.reload()
        assert here.keeper.problems() == []


@looped
async def test_uses_are_written_in_batches(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        for name in ("web", "web", "api"):
            here.issue(name)
        await here.keeper.flush()
        for second in range(3):
            here.keeper.note_use("1", TIME + timedelta(seconds=second))
            here.keeper.note_use("3", TIME)
        for none in ("jti:3", "jti:", "", "99"):
            here.keeper.note_use(none, TIME)
        assert [token.last_used for token in here.store.credentials.tokens()] == [None] * 3
        await here.keeper.flush()
        used = [token.last_used for token in here.store.credentials.tokens()]
        assert used == [TIME + timedelta(seconds=2), None, TIME]


@looped
async def test_uses_that_cannot_be_written_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(tmp_path) as here:
        here.issue("web")
        await here.reload()
        here.keeper.note_use("1", TIME)
        monkeypatch.setattr(keepers, "PATIENCE", 0.01)
        writer = sqlite3.connect(tmp_path / "marchproxy.db", isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        await here.keeper.flush()
        assert "uses of tokens cannot be written" in here.keeper.problems()[0].message
        here.keeper.note_use("1", TIME + timedelta(seconds=1))
        writer.close()
        await here.keeper.flush()
        assert here.keeper.problems() == []
        assert here.store.credentials.tokens()[0].last_used == TIME + timedelta(seconds=1)


@looped
async def test_the_background_writes_uses_and_so_does_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keepers, "LOOK", 0.01)
    monkeypatch.setattr(keepers, "FLUSH", 0.02)
    async with house(tmp_path) as here:
        here.issue("web")
        here.issue("web")
        here.keeper.start()
        here.keeper.note_use("1", TIME)
        await until(lambda: here.store.credentials.tokens()[0].last_used == TIME)
        here.keeper.note_use("2", TIME)
        await here.keeper.close()
        assert here.store.credentials.tokens()[1].last_used == TIME
