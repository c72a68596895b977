from pathlib import Path

import pytest

from marchproxy.model.change import Kind
from marchproxy.model.errors import Conflict, InvalidValue, NotFound
from marchproxy.store import credentials
from marchproxy.store.errors import StoreReadOnly, VaultUnreadable
from marchproxy.store.store import Store
from tests.model.strategies import KEYS
from tests.store.build import add, changed, remove, service

API = service("api", auth="jwt")
SHARED = bytes(range(40))


def key(store: Store, name: str = "api") -> bytes:
    """What a JWT of the service is signed with now."""
    made = store.credentials.issue("default", name).key
    assert made is not None
    return made


@pytest.fixture
def store(store: Store) -> Store:
    """A store with a service that takes JWTs of ours, one that takes those of others, and others."""
    foreign = service("foreign", auth="jwt", jwt_algorithm="ES256", jwt_keys=KEYS["ES256"])
    services = [API, foreign, service("web", auth="token"), service("open")]
    store.commit([add(Kind.SERVICE, item) for item in services], message="site")
    return store


def test_a_secret_is_made_once_and_sealed(state_dir: Path, store: Store) -> None:
    secret = key(store)
    assert len(secret) == credentials.SECRET_BYTES
    assert key(store) == secret
    kept = b"".join(path.read_bytes() for path in state_dir.iterdir())
    for form in (secret, secret.hex().encode()):
        assert form not in kept


def test_a_secret_may_be_shared_with_another_issuer(store: Store) -> None:
    for secret in (SHARED, SHARED[::-1]):
        store.credentials.keep_secret("default", "api", secret)
        assert key(store) == secret
    assert store.credentials.secrets().opened == {"api": SHARED[::-1]}


@pytest.mark.parametrize("name", ["web", "open", "foreign"])
def test_who_has_no_secret(store: Store, name: str) -> None:
    with pytest.raises(Conflict, match="takes no JWTs that are signed with a secret"):
        store.credentials.keep_secret("default", name, SHARED)
    with pytest.raises(NotFound):
        store.credentials.keep_secret("default", "nowhere", SHARED)
    assert store.credentials.secrets().opened == {}


@pytest.mark.parametrize(
    "secret",
    [
        b"",
        b"x" * 31,
        b"x" * 1025,
        b"-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n",
        b"\n-----BEGIN RSA PRIVATE KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n",
        b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI",
        b'{"keys": [{"kty": "RSA", "n": "..."}]}',
        b"\x30\x82\x01\x22" + bytes(290),
    ],
)
def test_a_key_is_no_secret(store: Store, secret: bytes) -> None:
    with pytest.raises(InvalidValue, match="jwt_keys"):
        store.credentials.keep_secret("default", "api", secret)
    assert store.credentials.secrets().opened == {}


def test_secrets_go_with_their_service_and_do_not_come_back(store: Store) -> None:
    before = store.head().number
    secret = key(store)
    store.commit([changed(API, jwt_algorithm="HS512")], message="longer")
    assert key(store) == secret
    store.commit([remove(Kind.SERVICE, API | {"jwt_algorithm": "HS512"})], message="gone")
    store.rollback(before)
    assert store.credentials.secrets().opened == {}
    assert key(store) != secret


def test_one_that_does_not_open_leaves_the_others(state_dir: Path, store: Store) -> None:
    store.commit([add(Kind.SERVICE, service("b", auth="jwt"))], message="b")
    key(store)
    (state_dir / "secret.key").unlink()
    secret = key(store, "b")
    found = store.credentials.secrets()
    assert found.opened == {"b": secret}
    assert found.failures == (
        f"the secret of service 'api' does not open with the key in '{state_dir}/secret.key'",
    )
    assert secret.hex() not in repr(found)
    assert str(secret) not in repr(found)
    before = store.credentials.tokens()
    with pytest.raises(VaultUnreadable):
        key(store)
    assert store.credentials.tokens() == before, "no record of a JWT that nobody could sign"


def test_tokens_by_the_clock(store: Store) -> None:
    own = store.credentials
    first = own.issue("default", "web")
    second = own.rotate("default", "web")
    assert [token.id for token in own.tokens()] == [first.token.id, second.token.id]
    assert own.tokens("default", "web")[0].replaced is not None
    assert own.tokens("default", "api") == []
    own.note_uses({second.token.id: second.token.created})
    assert own.tokens()[1].last_used == second.token.created
    assert [token.id for token in own.revoke("default", "web", ids=[first.token.id])] == [first.token.id]


def test_a_store_for_reading_issues_nothing(state_dir: Path, store: Store) -> None:
    store.close()
    with Store.open(state_dir, read_only=True) as opened:
        assert opened.credentials.tokens() == []
        assert opened.credentials.secrets().failures == ()
        with pytest.raises(StoreReadOnly):
            opened.credentials.issue("default", "web")
        with pytest.raises(StoreReadOnly):
            opened.credentials.keep_secret("default", "api", SHARED)


LOGS = {"default": "https://logs.example/"}


def test_log_tokens_go_with_their_cluster_and_open_for_it_only(store: Store) -> None:
    for token in (b"one", b"two"):
        store.credentials.keep_log_token("default", LOGS["default"], token)
    assert store.credentials.log_tokens(LOGS).opened == {"default": b"two"}
    assert store.credentials.log_tokens({}).opened == {}
    with pytest.raises(NotFound):
        store.credentials.keep_log_token("nowhere", "https://logs.example/", b"three")
    with pytest.raises(InvalidValue, match="log_http_token"):
        store.credentials.keep_log_token("default", LOGS["default"], b"a b")
    store.credentials.keep_log_token("default", LOGS["default"], None)
    assert store.credentials.log_tokens(LOGS).opened == {}


def test_a_log_token_is_told_to_no_other_address(store: Store) -> None:
    """A rollback may bring an address back, and another token with it."""
    store.credentials.keep_log_token("default", LOGS["default"], b"one")
    found = store.credentials.log_tokens({"default": "https://other.example/"})
    assert found.opened == {}
    assert found.failures


def test_a_log_token_that_does_not_open_is_said(state_dir: Path, store: Store) -> None:
    store.credentials.keep_log_token("default", LOGS["default"], b"one")
    (state_dir / "secret.key").unlink()
    found = store.credentials.log_tokens(LOGS)
    assert found.opened == {}
    assert found.failures
