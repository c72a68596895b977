"""Contents of block lists: kept once, with their revision or not at all, and still there after a rollback."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from marchproxy.model.appliance import BlockList
from marchproxy.model.blocklist import BlockContents, from_keys, key_of, name_of
from marchproxy.model.errors import NotFound
from marchproxy.model.snapshot import Snapshot
from marchproxy.store import contents as pieces
from marchproxy.store.errors import StoreCorrupt
from marchproxy.store.store import Build, Store

FEW = from_keys([key_of(10 << 24, 8)], [], [("ads.example", 0)])
MANY = from_keys([key_of(number << 10, 24) for number in range(5000)], [])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path, create=True) as made:
        yield made


def named(contents: BlockContents, name: str = "bad") -> Build:
    """A snapshot with one list."""
    item = BlockList(name, name_of(contents.pack()), len(contents))
    return lambda snapshot: replace(snapshot, block_lists=(item,))


def count(store: Store, table: str) -> int:
    return int(store._database.query(f"SELECT count(*) FROM {table}")[0][0])  # noqa: S608


def test_what_is_imported_can_be_read_by_readers_too(store: Store, tmp_path: Path) -> None:
    store.replace(named(FEW), message="import", contents=[FEW.pack()])
    with Store.open(tmp_path, read_only=True) as reader:
        (item,) = reader.snapshot().block_lists
        assert reader.block_contents(item.sha256) == FEW


def test_large_contents_are_cut_and_put_together(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE", 100)
    store.replace(named(MANY), message="import", contents=[MANY.pack()])
    assert count(store, "block_piece") > 10
    assert store.block_contents(name_of(MANY.pack())) == MANY


def test_same_contents_are_kept_once(store: Store) -> None:
    store.replace(named(FEW, "a"), message="import", contents=[FEW.pack()])
    store.replace(named(FEW, "b"), message="import", contents=[FEW.pack()])
    assert count(store, "block_contents") == 1


def test_rollback_finds_contents_that_were_replaced(store: Store) -> None:
    first = store.replace(named(FEW), message="import", contents=[FEW.pack()])
    store.replace(named(MANY), message="again", contents=[MANY.pack()])
    store.replace(lambda snapshot: replace(snapshot, block_lists=()), message="remove")
    store.rollback(first.number)
    (item,) = store.snapshot().block_lists
    assert store.block_contents(item.sha256) == FEW


def test_list_without_contents_is_no_revision(store: Store) -> None:
    before = store.head()
    with pytest.raises(NotFound, match="contents of a block list"):
        store.replace(named(FEW), message="apply")
    assert (store.head(), count(store, "block_contents")) == (before, 0)


def test_failed_revision_leaves_no_contents(store: Store) -> None:
    def refuse(_: Snapshot) -> Snapshot:
        raise NotFound("something", "else")

    with pytest.raises(NotFound):
        store.replace(refuse, message="import", contents=[FEW.pack()])
    assert count(store, "block_contents") == 0


def test_unknown_contents(store: Store) -> None:
    with pytest.raises(NotFound, match="contents of a block list"):
        store.block_contents("0" * 64)


@pytest.mark.parametrize("data", ["AAAA", "!!!!", ""])
def test_damaged_contents_are_named(store: Store, data: str) -> None:
    store.replace(named(FEW), message="import", contents=[FEW.pack()])
    store._database.query("UPDATE block_piece SET data = ?", data)
    with pytest.raises(StoreCorrupt, match="block list"):
        store.block_contents(name_of(FEW.pack()))
