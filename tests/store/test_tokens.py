from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from marchproxy.model.change import Kind
from marchproxy.model.errors import Conflict, InvalidValue, NotFound
from marchproxy.model.reason import Reason
from marchproxy.store import tokens
from marchproxy.store.store import Store
from marchproxy.store.tokens import Issued, State, Token, digest
from tests.model.strategies import KEYS
from tests.store.build import add, changed, remove, service

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
WEB = service("web", auth="token")
API = service("api", auth="jwt")
FOREIGN = service("foreign", auth="jwt", jwt_algorithm="EdDSA", jwt_keys=KEYS["EdDSA"])


@pytest.fixture
def store(store: Store) -> Store:
    """A store with services of every kind, and one of the same name in another cluster."""
    services = [add(Kind.SERVICE, item) for item in (WEB, API, FOREIGN, service("open"))]
    store.commit(
        [*services, add(Kind.CLUSTER, {"name": "lab"}), add(Kind.SERVICE, WEB, "lab")], message="site"
    )
    return store


def signing(dal: Any, owner: int) -> bytes:
    return b"key of %d" % owner


def issue(
    store: Store,
    name: str = "web",
    *,
    cluster: str = "default",
    now: datetime = NOW,
    lifetime: timedelta | None = None,
) -> Issued:
    return tokens.issue(store._database, signing, cluster, name, now, lifetime)


def rotate(store: Store, now: datetime, overlap: timedelta, name: str = "web") -> Issued:
    return tokens.rotate(store._database, signing, "default", name, now, None, overlap)


def revoke(store: Store, name: str = "web", now: datetime = NOW, **which: Any) -> list[int]:
    return [token.id for token in tokens.revoke(store._database, "default", name, now, **which)]


def held(store: Store, cluster: str | None = None, name: str | None = None) -> list[Token]:
    return tokens.read_tokens(store._database, cluster, name)


def states(store: Store, now: datetime) -> list[State]:
    return [token.state(now) for token in held(store)]


def test_a_token_is_shown_once_and_kept_as_a_hash(state_dir: Path, store: Store) -> None:
    made = issue(store, lifetime=HOUR)
    assert made.secret is not None
    assert len(made.secret) == 43, "32 bytes in urlsafe base64"
    assert made.secret not in repr(made)
    kept = b"".join(path.read_bytes() for path in state_dir.iterdir())
    assert made.secret.encode() not in kept
    assert made.token.hash.encode() in kept
    assert held(store) == [made.token]
    assert made.token == Token(1, "web", digest(made.secret), None, NOW, NOW + HOUR, None, None, None)


def test_of_a_jwt_its_jti_is_kept(store: Store) -> None:
    made = issue(store, "api")
    assert (made.secret, made.key) == (None, b"key of 1")
    assert "key of" not in repr(made)
    assert made.token.jti is not None
    assert made.token.hash == digest(made.token.jti)
    assert made.token.expires == NOW + tokens.JWT_LIFETIME, "each has to end"


def test_numbers_are_given_out_once(store: Store) -> None:
    assert [issue(store).token.id for _ in range(3)] == [1, 2, 3]
    store.commit([remove(Kind.SERVICE, WEB)], message="gone")
    assert issue(store, "api").token.id == 4


def test_services_of_one_name_have_their_own(store: Store) -> None:
    issue(store)
    issue(store, cluster="lab")
    assert [token.service for token in held(store)] == ["web", "lab/web"]
    assert [token.id for token in held(store, "lab")] == [2]
    assert [token.id for token in held(store, "default", "web")] == [1]
    assert held(store, "default", "api") == []


@pytest.mark.parametrize(
    ("cluster", "name", "error", "said"),
    [
        ("default", "nowhere", NotFound, "service 'nowhere' does not exist"),
        ("nowhere", "web", NotFound, "service 'web' does not exist"),
        ("default", "open", Conflict, "service 'open' wants no credential"),
        ("default", "foreign", Conflict, "service 'foreign' takes JWTs of another issuer"),
    ],
)
def test_who_can_have_none(store: Store, cluster: str, name: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        issue(store, name, cluster=cluster)
    with pytest.raises(error, match=said):
        tokens.rotate(store._database, signing, cluster, name, NOW, None, HOUR)
    assert held(store) == []


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(seconds=-1), timedelta(days=3651)])
def test_a_lifetime_is_a_time(store: Store, lifetime: timedelta) -> None:
    with pytest.raises(InvalidValue, match="ttl"):
        issue(store, lifetime=lifetime)
    assert held(store) == []


@pytest.mark.parametrize("overlap", [timedelta(seconds=-1), timedelta(days=366)])
def test_an_overlap_is_no_backdoor(store: Store, overlap: timedelta) -> None:
    issue(store)
    with pytest.raises(InvalidValue, match="overlap"):
        rotate(store, NOW, overlap)
    assert states(store, NOW) == [State.ACTIVE]


def test_old_and_new_overlap(store: Store) -> None:
    issue(store)
    rotate(store, NOW, 24 * HOUR)
    assert states(store, NOW) == [State.REPLACED, State.ACTIVE]
    assert states(store, NOW + 24 * HOUR) == [State.EXPIRED, State.ACTIVE]


def test_rotating_again_prolongs_nothing(store: Store) -> None:
    issue(store)
    rotate(store, NOW, HOUR)
    rotate(store, NOW, 24 * HOUR)
    assert [token.ends for token in held(store)] == [NOW + HOUR, NOW + 24 * HOUR, None]
    rotate(store, NOW, timedelta(0))
    assert states(store, NOW) == [State.EXPIRED] * 3 + [State.ACTIVE]


