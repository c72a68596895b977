import json
from pathlib import Path

import pytest

from marchproxy.model.change import Kind, diff
from marchproxy.model.errors import NotFound
from marchproxy.model.snapshot import Snapshot
from marchproxy.store.errors import StoreCorrupt
from marchproxy.store.reader import advance, read_changes, read_revision, read_snapshot, rebuild
from marchproxy.store.rows import COLUMNS
from marchproxy.store.store import Store
from tests.store.build import add, holding, mapping, service

WEB, API = service("web"), service("api", "10.0.0.2")


def _statements(store: Store) -> list[str]:
    seen: list[str] = []
    store._database._connection.set_trace_callback(seen.append)
    return seen


def test_a_snapshot_is_a_handful_of_statements_however_much_it_holds(store: Store) -> None:
    services = [service(f"s{number}") for number in range(300)]
    mappings = [mapping(f"m{number}", f"s{number}", "all") for number in range(300)]
    lab = [add(Kind.CLUSTER, {"name": "lab"}), add(Kind.SERVICE, WEB, "lab")]
    store.replace(holding(services, mappings), message="many")
    store.commit(lab, message="lab")
    seen = _statements(store)
    snapshot = read_snapshot(store._database)
    assert [len(cluster.services) for cluster in snapshot.clusters] == [300, 1]
    assert len(seen) == len(COLUMNS)


def test_what_is_known_is_not_read_again(state_dir: Path, store: Store) -> None:
    store.replace(holding([service(f"s{number}") for number in range(50)]), message="many")
    with Store.open(state_dir) as other:
        other.commit([add(Kind.SERVICE, WEB)], message="web")
    seen = _statements(store)
    assert len(store.snapshot().clusters[0].services) == 51
    assert not [sql for sql in seen if "service" in sql.lower()]


def test_what_is_known_of_a_store_that_went_back_is_forgotten(store: Store) -> None:
    """A server's database can be restored from a backup under an open connection."""
    store.replace(holding([WEB]), message="web")
    store._database.query('DELETE FROM "change" WHERE revision = 2')
    store._database.query("DELETE FROM revision WHERE number = 2")
    store._database.query("DELETE FROM service")
    assert store.current() == (store.revision(1), Snapshot())


def test_changes_come_in_the_order_they_were_made(store: Store) -> None:
    first, second = store.snapshot(), store.replace(holding([WEB]), message="2")
    assert second.number == 2
    store.replace(holding([WEB, API]), message="3")
    assert read_changes(store._database, 1, 3) == (add(Kind.SERVICE, WEB), add(Kind.SERVICE, API))
    assert read_changes(store._database, 2, 3) == (add(Kind.SERVICE, API),)
    assert read_changes(store._database, 3, 3) == ()
    assert advance(store._database, first, 1, store.head()) == store.snapshot()
    assert rebuild(store._database, store.snapshot(), store.head(), 1) == first


def test_a_revision_that_never_was(store: Store) -> None:
    with pytest.raises(NotFound, match="revision 2") as caught:
        read_revision(store._database, 2)
    assert "revision list" in caught.value.hint


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        ("""UPDATE "change" SET after = 'no JSON' WHERE revision = 2""", "changes after revision 1"),
        ("""UPDATE "change" SET after = '[]' WHERE revision = 2""", "is no JSON object"),
        ("""UPDATE "change" SET kind = 'thing' WHERE revision = 2""", "'thing' is not a valid Kind"),
        ("""UPDATE "change" SET after = '{"name":"x"}' WHERE revision = 2""", "cannot be rebuilt"),
        ("""DELETE FROM "change" WHERE revision = 2""", "revision 1 was recorded with SHA-256"),
        ("""UPDATE "change" SET after = 7 WHERE revision = 2""", "is no JSON object"),
        ("UPDATE revision SET sha256 = 'x' WHERE number = 1", "revision 1 was recorded with SHA-256 x"),
        ("UPDATE revision SET time = 'noon' WHERE number = 1", "revision 1: Invalid isoformat"),
    ],
)
def test_a_history_that_does_not_lead_back_is_damage(store: Store, damage: str, why: str) -> None:
    store.replace(holding([WEB]), message="web")
    store._database.query(damage)
    with pytest.raises(StoreCorrupt, match=why):
        store.snapshot_at(1)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        ("DELETE FROM settings", "one row of settings"),
        ("UPDATE settings SET flow_table = 7", "flow_table: 7 is not valid"),
        ("UPDATE settings SET resolvers = 'x'", "Expecting value"),
        ("UPDATE service SET drain = NULL", "must be str"),
        ("UPDATE service SET drain = '[\"10.9.9.9\"]'", "drain: '10.9.9.9' is not valid"),
        ("UPDATE cluster SET name = 'a b'", "name: 'a b' is not valid"),
    ],
)
def test_a_row_that_nobody_of_ours_wrote_is_damage(store: Store, damage: str, why: str) -> None:
    store.replace(holding([WEB]), message="web")
    store._database.query(damage)
    store._known = None
    with pytest.raises(StoreCorrupt, match=why):
        store.snapshot()


def test_history_is_readable_with_any_sql_shell(store: Store) -> None:
    store.replace(holding([WEB]), message="web")
    [(after,)] = store._database.query('SELECT after FROM "change" WHERE revision = 2')
    assert json.loads(after) == WEB
    assert store.changes(2) == diff(store.snapshot_at(1), store.snapshot())
