from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from marchproxy.model.change import Kind
from marchproxy.model.errors import Conflict, InvalidValue, NotFound
from marchproxy.store.keys import create_key, read_keys, rotate_key, verify_key
from marchproxy.store.store import Store
from tests.store.build import add, remove

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_a_key_is_shown_once_and_kept_as_a_hash(state_dir: Path, store: Store) -> None:
    key = create_key(store._database, "default", NOW)
    assert len(key) == 43, "32 bytes in urlsafe base64"
    assert verify_key(store._database, "default", key, NOW)
    kept = b"".join(path.read_bytes() for path in state_dir.iterdir())
    assert key.encode() not in kept
    [known] = read_keys(store._database, "default")
    assert known.hash.encode() in kept
    assert (known.created, known.expires) == (NOW, None)


@pytest.mark.parametrize("wrong", ["", "x", "é", "\ud800", "\0" * 43])
def test_any_other_text_opens_nothing(store: Store, wrong: str) -> None:
    key = create_key(store._database, "default", NOW)
    for text in (wrong, key + wrong, key[:-1] + wrong):
        assert verify_key(store._database, "default", text, NOW) == (text == key)


def test_a_key_opens_its_own_cluster_only(store: Store) -> None:
    store.commit([add(Kind.CLUSTER, {"name": "lab"})], message="lab")
    key = create_key(store._database, "default", NOW)
    create_key(store._database, "lab", NOW)
    assert not verify_key(store._database, "lab", key, NOW)
    assert not verify_key(store._database, "nowhere", key, NOW)


def test_a_first_key_is_made_once(store: Store) -> None:
    create_key(store._database, "default", NOW)
    with pytest.raises(Conflict, match="cluster 'default' has a key") as caught:
        create_key(store._database, "default", NOW)
    assert caught.value.hint == "marchproxy cluster rotate-key default"


def test_no_key_without_a_cluster(store: Store) -> None:
    with pytest.raises(NotFound, match="cluster 'lab' does not exist"):
        create_key(store._database, "lab", NOW)
    with pytest.raises(NotFound, match="cluster 'lab' does not exist"):
        rotate_key(store._database, "lab", NOW, HOUR)


def test_old_and_new_overlap(store: Store) -> None:
    old = create_key(store._database, "default", NOW)
    new = rotate_key(store._database, "default", NOW, 24 * HOUR)
    for moment, opens in [(NOW, True), (NOW + 23 * HOUR, True), (NOW + 24 * HOUR, False)]:
        assert verify_key(store._database, "default", old, moment) is opens
        assert verify_key(store._database, "default", new, moment)


def test_without_an_overlap_the_old_key_ends_at_once(store: Store) -> None:
    old = create_key(store._database, "default", NOW)
    new = rotate_key(store._database, "default", NOW, timedelta(0))
    assert not verify_key(store._database, "default", old, NOW)
    assert verify_key(store._database, "default", new, NOW)


def test_rotating_again_prolongs_nothing_and_forgets_what_ended(store: Store) -> None:
    first = create_key(store._database, "default", NOW)
    second = rotate_key(store._database, "default", NOW, HOUR)
    rotate_key(store._database, "default", NOW + HOUR / 2, 24 * HOUR)
    assert not verify_key(store._database, "default", first, NOW + 2 * HOUR)
    assert verify_key(store._database, "default", second, NOW + 2 * HOUR)
    assert len(read_keys(store._database, "default")) == 3
    rotate_key(store._database, "default", NOW + 2 * HOUR, HOUR)
    assert [key.expires for key in read_keys(store._database, "default")] == [
        NOW + 24.5 * HOUR,
        NOW + 3 * HOUR,
        None,
    ]


@pytest.mark.parametrize("overlap", [timedelta(seconds=-1), timedelta(days=366)])
def test_an_overlap_is_no_backdoor(store: Store, overlap: timedelta) -> None:
    create_key(store._database, "default", NOW)
    with pytest.raises(InvalidValue, match="overlap"):
        rotate_key(store._database, "default", NOW, overlap)
    assert len(read_keys(store._database, "default")) == 1


def test_keys_go_with_their_cluster_and_do_not_come_back(store: Store) -> None:
    store.commit([add(Kind.CLUSTER, {"name": "lab"})], message="lab")
    key = create_key(store._database, "lab", NOW)
    store.commit([remove(Kind.CLUSTER, {"name": "lab"})], message="gone")
    store.rollback(2)
    assert not verify_key(store._database, "lab", key, NOW)
    assert store._database.query("SELECT count(*) FROM cluster_key") == [(0,)]
    assert create_key(store._database, "lab", NOW)