def test_a_lifetime_is_not_prolonged_either(store: Store) -> None:
    issue(store, lifetime=HOUR)
    rotate(store, NOW, 24 * HOUR)
    assert held(store)[0].ends == NOW + HOUR


def test_one_is_taken_back_or_all(store: Store) -> None:
    for name in ("web", "web", "web", "api"):
        issue(store, name)
    assert revoke(store, ids=[2]) == [2]
    assert states(store, NOW) == [State.ACTIVE, State.REVOKED, State.ACTIVE, State.ACTIVE]
    assert revoke(store, now=NOW + HOUR) == [1, 3]
    assert [token.revoked for token in held(store)] == [NOW + HOUR, NOW, NOW + HOUR, None]
    assert revoke(store, ids=[2], now=NOW + HOUR) == [2], "once more is no error, and changes nothing"
    assert held(store)[1].revoked == NOW
    with pytest.raises(NotFound):
        revoke(store)


def test_what_has_just_ended_is_taken_back_too(store: Store) -> None:
    issue(store, "api", lifetime=HOUR)
    issue(store, "api", lifetime=HOUR / 2)
    assert revoke(store, "api", now=NOW + HOUR + timedelta(seconds=20)) == [1], "a JWT has some leeway"


def test_what_is_taken_back_has_to_be_there(store: Store) -> None:
    issue(store)
    issue(store, "api")
    for which in ({"ids": [1, 2]}, {"ids": [9]}, {"jtis": ["x"]}):
        with pytest.raises(NotFound):
            revoke(store, **which)
    assert states(store, NOW) == [State.ACTIVE] * 2
    with pytest.raises(NotFound, match="service 'nowhere'"):
        revoke(store, "nowhere")
    for jti in ("", "a\nb", "x" * 256):
        with pytest.raises(InvalidValue, match="jti"):
            revoke(store, "foreign", jtis=[jti])


def test_jwts_of_another_issuer_are_taken_back_by_their_jti(store: Store) -> None:
    assert revoke(store, "foreign", jtis=["from-afar", "from-afar"]) == [1]
    [record] = held(store)
    assert (record.jti, record.revoked, record.expires) == ("from-afar", NOW, None)
    own = issue(store, "api").token
    assert own.jti is not None
    assert revoke(store, "api", jtis=[own.jti]) == [own.id]


def test_reasons_tell_expired_from_revoked(store: Store) -> None:
    issue(store, lifetime=HOUR)
    assert held(store)[0].refusal(NOW) is None
    assert held(store)[0].refusal(NOW + HOUR) is Reason.AUTH_EXPIRED
    revoke(store)
    assert held(store)[0].refusal(NOW + HOUR) is Reason.AUTH_REVOKED


def test_uses_are_written_down_and_never_go_back(store: Store) -> None:
    for _ in range(3):
        issue(store)
    tokens.note_uses(store._database, {1: NOW, 2: NOW + HOUR, 99: NOW})
    tokens.note_uses(store._database, {1: NOW + HOUR / 2, 2: NOW})
    assert [token.last_used for token in held(store)] == [NOW + HOUR / 2, NOW + HOUR, None]
    tokens.note_uses(store._database, {})


def test_what_ended_long_ago_is_forgotten(store: Store) -> None:
    issue(store, lifetime=HOUR)
    issue(store)
    issue(store, cluster="lab", lifetime=HOUR)
    issue(store)
    revoke(store, ids=[2])
    issue(store, now=NOW + timedelta(days=30))
    assert [token.id for token in held(store)] == [1, 2, 3, 4, 5]
    issue(store, now=NOW + timedelta(days=31))
    assert [token.id for token in held(store)] == [3, 4, 5, 6], "those of other services are theirs"


def test_a_jwt_is_remembered_until_its_own_end(store: Store) -> None:
    """Forgotten before, it would open again: its signature is still right."""
    year = timedelta(days=365)
    issue(store, "api", lifetime=year)
    issue(store, "api", lifetime=year)
    revoke(store, "api", ids=[1])
    rotate(store, NOW, timedelta(0), "api")
    revoke(store, "api", jtis=["unknown"])
    late = NOW + timedelta(days=364)
    issue(store, "api", now=late)
    assert [token.refusal(late) for token in held(store) if token.id <= 2] == [
        Reason.AUTH_REVOKED,
        Reason.AUTH_EXPIRED,
    ]
    issue(store, "api", now=NOW + 2 * year)
    assert held(store)[0].jti == "unknown", "nobody here knows when that one ends"


def test_tokens_go_with_their_service_and_do_not_come_back(store: Store) -> None:
    before = store.head().number
    issue(store)
    store.commit([changed(WEB, description="more")], message="more")
    assert len(held(store)) == 1, "a change of the service leaves them"
    store.commit([remove(Kind.SERVICE, WEB | {"description": "more"})], message="gone")
    store.rollback(before)
    assert [item.name for item in store.snapshot().clusters[0].services].count("web") == 1
    assert held(store) == []
    assert store._database.query("SELECT count(*) FROM token") == [(0,)]


def test_a_rollback_leaves_tokens_alone(store: Store) -> None:
    issue(store)
    store.commit([add(Kind.SERVICE, service("x"))], message="x")
    store.rollback(2)
    assert states(store, NOW) == [State.ACTIVE]
